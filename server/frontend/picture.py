"""Encodes one frame as a PNG file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def encode_png(frame: NDArray[np.uint8]) -> bytes:
    """Encodes a frame.

    Args:
        frame: `[H, W, 3]`, RGB.
    """
    # A tenth of the imports of a start, for a caller who asks for previews.
    import av

    height, width, _ = frame.shape
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "rgb24"
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode()])
