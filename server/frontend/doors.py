"""Who may call the public gRPC port, and from where."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from reelserve.server.frontend.api_keys import ApiKeys, KeyHolder
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.frontend.reloaded import DoorError
from reelserve.server.frontend.tls import ServerTls
from reelserve.server.frontend.upstream import SERVICE

LOOK_S = 1.0
"""Time between looks at the files of keys and certificates."""
AUTHORIZATION, BEARER = "authorization", "bearer"
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OPEN = (f"/{SERVICE}/ServerLive", f"/{SERVICE}/ServerReady")
"""Methods that need no key, besides those of `HEALTH`: probes and balancers have none."""

_log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, str | bytes]] | None


@dataclass(frozen=True)
class Doors:
    """How the port is closed; by default it is open within this machine.

    Args:
        tls: Certificates; None is plain text.
        keys: API keys; None asks for none.
        allow_anonymous: Whether whoever reaches the port may call, from other machines too.
    """

    tls: ServerTls | None = None
    keys: ApiKeys | None = None
    allow_anonymous: bool = False

    def check_address(self, host: str) -> None:
        """Refuses to be open to other machines unless that is wanted.

        Args:
            host: Numeric address to listen on.

        Raises:
            DoorError: If strangers could call.
        """
        if ipaddress.ip_address(host).is_loopback:
            return
        asks = self.keys is not None or (self.tls is not None and self.tls.asks_callers)
        if not asks and not self.allow_anonymous:
            raise DoorError(
                f"--host is {host}, where whoever reaches the port could draw clips: --api-keys "
                "FILE or --tls-client-ca FILE says who may, --allow-anonymous lets everybody"
            )
        if self.keys is not None and self.tls is None:
            _log.warning(
                "API keys come to %s in plain text: use --tls-cert and --tls-key, or a proxy that "
                "ends TLS on a private network",
                host,
            )

    def check(self, metadata: Headers) -> KeyHolder | None:
        """Who calls; None where no keys are asked for.

        Args:
            metadata: Headers of the call.

        Raises:
            CallError: If the key is missing or unknown, in the same words.
        """
        if self.keys is None:
            return None
        caller = self.keys.caller(_key(metadata))
        if caller is None:
            raise CallError(
                grpc.StatusCode.UNAUTHENTICATED,
                "the API key is missing or not known; send one as `authorization: Bearer KEY`",
            )
        return caller

    async def keep_looking(self) -> None:
        """Sees that files have changed, until it is cancelled."""
        looks = [part.look for part in (self.tls, self.keys) if part is not None]
        while looks:
            await asyncio.sleep(LOOK_S)
            for look in looks:
                # In a thread: a file on a network may keep its reader waiting.
                await asyncio.to_thread(look)


class Doorkeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets no call in without a key, whatever its service and method, and reads no message of it.

    Args:
        doors: How the port is closed.
        refused: Told of every call that is not let in.
    """

    def __init__(self, doors: Doors, refused: Callable[[], None]) -> None:
        self._doors, self._refused = doors, refused

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The handler of a call, or one that refuses it."""
        method = handler_call_details.method
        if method not in OPEN and not method.startswith(f"/{HEALTH}/"):
            try:
                self._doors.check(handler_call_details.invocation_metadata)
            except CallError as error:
                self._refused()
                return _refusal(error)
        return await continuation(handler_call_details)


def _refusal(error: CallError) -> Any:
    async def refuse(requests: Any, context: Any) -> None:
        await context.abort(error.code, error.message)

    # As a stream whatever the method is: the handler of a unary call is given its message.
    return grpc.stream_stream_rpc_method_handler(refuse)


def _key(metadata: Headers) -> str:
    """The key of a call; empty if there is none, or more than one header."""
    values = [value for name, value in metadata or () if name == AUTHORIZATION]
    if len(values) != 1 or not isinstance(values[0], str):
        return ""
    scheme, _, key = values[0].partition(" ")
    return key.strip() if scheme.lower() == BEARER else ""
