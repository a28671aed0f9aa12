"""Encodes frames as an MP4 file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

CODEC = "libx264"
CRF, LOSSLESS_CRF, MAX_CRF = 18, 0, 51
"""40 dB on flat pictures, where the halved colour planes are the limit; the best and the worst."""
# Files as small as with the default on flat pictures, in half the time.
PRESET = "veryfast"
WITHOUT_AVX512 = {"x264-params": "asm=AVX2"}
"""The same frames gave other bytes one time in five where x264 used AVX-512 for what it knows of
later frames (`mbtree`), and never with AVX2."""
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


@dataclass(frozen=True)
class EncoderSettings:
    """How clips are encoded.

    Args:
        threads: Threads of the encoder, 1 or more. The bytes depend on their number.
        crf: Constant rate factor of H.264, 0 (lossless, large) to 51; 6 more halve a file.

    Raises:
        ValueError: If one is out of range.
    """

    threads: int = 1
    crf: int = CRF

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"encoder_threads is {self.threads}; it must be 1 or more")
        if not LOSSLESS_CRF <= self.crf <= MAX_CRF:
            raise ValueError(f"encoder_crf is {self.crf}; it must be 0 to {MAX_CRF}")


DEFAULT = EncoderSettings()


def encode_mp4(frames: NDArray[np.uint8], fps: int, settings: EncoderSettings = DEFAULT) -> bytes:
    """Encodes a clip as H.264 in MP4; the same frames and settings give the same bytes.

    Args:
        frames: `[F, H, W, 3]`, RGB, F ≥ 1, H and W even.
        fps: Frames per second.
        settings: Threads and quality.

    Raises:
        ValueError: If `frames` has another shape.
    """
    check_frames(frames.shape)
    reformatter = VideoReformatter()
    converted = (_yuv_frame(frame, reformatter) for frame in frames)
    return encode_yuv(converted, frames.shape[1], frames.shape[2], fps, settings)


def check_frames(shape: tuple[int, ...]) -> None:
    """Raises `ValueError` unless frames of a shape can be encoded."""
    if len(shape) != 4 or shape[-1] != 3 or not shape[0]:
        raise ValueError(f"FRAMES has shape {list(shape)}; it must be [F, H, W, 3], F ≥ 1")
    _, height, width, _ = shape
    if height % CHROMA_SUBSAMPLING or width % CHROMA_SUBSAMPLING:
        raise ValueError(f"FRAMES has {height} rows and {width} columns; both must be even")


def encode_yuv(
    frames: Iterable[av.VideoFrame], height: int, width: int, fps: int, settings: EncoderSettings
) -> bytes:
    """Encodes frames that are yuv420p, BT.709, limited range already."""
    # The index is moved to the front by reading the finished file again, which needs a file.
    with tempfile.TemporaryDirectory(prefix="reelserve-") as folder:
        file = Path(folder) / "clip.mp4"
        with av.open(str(file), "w", format="mp4", options=CONTAINER_OPTIONS) as container:
            stream = _add_stream(container, width, height, fps, settings)
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return file.read_bytes()


def _add_stream(
    container: Any, width: int, height: int, fps: int, settings: EncoderSettings
) -> Any:
    options = {
        "crf": str(settings.crf),
        "preset": PRESET,
        "threads": str(settings.threads),
        **_assembly(),
    }
    stream = container.add_stream(CODEC, rate=Fraction(fps), options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    # Players guess the colours of an untagged file from its size, each in its own way.
    context = stream.codec_context
    context.color_primaries = context.color_trc = context.colorspace = BT709
    context.color_range = int(ColorRange.MPEG)
    return stream


@lru_cache
def _assembly() -> dict[str, str]:
    """What x264 is told of this processor; it finds out the rest."""
    try:
        described = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    return WITHOUT_AVX512 if "avx512" in described else {}


def _yuv_frame(frame: NDArray[np.uint8], reformatter: VideoReformatter) -> av.VideoFrame:
    return reformatter.reformat(
        av.VideoFrame.from_ndarray(frame, format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )
