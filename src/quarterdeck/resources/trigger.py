"""Trigger (quarterdeck.dev v1alpha1): what starts runs of an agent by itself, and how often it may.

Names and meanings are CronJob's where it has them. What comes from outside is data for the agent, never instructions.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .base import AGE, Column, Kind, LabelSelector, Model, Status, Version, condition_column, rules
from .rollout import Duration

Text = Annotated[str, Field(min_length=1, max_length=253)]
Expression = Annotated[str, Field(min_length=1, max_length=4096)]
Header = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
SOURCES = ("cron", "webhook", "kubernetesEvents", "alertmanager", "mcpResources")
"""Members of the spec that say what fires it; exactly one is set."""
LARGEST_BODY = 1024 * 1024
_COUNT: dict[str, Any] = {"format": "int32"}
_LONG: dict[str, Any] = {"format": "int64"}
_TIME: dict[str, Any] = {"format": "date-time"}


def _enum(*values: str) -> Any:
    return Field(json_schema_extra={"enum": list(values)})


class SecretKey(Model):
    name: Text = Field(description="Name of a Secret in the trigger's namespace.")
    key: Text = Field(description="The key in it.")


class Cron(Model):
    """By the clock."""

    schedule: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        description="Five fields of cron (minute, hour, day of month, month, day of week), or @hourly and the like. "
        "What falls into the hour that daylight saving skips is done right after it; what falls into the hour that "
        "comes twice is done once."
    )
    time_zone: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Name in the IANA database, such as Europe/Berlin; UTC when absent."
    )
    starting_deadline_seconds: int | None = Field(
        None, ge=0, json_schema_extra=_LONG, description="A time missed by more than that is not made up for."
    )
    missed_run_policy: Annotated[str, _enum("RunLatest", "RunAll", "Skip")] = Field(
        "RunLatest",
        description="What becomes of times that passed while nobody looked, or while it was suspended: the latest is "
        "made up for (as CronJob does), all are (the 100 latest at most), or none.",
    )


class Bearer(Model):
    secret_ref: SecretKey = Field(description="The token that senders show as Authorization: Bearer.")


class GitHub(Model):
    secret_ref: SecretKey = Field(description="The webhook's secret: key of X-Hub-Signature-256.")
    events: list[Text] | None = Field(
        None, max_length=100, description="Values of X-GitHub-Event that count; all but ping when empty."
    )


class Hmac(Model):
    """HMAC-SHA256 over ``TIMESTAMP.BODY``, in hexadecimal, ``sha256=`` before it or not."""

    secret_ref: SecretKey = Field(description="The key.")
    header: Header = Field("X-Quarterdeck-Signature", description="Header with the signature.")
    timestamp_header: Header = Field(
        "X-Quarterdeck-Timestamp", description="Header with the time of sending, in seconds since the epoch."
    )
    tolerance: Duration = Field("5m", description="How old a request may be; older ones are refused as replays.")


class Webhook(Model):
    """By a POST to /hooks/NAMESPACE/NAME at the gateway."""

    model_config = rules(
        (
            "(has(self.github) ? 1 : 0) + (has(self.hmac) ? 1 : 0) + (has(self.bearer) ? 1 : 0) == 1",
            "exactly one of github, hmac and bearer must be set",
        )
    )
    github: GitHub | None = Field(None, description="GitHub's webhooks.")
    hmac: Hmac | None = Field(None, description="Senders that sign with a shared key.")
    bearer: Bearer | None = Field(None, description="Senders that show a token.")
    max_body_bytes: int = Field(
        262144, ge=1, le=LARGEST_BODY, json_schema_extra=_COUNT, description="Larger bodies are refused."
    )


class KubernetesEvents(Model):
    """By Events of Kubernetes. Of other namespaces only those count whose events the ServiceAccount may list."""

    kinds: list[Text] | None = Field(None, max_length=50, description="Kinds of the objects; all when empty.")
    names: list[Text] | None = Field(None, max_length=50, description="Names of the objects, * at the end for any.")
    reasons: list[Text] | None = Field(None, max_length=50, description="Reasons, such as BackOff; all when empty.")
    types: list[Annotated[str, _enum("Normal", "Warning")]] | None = Field(
        None, max_length=2, description="Warning alone when empty."
    )
    namespace_selector: LabelSelector | None = Field(
        None, description="Labels of the namespaces whose events count; the trigger's own when absent."
    )


class Alertmanager(Model):
    """By Alertmanager's webhook (version 4) to /hooks/NAMESPACE/NAME; one run for a group of alerts."""

    bearer: Bearer = Field(description="What Alertmanager shows (http_config.authorization).")
    statuses: list[Annotated[str, _enum("firing", "resolved")]] | None = Field(
        None, max_length=2, description="firing alone when empty."
    )
    labels: dict[str, str] | None = Field(None, description="Labels that all alerts of the group must have in common.")


class McpServerRef(Model):
    kind: Annotated[str, _enum("MCPServer", "RemoteMCPServer")] = Field("MCPServer", description="Its kind.")
    name: Text = Field(description="Name of a server in the trigger's namespace that the agent has as a tool.")


