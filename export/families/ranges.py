"""Sizes of a stage's free dimensions, from the limits of a request."""

from __future__ import annotations

from reelserve.export.stages import DimRange
from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange


def latent_ranges(spec: CheckpointSpec) -> dict[str, DimRange]:
    """Sizes of `frames`, `height` and `width` of the denoiser's and the decoder's latents.

    The denoiser sees windows, the decoder whole clips; the ranges are those of the clips.
    """
    limits, latents = spec.limits, spec.latents
    frames = limits.num_frames
    return {
        "frames": DimRange(*(latents.frames(n) for n in _sizes(frames))),
        "height": _divided(limits.height, latents.spatial_compression),
        "width": _divided(limits.width, latents.spatial_compression),
    }


def window_ranges(spec: CheckpointSpec) -> dict[str, DimRange]:
    """Sizes like `latent_ranges`, for the windows that the denoiser is asked for."""
    ranges = latent_ranges(spec)
    longest = spec.latents.window_frames
    frames = ranges["frames"]
    sizes = (min(n, longest) for n in (frames.low, frames.high, frames.usual))
    return {**ranges, "frames": DimRange(*sizes)}


def frame_ranges(spec: CheckpointSpec, scale: int = 1) -> dict[str, DimRange]:
    """Sizes of `frames`, `height` and `width` of decoded frames.

    Args:
        spec: Limits and latent shape of the checkpoint.
        scale: Factor by which the upsampler enlarges them to the size of the request.
    """
    limits = spec.limits
    return {
        "frames": DimRange(*_sizes(limits.num_frames)),
        "height": _divided(limits.height, scale),
        "width": _divided(limits.width, scale),
    }


def check_limits(spec: CheckpointSpec) -> None:
    """Refuses limits of a request that the stages cannot keep.

    Args:
        spec: Limits of the checkpoint, with what the command line has changed.

    Raises:
        ValueError: If a size is not positive, or is not a multiple of the latents' compression, or
            the scheduler cannot take the most steps.
    """
    spec.scheduler.schedule(spec.limits.num_inference_steps.high, tokens=1)
    latents = spec.latents
    compression = {
        "num_frames": (latents.temporal_compression, int(latents.causal)),
        "height": (latents.spatial_compression, 0),
        "width": (latents.spatial_compression, 0),
    }
    for name, (multiple, offset) in compression.items():
        range_: IntRange = getattr(spec.limits, name)
        plus = f" plus {offset}" if offset else ""
        for value in (range_.low, range_.high, range_.default):
            if value < 1 or (value - offset) % multiple:
                raise ValueError(
                    f"{name} is {value}; this checkpoint takes positive multiples of "
                    f"{multiple}{plus}"
                )
        if range_.low < range_.high and range_.multiple_of % multiple:
            raise ValueError(
                f"{name} has multiple_of {range_.multiple_of}; it must be a multiple of {multiple}"
            )


def _sizes(range_: IntRange) -> tuple[int, int, int]:
    """Low, high, usual: the arguments of `DimRange`."""
    return range_.low, range_.high, range_.default


def _divided(range_: IntRange, by: int) -> DimRange:
    return DimRange(*(n // by for n in _sizes(range_)))
