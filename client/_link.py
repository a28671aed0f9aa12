"""One connection to a server, and the calls that are made on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import service_pb2, service_pb2_grpc

from reelserve.client._addresses import Address

CLOSE_S = 5.0
"""A channel of the synchronous API closes at once, or never; see `Link.close`."""
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

    def close(self) -> None:
        """Closes the channel of the synchronous API, whose calls end as cancelled.

        gRPC waits until every call has ended. A call that Ctrl-C has interrupted while it was
        being made, after gRPC counts it and before a thread looks after it, never does.
        """
        closing = threading.Thread(target=self.channel.close, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
