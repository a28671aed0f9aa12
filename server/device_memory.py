"""Names what goes wrong on a GPU; imports torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from reelserve.server.errors import OutOfDeviceMemoryError

GIB = 2**30


@contextlib.contextmanager
def out_of_memory_named(stage: str, device: torch.device) -> Iterator[None]:
    """Turns an exhausted GPU into an error that says what to do, and frees what torch holds back.

    Compiled code reports no more than that a call has failed, so torch's own count of refused
    allocations tells.

    Args:
        stage: Named in the error.
        device: On which the work inside runs.

    Raises:
        OutOfDeviceMemoryError: If the memory of the GPU did not suffice.
    """
    if device.type != "cuda":
        yield
        return
    refused = _refusals(device)
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _refusals(device) == refused:
            raise
        # Without the traceback, whose frames hold the tensors of the run.
        error.__traceback__ = None
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        raise OutOfDeviceMemoryError(
            f"{stage}: out of GPU memory ({(total - free) / GIB:.1f} of {total / GIB:.1f} GiB in "
            "use after the run was given up): ask for fewer frames or a smaller size, or send "
            "fewer requests at once"
        ) from None


def _refusals(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device).get("num_ooms", 0))
