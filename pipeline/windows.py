"""Overlapping windows for clips longer than the denoiser was trained on.

At every step each window is denoised by itself and the velocities are blended where windows
overlap, so that the latents stay one clip and no seam has time to grow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def window_starts(num_frames: int, window_frames: int, window_overlap: int) -> tuple[int, ...]:
    """First frame of each window: the fewest windows, spread evenly.

    Args:
        num_frames: Latent frames of the clip, ≥ 1.
        window_frames: Latent frames of a window, ≥ 1.
        window_overlap: Latent frames that neighbours share at least, below `window_frames`.

    Returns:
        Strictly increasing; `(0,)` for a clip that fits one window.

    Raises:
        ValueError: If `window_overlap` is not in [0, window_frames).
    """
    if not 0 <= window_overlap < window_frames:
        raise ValueError(
            f"window_overlap is {window_overlap}; the limits are 0 to {window_frames - 1}"
        )
    if num_frames <= window_frames:
        return (0,)
    last = num_frames - window_frames
    count = 1 + -(-last // (window_frames - window_overlap))
    return tuple(round(last * index / (count - 1)) for index in range(count))


def window_weights(
    num_frames: int, starts: tuple[int, ...], window_frames: int, window_overlap: int
) -> NDArray[np.float32]:
    """Weight of every window at each of its frames; for every frame they sum to 1.

    A window fades in and out over `window_overlap` frames with a raised cosine, except at the
    ends of the clip.

    Returns:
        `[len(starts), min(window_frames, num_frames)]`, in (0, 1].
    """
    length = min(window_frames, num_frames)
    position = np.arange(length)
    # Half a frame inside, so that no weight is 0.
    phase = np.clip((position + 0.5) / max(window_overlap, 0.5), 0.0, 1.0)
    fade_in = np.sin(0.5 * np.pi * phase) ** 2
    weights = np.ones((len(starts), length))
    weights[1:] *= fade_in
    weights[:-1] *= fade_in[::-1]
    total = np.zeros(num_frames)
    for start, row in zip(starts, weights, strict=True):
        total[start : start + length] += row
    for start, row in zip(starts, weights, strict=True):
        row /= total[start : start + length]
    return weights.astype(np.float32)


def split_windows(
    latents: NDArray[np.float32], starts: tuple[int, ...], window_frames: int
) -> NDArray[np.float32]:
    """Cuts `[C, F, H, W]` into `[len(starts), C, min(window_frames, F), H, W]`."""
    return np.stack([latents[:, start : start + window_frames] for start in starts])


def blend_windows(
    windows: NDArray[np.float32],
    starts: tuple[int, ...],
    weights: NDArray[np.float32],
    num_frames: int,
) -> NDArray[np.float32]:
    """Joins windows into one clip by their weights.

    Args:
        windows: `[n, C, f, H, W]`.
        starts: First frame of each window.
        weights: `[n, f]`, from `window_weights`.
        num_frames: `F`.

    Returns:
        `[C, F, H, W]`.
    """
    _, channels, length, height, width = windows.shape
    clip = np.zeros((channels, num_frames, height, width), np.float32)
    for start, window, weight in zip(starts, windows, weights, strict=True):
        clip[:, start : start + length] += weight[None, :, None, None] * window
    return clip
