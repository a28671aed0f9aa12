"""The processes of a data-parallel run, one for each GPU, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Args:
        rank: Number of this process, from 0.
        count: Processes; alone, nothing here communicates.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def join(cls, device: str) -> Ranks:
        """Joins the other processes that `torchrun` started, if there are any.

        Args:
            device: `"cuda"` gives each process the GPU of its local rank.
        """
        if "LOCAL_RANK" not in os.environ:
            return cls()
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites the tensors with those of the first rank."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor.detach(), src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replaces the tensors by their mean over the ranks."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.count
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(
            list(tensors), [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]
        )

    def agree(self, value: float) -> float:
        """The first rank's value, so that all ranks take the same decision by it."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def leave(self) -> None:
        """Waits for the other processes, then closes the group."""
        if self.count > 1:
            dist.barrier()
            dist.destroy_process_group()
