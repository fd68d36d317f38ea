"""What is seen of a run: one trace from who asked to the model and the tools, metrics, timings in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from quarterdeck.agents.credentials import trace_parent
from quarterdeck.agents.journal.fold import Story
from quarterdeck.agents.observe.redact import Redactor
from quarterdeck.agents.observe.run import About, Observer
from quarterdeck.agents.observe.spans import Sampler, Tracer, sampler
from quarterdeck.errors import ConfigError
from quarterdeck.gateway.audit import otlp
from quarterdeck.gateway.audit.delivery import Exporter
from quarterdeck.telemetry.environment import collector, endpoint, handed_on
from quarterdeck.telemetry.merge import Exposition
from quarterdeck.telemetry.trace import parse

from .conftest import call, say, user_message

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ABOUT = About("kagent/a", "double", "openai", 1_000_000.0, 2_000_000.0)


class Collector:
    """Takes what an exporter posts."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        encode = partial(otlp.traces, resource=[], by="quarterdeck.agents")
        self.exporter = Exporter(self.post, encode, limit=100, on_error=pytest.fail)

    async def post(self, body: bytes) -> None:
        [resource] = msgspec.json.decode(body)["resourceSpans"]
        [scope] = resource["scopeSpans"]
        assert scope["scope"]["name"] == "quarterdeck.agents"
        self.spans += scope["spans"]

    async def all(self) -> dict[str, dict[str, Any]]:
        """Spans by name, their attributes as a dict."""
        sending = asyncio.create_task(self.exporter.run())
        await self.exporter.drained()
        sending.cancel()
        for span in self.spans:
            pairs = ((a["key"], next(iter(a["value"].values()))) for a in span["attributes"])
            span["attributes"] = dict(pairs)
        return {span["name"]: span for span in self.spans}


