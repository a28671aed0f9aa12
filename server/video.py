"""Encodes frames as an MP4 file."""

from __future__ import annotations

import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

CODEC = "libx264"
ENCODER_OPTIONS = {
    # 40 dB on flat pictures, where the halved colour planes are the limit.
    "crf": "18",
    # Files as small as with the default on flat pictures, in half the time.
    "preset": "veryfast",
    # Bytes depend on the number of threads: one, so that they are the same on every machine.
    "threads": "1",
}
CONTAINER_OPTIONS = {
    # The index first, so that a browser plays before it has the whole file.
    "movflags": "+faststart",
    # No library version and no date in the file.
    "fflags": "+bitexact",
}
BT709 = 1
"""Code of these primaries, transfer and matrix in ISO/IEC 23091-2."""
CHROMA_SUBSAMPLING = 2
"""yuv420p halves rows and columns of the colour planes."""


def encode_mp4(frames: NDArray[np.uint8], fps: int) -> bytes:
    """Encodes a clip as H.264 in MP4; the same frames give the same bytes.

    Args:
        frames: `[F, H, W, 3]`, RGB, F ≥ 1, H and W even.
        fps: Frames per second.

    Raises:
        ValueError: If `frames` has another shape.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise ValueError(f"FRAMES has shape {list(frames.shape)}; it must be [F, H, W, 3], F ≥ 1")
    _, height, width, _ = frames.shape
    if height % CHROMA_SUBSAMPLING or width % CHROMA_SUBSAMPLING:
        raise ValueError(f"FRAMES has {height} rows and {width} columns; both must be even")
    # The index is moved to the front by reading the finished file again, which needs a file.
    with tempfile.TemporaryDirectory(prefix="reelserve-") as folder:
        file = Path(folder) / "clip.mp4"
        with av.open(str(file), "w", format="mp4", options=CONTAINER_OPTIONS) as container:
            stream = _add_stream(container, width, height, fps)
            reformatter = VideoReformatter()
            for frame in frames:
                container.mux(stream.encode(_yuv_frame(frame, reformatter)))
            container.mux(stream.encode())
        return file.read_bytes()


def _add_stream(container: Any, width: int, height: int, fps: int) -> Any:
    stream = container.add_stream(CODEC, rate=Fraction(fps), options=ENCODER_OPTIONS)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    # Players guess the colours of an untagged file from its size, each in its own way.
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = int(ColorRange.MPEG)
    return stream


def _yuv_frame(frame: NDArray[np.uint8], reformatter: VideoReformatter) -> av.VideoFrame:
    return reformatter.reformat(
        av.VideoFrame.from_ndarray(frame, format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )
