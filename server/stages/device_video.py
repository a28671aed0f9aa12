"""Encodes frames that lie on a GPU; imports torch, so only who is handed such frames imports it."""

from __future__ import annotations

from collections.abc import Iterator

import av
import torch
from av.video.reformatter import ColorRange, Colorspace
from torch import Tensor

from reelserve.server.device_tensor import DeviceTensor
from reelserve.server.stages.video import EncoderSettings, check_frames, encode_yuv

FRAMES_AT_ONCE = 8
"""Converted together: at 1024×1536 pixels they take some 170 MB of the GPU meanwhile."""
WARM_UP_FPS = 8
WARM_UP_SHAPE = (FRAMES_AT_ONCE, 64, 64, 3)
RED, BLUE = 0.2126, 0.0722
"""Weights of the brightness in BT.709."""
LUMA_RANGE, CHROMA_RANGE, WHITE = 219.0, 224.0, 255.0
"""Levels between black and white, between the ends of a colour difference, and of RGB."""
BLACK, NEUTRAL = 16.0, 128.0
ROWS = (1 / 8, 3 / 8, 3 / 8, 1 / 8)
"""Weights of four rows of a colour difference in one row of half as many, as in swscale."""


def frames_of(tensor: DeviceTensor) -> Tensor:
    """The clip in a batch of one, `[F, H, W, 3]`, without a copy."""
    capsule = tensor.to_dlpack() if hasattr(tensor, "to_dlpack") else tensor
    frames: Tensor = torch.utils.dlpack.from_dlpack(capsule)[0]
    return frames


def encode_device_mp4(frames: Tensor, fps: int, settings: EncoderSettings) -> bytes:
    """As `video.encode_mp4`, for a tensor `[F, H, W, 3]`, uint8."""
    check_frames(tuple(frames.shape))
    return encode_yuv(_yuv_frames(frames), frames.shape[1], frames.shape[2], fps, settings)


def warm_up(settings: EncoderSettings) -> None:
    """Encodes a small clip from a GPU, whose first use takes seconds in each process.

    Does nothing where PyTorch finds none: it may be a build for CPUs, or the GPU hidden from it.

    Args:
        settings: Threads and quality.
    """
    if torch.cuda.is_available():
        frames = torch.zeros(WARM_UP_SHAPE, dtype=torch.uint8, device="cuda")
        encode_device_mp4(frames, WARM_UP_FPS, settings)


def _yuv_frames(frames: Tensor) -> Iterator[av.VideoFrame]:
    """Frames in the host's memory, a bounded number of them at a time."""
    with torch.inference_mode():
        for some in torch.split(frames, FRAMES_AT_ONCE):
            planes = yuv420(some)
            pinned = torch.empty(planes.shape, dtype=torch.uint8, pin_memory=planes.is_cuda)
            # Not asynchronous: the encoder reads it next.
            pinned.copy_(planes)
            for array in pinned.numpy():
                frame = av.VideoFrame.from_ndarray(array, format="yuv420p")
                frame.colorspace, frame.color_range = Colorspace.ITU709, ColorRange.MPEG
                yield frame


def yuv420(frames: Tensor) -> Tensor:
    """RGB to YUV with halved colour planes, BT.709 in the limited range.

    The same filters as swscale's, which converts frames in the host's memory: the mean of two
    neighbours in a row, then `ROWS`. Colour by colour, since a GPU is slow at products of three
    columns, in time and in memory.

    Args:
        frames: `[F, H, W, 3]`, uint8, H and W even.

    Returns:
        `[F, 3H/2, W]`, uint8: a Y plane `[H, W]`, then U and V, each `[H/2, W/2]`.
    """
    count, height, width, _ = frames.shape
    red, green, blue = frames.unbind(-1)
    luma = (red * RED).add_(green, alpha=1 - RED - BLUE).add_(blue, alpha=BLUE)
    # In levels, below and above the neutral one.
    chroma = [
        _halved(torch.sub(colour, luma)).mul_(CHROMA_RANGE / WHITE * 0.5 / (1 - weight))
        for colour, weight in ((blue, BLUE), (red, RED))
    ]
    planes = [luma.mul_(LUMA_RANGE / WHITE).add_(BLACK), *(plane.add_(NEUTRAL) for plane in chroma)]
    levels = torch.cat([plane.flatten(1) for plane in planes], dim=1).round_().to(torch.uint8)
    return levels.reshape(count, height * 3 // 2, width)


def _halved(plane: Tensor) -> Tensor:
    """Half the rows and columns of `[F, H, W]`."""
    pairs = (plane[..., ::2] + plane[..., 1::2]).mul_(1 / 2)
    padded = torch.cat([pairs[:, :1], pairs, pairs[:, -1:]], dim=1)
    height = pairs.shape[1]
    rows = [padded[:, start : start + height : 2] for start in range(len(ROWS))]
    halved = rows[0] * ROWS[0]
    for weight, row in zip(ROWS[1:], rows[1:], strict=True):
        halved.add_(row, alpha=weight)
    return halved
