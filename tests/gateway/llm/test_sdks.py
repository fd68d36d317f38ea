"""Our requests, our answers and our doubles are what the providers' own SDKs take (slow: they are fetched)."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from quarterdeck import snapshot as s
from quarterdeck.gateway.llm.formats import FORMATS
from quarterdeck.gateway.llm.formats.answer import Chunks
from quarterdeck.gateway.llm.formats.chat import read
from quarterdeck.gateway.llm.framing import cutter
from quarterdeck.gateway.llm.signature import sign
from quarterdeck.oci.build import find_uv

from .conftest import TOOL, model
from .doubles import ANSWERS, STREAMS
from .test_formats import SPECS, TALK

SDKS = ("openai>=3,<4", "anthropic>=2,<3", "google-genai>=3,<4", "ollama>=0.6,<0.7", "botocore>=1.44,<2")
SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"], "additionalProperties": False}
BODIES: tuple[dict[str, Any], ...] = (
    {"messages": TALK, "tools": [TOOL], "max_tokens": 50, "temperature": 0.5, "top_p": 0.9, "stop": ["E"]},
    {"messages": TALK, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "add"}},
     "parallel_tool_calls": False},
    {"messages": TALK[:2], "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
     "seed": 1, "reasoning_effort": "low"},
)  # fmt: skip


def shown(name: str) -> dict[str, Any]:
    """All of one format that an SDK can judge."""
    spoken = model(*SPECS[name]) if name in SPECS else s.Model("kagent", "m", "SAPAICore", "x", "http://x")
    chunks = Chunks(usage=True)
    translator = FORMATS[name].translator(chunks)
    events = cutter(FORMATS[name].framing).feed(b"".join(STREAMS[name]))
    for event, document in events:
        translator.event(event, document)
    chunks.end()
    return {
        "requests": [FORMATS[name].request(spoken, read(json.dumps(body).encode())).body for body in BODIES],
        "answer": ANSWERS[name],
        "stream": base64.b64encode(b"".join(STREAMS[name])).decode(),
        "events": [document for _, document in events if document.get("type") != "ping"],  # of no type of the SDK's
        "completion": json.loads(FORMATS[name].answer(ANSWERS[name]).encode()),
        "chunks": [json.loads(line[6:]) for line in chunks.take().split(b"\n") if line.startswith(b"data: {")],
    }


@pytest.mark.slow
def test_the_providers_sdks_agree() -> None:
    host, path = "bedrock-runtime.eu-west-1.amazonaws.com", "/model/eu.anthropic.claude%3A0/converse"
    access = s.ModelAccess("aws", "AKIDEXAMPLE", "secret", audience="eu-west-1", session="session")
    headers = {"host": host, "content-type": "application/json"}
    asked = {"url": f"https://{host}{path}", "body": '{"a":1}', "headers": {"content-type": "application/json"},
             "id": access.id, "secret": access.secret, "session": access.session,
             "region": access.audience}  # fmt: skip
    data = {
        "formats": {name: shown(name) for name in FORMATS},
        "asked": asked,
        "signed": sign(access, "POST", path, headers, b'{"a":1}', 1440938160),
    }
    wanted = [word for sdk in SDKS for word in ("--with", sdk)]
    script = Path(__file__).with_name("sdk_check.py")
    done = subprocess.run(
        [*find_uv(), "run", "--quiet", "--no-project", *wanted, "python", str(script)],
        input=json.dumps(data), capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    if done.returncode and any(word in done.stderr for word in ("error sending request", "dns error", "No solution")):
        pytest.skip(f"the SDKs cannot be had here: {done.stderr.strip().splitlines()[-1]}")
    assert (done.stdout.strip(), done.returncode) == ("checked", 0), done.stdout + done.stderr
