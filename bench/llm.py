"""CPU per model request in the gateway process, beside the trivial model's own in the same run."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from quarterdeck import snapshot as s

from . import load
from .gateway_rig import process, request
from .measure import Row, child

CHAT = b'{"model":"trivial","messages":[{"role":"user","content":"Say hello."}]}'
STREAM = CHAT[:-1] + b',"stream":true}'
_KINDS = (("one answer", CHAT, 45.0, b'"hello"'), ("50 chunks streamed", STREAM, 250.0, b"[DONE]"))


def snapshot(model_port: int, key: ECKey) -> s.Snapshot:
    """One agent that may use one model."""
    return s.Snapshot(
        version="bench",
        models=(s.Model("kagent", "trivial", "OpenAI", "trivial", f"http://127.0.0.1:{model_port}/v1"),),
        policies=(s.AgentPolicy("kagent", "a", (), ("kagent/trivial",)),),
        identities=s.Identities(
            issuer="bench", jwks={"keys": [key.as_dict(private=False)]}, pods={"pod-a": "kagent/a"}
        ),
    )


async def bench(quick: bool) -> list[Row]:
    """Chat completions of an agent at 16 connections."""
    seconds = 1.5 if quick else 3.0
    key = ECKey.generate_key("P-256", {"kid": "k", "alg": "ES256"})
    claims = {
        "iss": "bench", "aud": "quarterdeck", "exp": int(time.time()) + 3600,
        "kubernetes.io": {"pod": {"uid": "pod-a"}},
    }  # fmt: skip
    bearer = b"authorization: Bearer %b\r\n" % jwt.encode({"alg": "ES256", "kid": "k"}, claims, key).encode()
    rows: list[Row] = []
    with child("bench.peers", "model") as (model_pid, line), tempfile.TemporaryDirectory(prefix="qd-bench-") as folder:
        async with process(Path(folder), snapshot(int(line), key), 0) as (pid, ports):
            for name, body, target, expected in _KINDS:
                straight = request("/v1/chat/completions", b"", body)
                direct = await load.run(
                    model_pid, int(line), straight, connections=16, seconds=seconds, expected=expected
                )
                data = request("/llm/kagent/trivial/v1/chat/completions", bearer, body)
                found = await load.run(
                    pid, ports["workloads"], data, connections=16, seconds=seconds, expected=expected
                )
                beside = f"{found.cpu / direct.cpu:.1f} × the trivial model ({direct.cpu:.0f} µs)"
                rows.append(Row(f"chat completion, {name}, c=16: CPU per request", found.cpu, "µs", target, beside))
    return rows