async def test_a_run_is_one_trace_with_its_model_and_tool_calls(start: Callable[..., Any]) -> None:
    collector = Collector()
    observer = Observer(ABOUT, Tracer(collector.exporter, content=True), redactor=Redactor(["*pin*"]))
    secret = {"text": '{"greeting": "hi", "api_key": "sk-2"}', "pin": "p1n-code", "api_key": "sk-1"}
    agent = await start(call("echo", secret), say("it says hi"), observer=observer, stream=True)
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": user_message("echo hi")}}
    answer = await agent.http.post("/", json=body, headers={"a2a-version": "1.0", "traceparent": PARENT}, timeout=60)
    task = answer.json()["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"

    spans = await collector.all()
    run, tool = spans["invoke_agent a"], spans["execute_tool echo"]
    asked = [span for span in collector.spans if span["name"] == "chat double"]
    assert {span["traceId"] for span in collector.spans} == {TRACE} and len(asked) == 2
    assert run["parentSpanId"] == "b7ad6b7169203331"
    assert {span["parentSpanId"] for span in (*asked, tool)} == {run["spanId"]}
    sent = [parse(headers[b"traceparent"]) for headers in agent.model.headers]
    assert sent == [(TRACE, span["spanId"], 1) for span in asked], "the gateway's spans hang below the call's"

    about = run["attributes"]
    assert about["gen_ai.operation.name"] == "invoke_agent" and about["gen_ai.agent.id"] == "kagent/a"
    assert about["gen_ai.conversation.id"] == task["contextId"] and about["a2a.task.id"] == task["id"]
    assert about["quarterdeck.run.outcome"] == "completed" and about["user.id"] == "admin@kagent.dev"
    first = asked[0]["attributes"]
    assert (first["gen_ai.operation.name"], first["gen_ai.request.model"]) == ("chat", "double")
    assert first["quarterdeck.step"] == "1" and "echo hi" in first["gen_ai.input.messages"]
    assert asked[1]["attributes"]["gen_ai.response.time_to_first_chunk"] >= 0
    assert tool["attributes"]["gen_ai.tool.name"] == "echo" and tool["attributes"]["gen_ai.tool.call.id"] == "c1"
    everything = str(collector.spans)
    assert not any(hidden in everything for hidden in ("p1n-code", "sk-1", "sk-2")) and "it says hi" in everything
    answered = asked[1]["attributes"]["gen_ai.input.messages"]
    assert "tool_call_response" in answered and "greeting" in answered and "Be brief." in answered

    shown = await agent.http.get("/metrics")
    samples = {k: v for family in Exposition(shown.text).samples.values() for k, v in family.items()}
    assert samples['quarterdeck_agent_runs_total{outcome="completed",reason=""}'] == 1
    assert samples['quarterdeck_agent_step_duration_seconds_count{kind="model",name="double",outcome="ok"}'] == 2
    assert samples['quarterdeck_agent_time_to_first_token_seconds_count{model="double"}'] == 1
    assert [v for k, v in samples.items() if "step_duration_seconds_count" in k and 'kind="tool"' in k] == [1]
    through_gateway = await agent.http.get("/metrics", headers={"x-quarterdeck-principal": "alice"})
    assert through_gateway.status_code == 404


async def test_the_journal_keeps_model_cost_and_timings(start: Callable[..., Any]) -> None:
    collector = Collector()
    observer = Observer(ABOUT, Tracer(collector.exporter))
    agent = await start(call("echo", {"text": "hi"}), say("done"), observer=observer)
    task = await agent.ask("echo hi")
    run, events = await agent.journal.events(task["id"])
    asked = [event.data for event in events if event.kind == "model.result"]
    assert [(data["model"], data["cost"]) for data in asked] == [("double", 7.0), ("double", 7.0)]
    made = next(event.data for event in events if event.kind == "tool.result")
    assert all(0 <= data["took"] < 60 for data in (*asked, made)) and "first" not in asked[0]
    spans = await collector.all()
    assert spans["invoke_agent a"]["traceId"] == run["id"].replace("-", ""), "a trace of its own has the run's id"
    assert "hi" not in str(spans["execute_tool echo"]["attributes"].values()), (
        "what is said stays here unless asked for"
    )
    assert spans["invoke_agent a"]["attributes"]["quarterdeck.run.cost"] == 14.0


async def test_who_is_not_sampled_is_passed_on_only() -> None:
    collector = Collector()
    tracer = Tracer(collector.exporter)
    unsampled = PARENT[:-2] + "00"
    with Observer(ABOUT, tracer).run(Story(), run="r", task={}, user="u", parent=unsampled):
        assert trace_parent.get() == unsampled
    assert not collector.exporter.waiting and trace_parent.get() == ""
    nobody = Tracer()
    with Observer(ABOUT, nobody).run(Story(), run="r", task={}, user="u", parent="nonsense") as seen:
        known = parse(trace_parent.get().encode())
        assert known is not None and known[2] == 0, "its calls belong together nevertheless"
        with seen.chat(1):
            assert trace_parent.get().encode()[3:35].decode() == known[0]


async def test_what_goes_wrong_is_an_error_of_its_span() -> None:
    collector = Collector()
    observer = Observer(ABOUT, Tracer(collector.exporter, Sampler(1.0, parent=False)))
    run = observer.run(Story(), run="r", task={}, user="u", parent="")
    with pytest.raises(ConfigError), run as seen, seen.chat(1):
        raise ConfigError("no")
    spans = await collector.all()
    assert spans["chat double"]["attributes"]["error.type"] == ConfigError.reason
    assert spans["chat double"]["status"]["code"] == 2
    assert spans["invoke_agent a"]["attributes"]["error.type"] == "left", "who has it goes on with it elsewhere"


def test_the_environment_says_where_spans_go_and_which() -> None:
    assert (
        endpoint({}) == "" and endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}) == "http://c:4318/v1/traces"
    )
    both = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x"}
    assert endpoint(both) == "https://t/x" and endpoint(both | {"OTEL_SDK_DISABLED": "true"}) == ""
    assert endpoint(both | {"OTEL_TRACES_EXPORTER": "none"}) == ""
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT=collector:4317"):
        endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"})
    assert endpoint({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}) and collector(both) == ("t", 443)
    assert collector({}) is None and collector({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:99999"}) is None
    given = {"OTEL_SERVICE_NAME": "x", "OTEL_EXPORTER_OTLP_HEADERS": "k=s", "QUARTERDECK_REDACT": "/a", "HOME": "/"}
    assert handed_on(given) == (("OTEL_SERVICE_NAME", "x"), ("QUARTERDECK_REDACT", "/a"))
    half = sampler({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"})
    assert half.sampled("0" * 18 + "7" + "f" * 13, 0) and not half.sampled("0" * 18 + "8" + "0" * 13, 1)
    assert not sampler({}).sampled(TRACE, 0) and sampler({}).sampled(TRACE, None)
    assert sampler({"OTEL_TRACES_SAMPLER": "always_on"}).sampled(TRACE, 0)
    assert not sampler({"OTEL_TRACES_SAMPLER": "always_off"}).sampled(TRACE, 1)
    for wrong in (
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"},
    ):
        with pytest.raises(ConfigError, match="OTEL_TRACES_SAMPLER"):
            sampler(wrong)
