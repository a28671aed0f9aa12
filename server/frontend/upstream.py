"""One Triton as the front end sees it: a channel that may be renewed, and the clips it draws."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from reelserve.server.frontend.admission import Line
from reelserve.server.frontend.errors import CallError, from_triton, unavailable

SERVICE = "inference.GRPCInferenceService"
RESTRICTED = (
    "inference,model-repository,shared-memory,model-config,statistics,trace,logging,metadata"
)
"""Triton's protocols that are closed to everybody without the secret; open is health."""
UNLIMITED = -1
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", UNLIMITED),
    ("grpc.max_receive_message_length", UNLIMITED),
    # gRPC takes a proxy of the environment for this machine's own addresses too.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
STATUS_TIMEOUT_S = 10.0
OF_A_LOST_CONNECTION = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
DEATH_LOOKS, DEATH_LOOK_S = 20, 0.05
RESTART_S = 5.0
"""Said to callers while a Triton is started again; on a CPU it takes less."""


@dataclass(frozen=True)
class Secret:
    """A header without which Triton answers nothing but whether it lives."""

    name: str = field(default_factory=lambda: f"reelserve-{secrets.token_hex(4)}")
    value: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def argument(self) -> str:
        """Value of `--grpc-restricted-protocol`."""
        return f"{RESTRICTED}:{self.name}={self.value}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of every call."""
        return ((f"triton-grpc-protocol-{self.name}", self.value),)


class Upstream:
    """A Triton that may die and be started again.

    Deadlines and cancels of callers never reach it: a storm of them ends Triton 2.51 by SIGSEGV.

    Args:
        name: Of the Triton, for logs and metrics.
        secret: Of its start.
        lost: Says why it cannot answer any more, or None; asked when a call has failed.
    """

    def __init__(self, name: str, secret: Secret, lost: Callable[[], str | None]) -> None:
        self.line = Line(name)
        self.metrics_url = ""
        self._secret, self._lost = secret, lost
        self._channel: grpc.aio.Channel | None = None

    def connect(self, url: str, metrics_url: str) -> None:
        """Takes calls from now on."""
        self.metrics_url = metrics_url
        self._channel = grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        self.line.ready = True

    async def disconnect(self) -> None:
        """Takes none any more; those that run fail."""
        self.line.ready = False
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def infer(self, request: service_pb2.ModelInferRequest) -> Any:
        """Calls a model and waits as long as it takes.

        Raises:
            CallError: What Triton answered; UNAVAILABLE if it died meanwhile.
        """
        answer = service_pb2.ModelInferResponse.FromString
        return await self._call("ModelInfer", request.SerializeToString(), answer, None)

    async def pass_on(self, method: str, raw: bytes) -> bytes:
        """Passes a call on as it is.

        Raises:
            CallError: What Triton answered, or that it did not.
        """
        passed: bytes = await self._call(method, raw, None, STATUS_TIMEOUT_S)
        return passed

    async def _call(self, method: str, raw: bytes, read: Any, timeout_s: float | None) -> Any:
        channel = self._channel
        if channel is None:
            raise self.starting()
        call = channel.unary_unary(f"/{SERVICE}/{method}", response_deserializer=read)
        try:
            return await call(raw, timeout=timeout_s, metadata=self._secret.metadata)
        except grpc.aio.AioRpcError as error:
            failure = from_triton(error)
        except asyncio.CancelledError:
            # The channel was closed under the call; a cancel of the task itself goes on.
            if channel is self._channel:
                raise
            failure = None
        if failure is None or channel is not self._channel or await self._has_died(failure):
            # Nothing new until it has been started again.
            self.line.ready = False
            raise unavailable("the part of the server that drew the clip has failed", RESTART_S)
        raise failure

    async def _has_died(self, failure: CallError) -> bool:
        """Whether a call has failed since Triton has died; its connections end before it does."""
        looks = DEATH_LOOKS if failure.code in OF_A_LOST_CONNECTION else 1
        for look in range(looks):
            if look:
                await asyncio.sleep(DEATH_LOOK_S)
            if self._lost() is not None:
                return True
        return False

    def starting(self) -> CallError:
        """Said while there is no Triton."""
        return unavailable("the server is starting", RESTART_S)
