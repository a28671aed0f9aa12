"""Measures of how close a clip is to another one. NumPy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PEAK = 255.0


def psnr(clip: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio over a whole clip.

    Args:
        clip: `[..., H, W, 3]`, uint8.
        reference: Same shape.

    Returns:
        Decibels; infinite for equal clips.

    Raises:
        ValueError: If the shapes differ.
    """
    error = float(np.mean(np.square(_difference(clip, reference))))
    return float("inf") if error == 0 else float(10 * np.log10(_PEAK**2 / error))


def flicker_energy(clip: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean squared change, from frame to frame, of the error against a reference.

    Args:
        clip: `[F, H, W, 3]`, uint8.
        reference: Same shape; its own motion does not count.

    Returns:
        Energy on the [0, 1] brightness scale; 0 for a single frame.

    Raises:
        ValueError: If the shapes differ.
    """
    error = _difference(clip, reference) / _PEAK
    if len(error) < 2:
        return 0.0
    return float(np.mean(np.square(np.diff(error, axis=0))))


def _difference(clip: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.float32]:
    if clip.shape != reference.shape:
        raise ValueError(f"clip is {list(clip.shape)}, reference {list(reference.shape)}")
    return clip.astype(np.float32) - reference.astype(np.float32)
