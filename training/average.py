"""Averages the weights of two denoisers of one descent and keeps the share that scores best.

Run as `python -m reelserve.training.average`.

Source: weights of runs that share a start can be averaged (arXiv 2203.05482).
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from torch import Tensor

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.pipeline.atomic_file import write_file
from reelserve.training.evaluate import (
    default_sampler,
    held_out_prompts,
    load_models,
    score_prompts,
)

log = logging.getLogger(__name__)

_SEED = 4
"""Seed of the prompts to choose by: neither those of the results nor those of the sweep."""


def average(old: dict[str, Tensor], new: dict[str, Tensor], new_share: float) -> dict[str, Tensor]:
    """Weights between two states of one architecture.

    Args:
        old: State of the first.
        new: State of the second, with the same names and shapes.
        new_share: Share of the second, in [0, 1].
    """
    return {name: value + new_share * (new[name] - value) for name, value in old.items()}


def main() -> None:
    """Saves the best average and, beside it, what every share scored."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/bundled"))
    parser.add_argument("--old", type=Path, required=True, help="folder of a denoiser")
    parser.add_argument("--new", type=Path, required=True, help="folder of one trained from it")
    parser.add_argument(
        "--new-shares", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0], metavar="SHARE"
    )
    parser.add_argument("--num-prompts", type=int, default=384)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/bundled/transformer"))
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    models, sampler = load_models(args.checkpoint, args.device), default_sampler(args.checkpoint)
    denoiser = models.denoiser
    old, new = (load_component(path, SpaceTimeDenoiser) for path in (args.old, args.new))
    sets = {
        "held_out": held_out_prompts(args.num_prompts, two_objects=False, seed=_SEED),
        "held_out_two_objects": held_out_prompts(
            args.num_prompts, two_objects=True, seed=_SEED + 1
        ),
    }
    rows = []
    for share in args.new_shares:
        denoiser.load_state_dict(average(old.state_dict(), new.state_dict(), share))
        scores = {
            name: score_prompts(models, *prompts, sampler).all_right
            for name, prompts in sets.items()
        }
        rows.append({"new_share": share, **scores})
        log.info("%s", rows[-1])
    best = max(rows, key=lambda row: sum(row[name] for name in sets))
    denoiser.load_state_dict(average(old.state_dict(), new.state_dict(), best["new_share"]))
    save_component(denoiser, args.out)
    report = {"num_prompts": args.num_prompts, "rows": rows, "chosen": best["new_share"]}
    write_file(args.out / "average.json", json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
