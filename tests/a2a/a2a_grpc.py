"""gRPC behind the drivers' interface, with the official SDK's messages on the client's side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
from a2a.types import a2a_pb2
from a2a_drivers import Failed, Json
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

SERVICE = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"]


@dataclass
class Grpc:
    channel: grpc.aio.Channel
    binding: str = "grpc"

    async def call(self, operation: str, params: Json, **headers: str) -> Json:
        method = SERVICE.methods_by_name[operation]
        rpc: Any = self.channel.unary_unary(
            f"/{SERVICE.full_name}/{operation}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            answer = await rpc(self._request(method, params), metadata=self._metadata(headers))
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None
        return self._json(answer)

    async def stream(self, operation: str, params: Json, **headers: str) -> AsyncIterator[Json]:
        method = SERVICE.methods_by_name[operation]
        rpc: Any = self.channel.unary_stream(
            f"/{SERVICE.full_name}/{operation}",
            request_serializer=lambda m: m.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        try:
            async for event in rpc(self._request(method, params), metadata=self._metadata(headers)):
                yield self._json(event)
        except grpc.aio.AioRpcError as error:
            raise self._failed(error) from None

    def _request(self, method: Any, params: Json) -> Any:
        return ParseDict(params, GetMessageClass(method.input_type)())

    def _json(self, message: Any) -> Json:
        found = MessageToDict(message)
        if message.DESCRIPTOR.name == "ListTasksResponse":
            found = {"tasks": [], "nextPageToken": "", "totalSize": 0} | found
        if message.DESCRIPTOR.name == "ListTaskPushNotificationConfigsResponse":
            found = {"configs": []} | found
        return found

    def _metadata(self, headers: dict[str, str]) -> list[tuple[str, str]]:
        given = {"a2a-version": "1.0"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return [(k, v) for k, v in given.items() if v is not None]

    def _failed(self, error: grpc.aio.AioRpcError) -> Failed:
        kind = ""
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                status = status_pb2.Status.FromString(value)
                for detail in status.details:
                    info = error_details_pb2.ErrorInfo()
                    if detail.Unpack(info):
                        assert info.domain == "a2a-protocol.org"
                        kind = info.reason
        return Failed(kind, error.code().name, error.details() or "", error)
