"""Turns failures on a GPU into errors that name their cause; imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from reelserve.server.errors import OutOfDeviceMemoryError, StageError

GIB = 2**30


@contextlib.contextmanager
def device_errors_named(device: torch.device) -> Iterator[None]:
    """Says of a failed run whether the GPU's memory was exhausted, or the GPU is lost.

    Compiled code reports no more than that a call has failed. Torch's own count of refused
    allocations tells the first, and whether the GPU still answers the second.

    Args:
        device: On which the work inside runs.

    Raises:
        OutOfDeviceMemoryError: If the memory of the GPU did not suffice. What torch holds back is
            given back.
        StageError: If CUDA has failed for good: the process cannot use its GPU any more.
    """
    if device.type != "cuda":
        yield
        return
    refused = _refusals(device)
    try:
        yield
    except RuntimeError as error:
        # Without the traceback, whose frames hold the tensors of the run.
        error.__traceback__ = None
        failure = _failure(device)
        if failure:
            raise StageError(
                f"{failure}: the process of this stage cannot use the GPU any more; start the "
                "server again"
            ) from error
        if not isinstance(error, torch.OutOfMemoryError) and _refusals(device) == refused:
            raise
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        raise OutOfDeviceMemoryError(
            f"out of GPU memory ({(total - free) / GIB:.1f} of {total / GIB:.1f} GiB in "
            "use after the run was given up): ask for fewer frames or a smaller size, or send "
            "fewer requests at once"
        ) from None


def _refusals(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0))


def _failure(device: torch.device) -> str:
    """What CUDA says when it is asked to finish its work; empty where all is well."""
    try:
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""
