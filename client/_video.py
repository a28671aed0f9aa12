"""A finished clip."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class VideoInfo:
    """What the server says about a clip.

    Args:
        seed: Of the noise; asking again with it gives the same clip.
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

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the MP4; its folder is created where missing.

        The file appears whole or not at all.

        Returns:
            The path.

        Raises:
            OSError: If it cannot be written.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the last step is a rename.
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
        try:
            partial.write_bytes(self.mp4)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target
