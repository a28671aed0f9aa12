"""Decodes clips and encodes frames, by PyAV: `pip install 'reelserve[video]'`."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.client._exceptions import ADVICE, InternalError, MissingExtraError

COLUMNS, ROWS = 4, 3
GAP_PX = 4
WHITE = 255

Frames = NDArray[np.uint8]
"""`[F, H, W, 3]`, RGB."""


def decoded(mp4: bytes) -> Frames:
    """Frames of a clip.

    Raises:
        InternalError: If it holds none, or is damaged.
        MissingExtraError: If PyAV is not installed.
    """
    av = pyav()
    try:
        with av.open(io.BytesIO(mp4), "r") as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        problem: object = error
    else:
        if frames:
            return np.stack(frames)
        problem = "it holds no frame"
    raise InternalError(f"the {len(mp4)} bytes of the MP4 cannot be decoded: {problem}")


def png(picture: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file.

    Args:
        picture: `[H, W, 3]`, RGB.

    Raises:
        MissingExtraError: If PyAV is not installed.
    """
    av = pyav()
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = picture.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", Fraction(1, 1)
    packets = [*codec.encode(_frame(picture, 0)), *codec.encode(None)]
    return b"".join(bytes(packet) for packet in packets)


def webm(frames: Frames, fps: int) -> bytes:
    """A clip as a WebM file, VP9 at a quality that is hard to tell from the source.

    Raises:
        MissingExtraError: If PyAV is not installed.
    """
    av, file = pyav(), io.BytesIO()
    options = {"crf": "24", "b": "0", "row-mt": "1", "cpu-used": "4"}
    with av.open(file, "w", format="webm") as container:
        stream = _video_stream(container, "libvpx-vp9", frames, fps, "yuv420p")
        stream.options = options
        for number, picture in enumerate(frames):
            container.mux(stream.encode(_frame(picture, number)))
        container.mux(stream.encode())
    return file.getvalue()


def gif(frames: Frames, fps: int) -> bytes:
    """A clip as a GIF file that repeats for ever, with the 256 colours that fit it best.

    Raises:
        MissingExtraError: If PyAV is not installed.
    """
    av, file = pyav(), io.BytesIO()
    graph = _palette_graph(av, frames, fps)
    for number, picture in enumerate(frames):
        graph.push(_frame(picture, number))
    graph.push(None)
    with av.open(file, "w", format="gif", options={"loop": "0"}) as container:
        stream = _video_stream(container, "gif", frames, fps, "pal8")
        for number in range(len(frames)):
            frame = graph.pull()
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def contact_sheet(frames: Frames) -> NDArray[np.uint8]:
    """Twelve frames from first to last side by side, `[H, W, 3]`; a short clip repeats some."""
    chosen = np.linspace(0, len(frames) - 1, COLUMNS * ROWS).round().astype(int)
    height, width = frames.shape[1] + GAP_PX, frames.shape[2] + GAP_PX
    sheet = np.full((ROWS * height + GAP_PX, COLUMNS * width + GAP_PX, 3), WHITE, np.uint8)
    for index, number in enumerate(chosen):
        row, column = divmod(index, COLUMNS)
        top, left = GAP_PX + row * height, GAP_PX + column * width
        sheet[top : top + frames.shape[1], left : left + frames.shape[2]] = frames[number]
    return sheet


def pyav() -> Any:
    """The package.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import av
        import av.filter
    except ImportError as error:
        raise MissingExtraError(
            f"frames and files other than MP4 need PyAV, which is not installed ({error}); "
            f"{ADVICE[MissingExtraError]}"
        ) from None
    return av


def _frame(picture: NDArray[np.uint8], number: int) -> Any:
    frame = pyav().VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts = number
    return frame


def _video_stream(container: Any, codec: str, frames: Frames, fps: int, pix_fmt: str) -> Any:
    stream = container.add_stream(codec, rate=fps)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.time_base = pix_fmt, Fraction(1, fps)
    return stream


def _palette_graph(av: Any, frames: Frames, fps: int) -> Any:
    """Frames in, the same frames in one palette made for all of them out."""
    graph = av.filter.Graph()
    height, width = frames.shape[1:3]
    source = graph.add_buffer(
        width=width, height=height, format="rgb24", time_base=Fraction(1, fps)
    )
    split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=full")
    use, sink = graph.add("paletteuse", "dither=sierra2_4a"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(use, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
