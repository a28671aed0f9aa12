"""A finished clip."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.client import _media
from reelserve.client._exceptions import InvalidArgumentError
from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.output_place import is_special, own_descriptor


@dataclass(frozen=True)
class VideoInfo:
    """What the server says about a clip.

    Args:
        seed: Seed of the noise; asking again with it gives the same clip.
        num_inference_steps: Denoising steps.
        guidance_scale: 1 means no guidance.
        num_frames: Frames of the clip.
        fps: Frames per second.
        height: Pixels.
        width: Pixels.
        checkpoint: Name of the served checkpoint.
        engine: Engine of the exported stages.
        versions: Package to version on the server.
        seconds: Stage to seconds, and `total`.
    """

    seed: int
    num_inference_steps: int
    guidance_scale: float
    num_frames: int
    fps: int
    height: int
    width: int
    checkpoint: str
    engine: str
    versions: dict[str, str]
    seconds: dict[str, float]

    @property
    def duration_s(self) -> float:
        """Seconds that the clip plays."""
        return self.num_frames / self.fps

    @classmethod
    def from_json(cls, text: str | bytes) -> VideoInfo:
        """Reads INFO; members that a newer server adds are ignored.

        Raises:
            ValueError: If it is not JSON, or lacks a member.
        """
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ValueError(f"INFO is not JSON: {error}") from None
        if not isinstance(raw, dict):
            raise ValueError("INFO is not a JSON object")
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in raw]
        if missing:
            raise ValueError(f"INFO lacks {', '.join(missing)}")
        return cls(**{name: raw[name] for name in names})


@dataclass(frozen=True)
class Video:
    """A finished clip.

    Args:
        mp4: The bytes of an MP4 file.
        info: What the server says about it.
    """

    mp4: bytes
    info: VideoInfo

    def __repr__(self) -> str:
        return f"Video(mp4=<{len(self.mp4)} bytes>, info={self.info!r})"

    def frames(self) -> NDArray[np.uint8]:
        """Frames of the clip, `[F, H, W, 3]`, RGB; needs `reelserve[video]`.

        Raises:
            ReelserveError: If the clip cannot be decoded, or the extra is not installed.
        """
        return _media.decoded(self.mp4)

    def thumbnail(self) -> bytes:
        """The frame half-way as a PNG file; needs `reelserve[video]`.

        Raises:
            ReelserveError: If the clip cannot be decoded, or the extra is not installed.
        """
        frames = self.frames()
        return _media.png(frames[len(frames) // 2])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the clip in the format that the path ends with; its folder is created.

        `.mp4` holds the server's own bytes, `.webm` and `.gif` are encoded anew, `.png` is a
        contact sheet of twelve frames; these three need `reelserve[video]`. A file appears whole
        or not at all, and one that is replaced keeps its mode; pipes and devices are written to.

        Returns:
            The path.

        Raises:
            InvalidArgumentError: If the path ends with something else.
            ReelserveError: If the clip cannot be decoded, or the extra is not installed.
            OSError: If the file cannot be written.
        """
        target = Path(path)
        write_file(target, ENCODERS[output_suffix(target)](self))
        return target

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """What a notebook shows: a player."""
        encoded = base64.b64encode(self.mp4).decode()
        player = (
            f'<video controls loop width="{self.info.width}" height="{self.info.height}" '
            f'src="data:video/mp4;base64,{encoded}"></video>'
        )
        return {"text/html": player, "text/plain": repr(self)}


ENCODERS: dict[str, Callable[[Video], bytes]] = {
    ".mp4": lambda video: video.mp4,
    ".webm": lambda video: _media.webm(video.frames(), video.info.fps),
    ".gif": lambda video: _media.gif(video.frames(), video.info.fps),
    ".png": lambda video: _media.png(_media.contact_sheet(video.frames())),
}


def check_format(path: Path) -> None:
    """Looks whether a clip can be written in the format that a path ends with.

    Raises:
        InvalidArgumentError: If nothing writes it.
        MissingExtraError: If what writes it is not installed.
    """
    if output_suffix(path) != ".mp4":
        _media.pyav()


def output_suffix(path: Path) -> str:
    """The suffix of a path, which names a format; `.mp4` for a pipe or a device without one.

    Raises:
        InvalidArgumentError: If it is another one.
    """
    suffix = path.suffix.lower()
    if suffix in ENCODERS:
        return suffix
    if own_descriptor(path) is not None or is_special(path):
        return ".mp4"
    raise InvalidArgumentError(f"path is {str(path)!r}; it must end with {', '.join(ENCODERS)}")