class McpResources(Model):
    """By updates of an MCP server's resources, which the gateway tells in the agent's name."""

    server: McpServerRef = Field(description="The server.")
    uris: list[Annotated[str, Field(min_length=1, max_length=2048)]] = Field(
        min_length=1, max_length=20, description="The resources."
    )


class Deduplicate(Model):
    """What is told twice starts one run."""

    key: Expression | None = Field(
        None,
        description="CEL; what gives the same is the same. When absent: for Events object and reason, for alerts group "
        "and status, for resources the URI; else every firing is its own.",
    )
    window: Duration = Field("10m", description="How long after a run was started; 0s switches this off.")


class RateLimit(Model):
    runs: int = Field(30, ge=1, le=10000, json_schema_extra=_COUNT, description="So many runs at most")
    per: Duration = Field("1h", description="in any such time. Further firings are counted and start nothing.")


class TriggerSpec(Model):
    """What fires, and what is done then."""

    model_config = rules(
        (
            " + ".join(f"(has(self.{name}) ? 1 : 0)" for name in SOURCES) + " == 1",
            f"exactly one of {', '.join(SOURCES[:-1])} and {SOURCES[-1]} must be set",
        )
    )
    description: str | None = Field(None, max_length=1024, description="What it is for.")
    agent: Text = Field(description="Name of the agent, in the trigger's namespace.")
    service_account_name: Text = Field(
        description="ServiceAccount of the trigger's namespace in whose name runs are started. It must be allowed to "
        "create runs (quarterdeck.dev) there."
    )
    cron: Cron | None = Field(None, description="By the clock.")
    webhook: Webhook | None = Field(None, description="By HTTP requests.")
    kubernetes_events: KubernetesEvents | None = Field(None, description="By Events of Kubernetes.")
    alertmanager: Alertmanager | None = Field(None, description="By alerts.")
    mcp_resources: McpResources | None = Field(None, description="By updates of an MCP server's resources.")
    when: Expression | None = Field(
        None,
        description="CEL over trigger, body, headers, event and alerts; firings for which it is not true are none.",
    )
    message: Annotated[str, Field(min_length=1, max_length=16384)] = Field(
        description="What the agent is asked. {{ CEL }} stands for a value, as JSON and cut to 1,000 characters."
    )
    include_payload: bool = Field(
        True, description="Whether what fired it is added to the message, marked as data from outside."
    )
    max_payload_bytes: int = Field(
        16384, ge=256, le=131072, json_schema_extra=_COUNT, description="What is added at most; the rest is cut off."
    )
    concurrency_policy: Annotated[str, _enum("Allow", "Forbid", "Replace")] = Field(
        "Allow", description="While a run of this trigger goes on: start another, none, or another in its place."
    )
    deduplicate: Deduplicate | None = Field(None, description="What is told twice starts one run.")
    rate_limit: RateLimit = Field(default_factory=lambda: RateLimit(runs=30, per="1h"), description="How many runs.")
    suspend: bool = Field(False, description="Whether nothing is started.")
    dry_run: bool = Field(False, description="Whether firings are noted down with their message and start nothing.")
    successful_runs_history_limit: int = Field(
        20, ge=0, le=1000, json_schema_extra=_COUNT, description="How many completed runs are kept with their journals."
    )
    failed_runs_history_limit: int = Field(
        20, ge=0, le=1000, json_schema_extra=_COUNT, description="How many failed and canceled ones."
    )


class TriggerStatus(Status):
    source: str | None = Field(None, description="What fires it.")
    path: str | None = Field(None, description="Where the gateway takes its requests.")
    active: int | None = Field(None, description="Runs of it that have not ended.")
    started: int | None = Field(None, json_schema_extra=_LONG, description="Runs started so far.")
    skipped: int | None = Field(
        None, json_schema_extra=_LONG, description="Firings that started nothing: missed, or by concurrencyPolicy."
    )
    deduplicated: int | None = Field(None, json_schema_extra=_LONG, description="Firings told before.")
    limited: int | None = Field(None, json_schema_extra=_LONG, description="Firings above the rate limit.")
    last_firing_time: str | None = Field(None, json_schema_extra=_TIME, description="When it fired last.")
    last_outcome: str | None = Field(None, description="What came of that.")
    last_run: str | None = Field(None, description="Id of the last run; see: qd run show.")
    next_firing_time: str | None = Field(None, json_schema_extra=_TIME, description="When its schedule is due next.")


class Trigger(Model):
    """What starts runs of an agent by itself: the clock, a webhook, Events, alerts, or a resource that changed."""

    spec: TriggerSpec = Field(description="What fires, and what is done then.")
    status: TriggerStatus | None = Field(None, description="Observed state.")


KIND = Kind(
    "Trigger",
    "triggers",
    (
        Version(
            "v1alpha1",
            Trigger,
            (
                Column("Source", ".status.source"),
                Column("Agent", ".spec.agent"),
                Column("Suspend", ".spec.suspend", "boolean"),
                Column("Active", ".status.active", "integer"),
                Column("Last", ".status.lastFiringTime", "date"),
                Column("Next", ".status.nextFiringTime", priority=1),
                Column("Started", ".status.started", "integer", priority=1),
                condition_column("Ready"),
                AGE,
            ),
        ),
    ),
    group="quarterdeck.dev",
    categories=("quarterdeck",),
)
