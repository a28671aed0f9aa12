"""One Triton as the front end sees it: a channel that may be renewed, and the clips it draws."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from reelserve.server.frontend.admission import TritonLoad
from reelserve.server.frontend.call_errors import CallError, from_triton, unavailable

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
    # So that a Triton is seen as soon as it listens.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.use_local_subchannel_pool", 1),
)
BROKEN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)
"""Statuses of a call whose Triton, or a stage of it, has died."""
UNHEALTHY = "is not healthy"
"""Triton's words for a stage that does not react."""
DEATH_SEEN_S = 0.3
"""How long a process's death may take to show after its connection broke."""
STATUS_TIMEOUT_S = 10.0
RESTART_S = 5.0
"""Retry hint for callers while a Triton is started again; on a CPU it takes less."""


@dataclass(frozen=True)
class Secret:
    """A header without which Triton answers nothing but whether it lives.

    It is a second lock behind the folder of the socket: other users may read the arguments of a
    process, but another container on the same `/dev/shm`, with the same user id, may not.
    """

    name: str = field(default_factory=lambda: f"reelserve-{secrets.token_hex(4)}")
    value: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @property
    def argument(self) -> str:
        """Value of `--grpc-restricted-protocol`."""
        return f"{RESTRICTED}:{self.name}={self.value}"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers of every call."""
        return ((f"triton-grpc-protocol-{self.name}", self.value),)


class Upstream:
    """A Triton that may die and be started again.

    Deadlines and cancels of callers never reach it: a storm of them ends Triton 2.51 by SIGSEGV.

    Args:
        name: Name of the Triton, for logs and metrics.
        secret: Header that this start of Triton wants.
        metrics_socket: Where it shows its metrics.
        lost: Says why it cannot answer any more, or None; asked when a call has failed.
    """

    def __init__(
        self, name: str, secret: Secret, metrics_socket: Path, lost: Callable[[], str | None]
    ) -> None:
        self.load = TritonLoad(name)
        self.metrics_socket = metrics_socket
        self._secret, self._lost = secret, lost
        self._channel: grpc.aio.Channel | None = None

    def connect(self, channel: grpc.aio.Channel) -> None:
        """Takes calls from now on."""
        self._channel, self.load.ready = channel, True

    def disconnect(self) -> None:
        """Takes none any more; those that run fail when the channel is closed."""
        self.load.ready, self._channel = False, None

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
        if failure is None or await self._broke(channel, failure):
            raise unavailable("the part of the server that drew the clip has failed", RESTART_S)
        raise failure

    async def _broke(self, channel: grpc.aio.Channel, failure: CallError) -> bool:
        """Whether a call has failed because a process of Triton did."""
        if failure.code not in BROKEN:
            return False
        deadline = time.monotonic() + DEATH_SEEN_S
        while time.monotonic() < deadline:
            if channel is not self._channel or self._lost() is not None:
                # Nothing new until it has been started again.
                self.load.ready = False
                return True
            await asyncio.sleep(DEATH_SEEN_S / 10)
        # A stage that is stopped for a while; a connection that broke.
        return UNHEALTHY in failure.message or failure.code is not grpc.StatusCode.INTERNAL

    def starting(self) -> CallError:
        """Said while there is no Triton."""
        return unavailable("the server is starting", RESTART_S)
