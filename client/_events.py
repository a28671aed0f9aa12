"""What happens to a clip on its way."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from tritonclient.grpc import service_pb2

from reelserve.client._exceptions import InternalError, ReelserveError, described, error_from_text
from reelserve.client._messages import read_video, texts
from reelserve.client._video import Video
from reelserve.pipeline import contract

LAST_STAGE = contract.ENSEMBLE_STAGES[-1]

EventKind = Literal["stage", "step", "preview", "waiting", "restart", "clip"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a clip on its way.

    Args:
        kind: `stage`, that stage has ended; `step`, a denoising step has ended; `preview`, there
            is a first picture; `waiting`, nothing new; `restart`, the server was lost and another
            one draws the clip from its start; `clip`, the last one.
        stage: The stage that it is about, or the one that runs.
        seconds: Since the server accepted the request.
        remaining_s: The server's estimate of the seconds until the clip, if it has one.
        step: Denoising steps taken, in events of kind `step`.
        steps: Denoising steps that there will be.
        preview: A PNG file, in events of kind `preview`.
        video: The clip, in the event of kind `clip`.
    """

    kind: EventKind
    stage: str
    seconds: float
    remaining_s: float | None
    step: int | None
    steps: int | None
    preview: bytes | None = None
    video: Video | None = None


def read_event(response: service_pb2.ModelStreamInferResponse, url: str) -> Event | None:
    """The event in a response.

    Returns:
        None if it only ends the stream, or tells what only a newer client knows.

    Raises:
        ReelserveError: If it is an error, or cannot be read.
    """
    if response.error_message:
        raise error_from_text(response.error_message, url)
    try:
        outputs = texts(response.infer_response)
        if contract.EVENT.name in outputs:
            return _event(outputs)
        # The clip of a Triton without reelserve's front end.
        return _bare_clip(read_video(outputs)) if outputs else None
    except (ValueError, TypeError) as problem:
        error: ReelserveError = described(InternalError, f"an event: {problem}", url)
    raise error


def _bare_clip(video: Video) -> Event:
    seconds = video.info.seconds.get("total", 0.0)
    return Event("clip", LAST_STAGE, seconds, 0.0, None, None, None, video)


def _event(outputs: dict[str, bytes]) -> Event | None:
    raw: dict[str, Any] = json.loads(outputs[contract.EVENT.name])
    if not isinstance(raw, dict):
        raise ValueError("EVENT is not a JSON object")
    if raw.get("kind") not in get_args(EventKind):
        return None
    told = {field.name: raw[field.name] for field in fields(Event) if field.name in raw}
    video = read_video(outputs) if raw["kind"] == "clip" else None
    return Event(**{**told, "preview": outputs.get(contract.PREVIEW.name), "video": video})
