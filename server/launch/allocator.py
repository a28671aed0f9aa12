"""How glibc's allocator keeps freed buffers in Triton and its stages."""

from __future__ import annotations

GIVE_BACK = {
    "MALLOC_ARENA_MAX": "4",
    "MALLOC_MMAP_THRESHOLD_": str(256 * 2**10),
    "MALLOC_TRIM_THRESHOLD_": str(2**20),
}
"""Large buffers go back to the system when they are freed. By glibc's defaults the threshold grows
with the largest buffer seen, and tens of megabytes stay in the pools of every thread."""
KEEP = {
    "MALLOC_ARENA_MAX": "4",
    # The largest that glibc takes.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}
"""Buffers of latents stay. The system clears each new page, and while it does so for the latents of
a denoising step, a GPU waits: a first look, of which no results file was kept, found milliseconds a
step for 241 frames of 512×768."""


def allocator_environment(*, beside_gpu: bool) -> dict[str, str]:
    """Environment variables that set glibc's allocator.

    Args:
        beside_gpu: Whether the stages compute on a GPU, which must not wait; else memory is what
            is short.
    """
    return KEEP if beside_gpu else GIVE_BACK
