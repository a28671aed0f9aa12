"""One connection to a server, and the calls that are made on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.client._addresses import Address

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


@dataclass(eq=False)
class Link:
    """A connection.

    Args:
        address: Where it goes.
        channel: Its gRPC channel, of either API.
    """

    address: Address
    channel: Any

    def __post_init__(self) -> None:
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        # With one request, which goes out with the headers. Sent by itself, as the stub does, it
        # can meet the status of a server that refused the headers, and then gRPC's asyncio says
        # "Internal error from Core" in the place of that status.
        self.stream = self.channel.unary_stream(
            STREAM,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
