"""Frames of an MP4."""

from __future__ import annotations

import io

import av
import numpy as np


def decoded(mp4: bytes) -> np.ndarray:
    """Frames `[F, H, W, 3]`, RGB."""
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
