"""Thin gRPC client of a reelserve server.

`Client("localhost:8001").generate("a red circle moves across").save("clip.mp4")`
"""

from reelserve.client._client import AsyncClient, Client
from reelserve.client._exceptions import (
    AccessDeniedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NoServerError,
    NotReadyError,
    ReelserveError,
    RequestCancelledError,
    UnavailableError,
)
from reelserve.client._request import GenerateOptions
from reelserve.client._statistics import StageStatistics
from reelserve.client._stream import AsyncStream, Event, Stream
from reelserve.client._video import Video, VideoInfo

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "DeadlineExceededError",
    "Event",
    "GenerateOptions",
    "InternalError",
    "InvalidArgumentError",
    "NoServerError",
    "NotReadyError",
    "ReelserveError",
    "RequestCancelledError",
    "StageStatistics",
    "Stream",
    "UnavailableError",
    "Video",
    "VideoInfo",
]
