"""Thin gRPC client of a reelserve server.

`Client("localhost:8001").generate("a red circle moves across").save("clip.mp4")`
"""

from reelserve.client._async_client import AsyncClient
from reelserve.client._capabilities import Capabilities
from reelserve.client._channel import TlsOptions
from reelserve.client._client import Client
from reelserve.client._events import Event
from reelserve.client._exceptions import (
    AccessDeniedError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    MissingExtraError,
    NoServerError,
    NotReadyError,
    ReelserveError,
    RequestCancelledError,
    UnavailableError,
)
from reelserve.client._options import GenerateOptions
from reelserve.client._statistics import StageStatistics
from reelserve.client._stream import AsyncStream, Stream
from reelserve.client._video import Video, VideoInfo
from reelserve.client.progress import follow, follow_async

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "AsyncStream",
    "Capabilities",
    "Client",
    "DeadlineExceededError",
    "Event",
    "GenerateOptions",
    "InternalError",
    "InvalidArgumentError",
    "MissingExtraError",
    "NoServerError",
    "NotReadyError",
    "ReelserveError",
    "RequestCancelledError",
    "StageStatistics",
    "Stream",
    "TlsOptions",
    "UnavailableError",
    "Video",
    "VideoInfo",
    "follow",
    "follow_async",
]
