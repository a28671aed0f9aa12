"""Labels of a batch of captions: what each names, as indices into the vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.training.scene.vocabulary import (
    MAX_OBJECTS,
    SCENE_ATTRIBUTES,
    object_attributes,
)


@dataclass(frozen=True)
class Labels:
    """What `B` captions name.

    Args:
        objects: `[B, 3, 6]`, int64: for each object its values in the order of
            `object_attributes()`; a row of zeros where there is no such object.
        scene: `[B, 3]`, int64: values in the order of `SCENE_ATTRIBUTES`.
    """

    objects: Tensor
    scene: Tensor

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, which: slice | Tensor) -> Labels:
        return Labels(self.objects[which], self.scene[which])

    def to(self, device: str | torch.device) -> Labels:
        """The same labels on another device."""
        return Labels(self.objects.to(device), self.scene.to(device))

    def rows(self) -> Tensor:
        """What a text encoder without doubts gives for them.

        Returns:
            `[B, 4, E]`, fp32: a row for each object and one for the scene, each of them one-hot
            for every attribute that is of its kind and 0 elsewhere.
        """
        object_sizes = [len(values) for values in object_attributes().values()]
        scene_sizes = [len(values) for values in SCENE_ATTRIBUTES.values()]
        objects = _one_hot(self.objects, object_sizes)
        scene = _one_hot(self.scene[:, None], scene_sizes)
        objects = F.pad(objects, (0, scene.shape[-1]))
        scene = F.pad(scene, (objects.shape[-1] - scene.shape[-1], 0))
        return torch.cat((objects, scene), 1)


def _one_hot(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """`[B, R, A]` to `[B, R, sum of sizes]`."""
    parts = zip(values.unbind(-1), sizes, strict=True)
    return torch.cat([F.one_hot(value, size) for value, size in parts], -1).float()


def join_labels(parts: Sequence[Labels]) -> Labels:
    """The labels of several batches as those of one."""
    return Labels(
        torch.cat([part.objects for part in parts]), torch.cat([part.scene for part in parts])
    )


def empty_labels(count: int) -> Labels:
    """Labels that say nothing, of scenes without an object."""
    return Labels(
        torch.zeros(count, MAX_OBJECTS, len(object_attributes()), dtype=torch.int64),
        torch.zeros(count, len(SCENE_ATTRIBUTES), dtype=torch.int64),
    )
