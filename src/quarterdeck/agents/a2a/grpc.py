"""A2A over gRPC: A2AService of version 1.0 on a port of its own (specification 1.0.1 §10)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from quarterdeck.a2atypes import Json, errors, operations
from quarterdeck.errors import QuarterdeckError

from . import protobuf
from .core import Call, Caller, Core
from .schema import METHODS, SERVICE

LARGEST = 4 * 1024 * 1024
Verify = Callable[[str], Awaitable[Caller]]
"""Who an ``authorization`` is. Raises Unauthorized; called with an empty one for callers without a token."""
_STATUS = {code.name: code for code in grpc.StatusCode}
_DETAILS = "grpc-status-details-bin"


class GrpcServer:
    """Serves one agent. ``verify``: the port may be reachable for others than the gateway, so no name is believed."""

    def __init__(self, core: Core, verify: Verify) -> None:
        self._core = core
        self._verify = verify
        limits = [("grpc.max_receive_message_length", LARGEST), ("grpc.so_reuseport", 0)]
        self._server = grpc.aio.server(options=limits)
        handlers: dict[str, Any] = {name: self._handler(name) for name in METHODS}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    async def listen(self, host: str, port: int) -> int:
        """The bound port. Raises OSError."""
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            bound = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error
        await self._server.start()
        return bound

    async def stop(self, grace: float) -> None:
        await self._server.stop(grace)

    def _handler(self, name: str) -> Any:
        request, response = METHODS[name]

        def decode(data: bytes) -> bytes:
            return data

        async def call(data: bytes, context: Any) -> Call:
            metadata: dict[str, str] = {k: v for k, v in context.invocation_metadata() or () if isinstance(v, str)}
            version = metadata.get("a2a-version", "")
            if version and operations.version(version) != "1.0":
                raise errors.VersionNotSupported(f"A2A-Version {version[:20]}: {SERVICE} is of version 1.0")
            caller = await self._verify(metadata.get("authorization", ""))
            params = protobuf.decode(request, data)
            extensions = [uri.strip() for uri in metadata.get("a2a-extensions", "").split(",") if uri.strip()]
            found = Call(name, params, caller, "1.0", tuple(extensions[:100]), base=self._core.card.home)
            active = self._core.activated(found)
            if active:
                await context.send_initial_metadata((("a2a-extensions", ", ".join(active)),))
            return found

        async def unary(data: bytes, context: Any) -> bytes:
            try:
                answer = await self._core.unary(await call(data, context))
                return protobuf.encode(response, answer)
            except QuarterdeckError as error:
                await _abort(context, error)
                raise AssertionError("abort raises") from error

        async def stream(data: bytes, context: Any) -> AsyncGenerator[bytes]:
            try:
                events = await self._core.stream(await call(data, context))
                try:
                    async for _, event in events:
                        yield protobuf.encode(response, event)
                finally:
                    await events.aclose()
            except QuarterdeckError as error:
                await _abort(context, error)

        if name in operations.STREAMS:
            return grpc.unary_stream_rpc_method_handler(stream, decode, decode)
        return grpc.unary_unary_rpc_method_handler(unary, decode, decode)


async def _abort(context: Any, error: QuarterdeckError) -> None:
    code = _STATUS.get(errors.statuses(error)[2], grpc.StatusCode.INTERNAL)
    details: list[Json] = errors.details(error)
    number: int = code.value[0]
    await context.abort(code, str(error), ((_DETAILS, protobuf.status(number, str(error), details)),))
