"""What a call may end with, besides its answer."""

from __future__ import annotations

import re

import grpc

from reelserve.server.errors import public_message, without_source

SHORT_OF_SHARED_MEMORY = "shared memory pool"
"""Triton's words where `/dev/shm` has no room for the tensors of a request."""
SHORT_RETRY_S = 10
"""Retry hint then: another program may have given some back."""
IN_ENSEMBLE = re.compile(r"in ensemble '[^']*', ")


class CallError(Exception):
    """A call's gRPC status and message.

    Args:
        code: Status.
        message: For the caller: names field, value and limit, or what to do.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message

    @classmethod
    def internal(cls, error: Exception) -> CallError:
        """A mistake of ours; what is said of it shows no path and no source."""
        return cls(grpc.StatusCode.INTERNAL, public_message(error))


def invalid(message: str) -> CallError:
    """The caller's mistake."""
    return CallError(grpc.StatusCode.INVALID_ARGUMENT, message)


def unavailable(message: str, retry_after_s: float) -> CallError:
    """A request that was not accepted, or was lost, and may be sent again."""
    words = f"{message}; retry after {retry_after_s:.0f} s"
    return CallError(grpc.StatusCode.UNAVAILABLE, words)


def cancelled() -> CallError:
    """Nobody waits any more."""
    return CallError(grpc.StatusCode.CANCELLED, "the request was cancelled")


def deadline_passed() -> CallError:
    """The caller's time is up."""
    words = "the deadline of the request has passed"
    return CallError(grpc.StatusCode.DEADLINE_EXCEEDED, words)


def from_triton(error: grpc.aio.AioRpcError) -> CallError:
    """What Triton has answered, without its own words for the ensemble and without sources."""
    words = IN_ENSEMBLE.sub("", error.details() or "no message")
    if SHORT_OF_SHARED_MEMORY in words:
        return CallError(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "the server has not enough shared memory for this clip; ask for fewer frames or a "
            f"smaller picture, or retry after {SHORT_RETRY_S} s",
        )
    return CallError(error.code(), without_source(words) or "no message")
