"""A resumable training run: state on disk, a schedule, an average of the weights, curves.

A run may be cut off at any time. It saves its whole state every `SAVE_EVERY_S` seconds and at
the end, and goes on from there when started again with the same folder. Started by `torchrun`,
every process takes a batch of its own and their gradients are averaged.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reelserve.pipeline.atomic_file import replaced_file, write_file
from reelserve.training.ranks import Ranks

SAVE_EVERY_S = 180.0
CURVE_EVERY = 50
CLOCK_EVERY = 10
"""Steps between two looks at the clock, which all ranks must agree on."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning-rate shape of a run.

    Args:
        steps: Optimiser steps of the whole run.
        warmup_steps: Linear rise from 0.
        decay_share: Final share of the run over which the rate falls linearly to 0.
        max_seconds: The run also ends, its rate fallen to 0, after this much training time.
    """

    steps: int
    warmup_steps: int
    decay_share: float
    max_seconds: float

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, max(step / self.steps, seconds / self.max_seconds))

    def factor(self, step: int, seconds: float) -> float:
        """Multiplies every learning rate."""
        left = 1.0 - self.progress(step, seconds)
        return min(1.0, (step + 1) / self.warmup_steps, left / self.decay_share)


class Run:
    """One training run over a module.

    Args:
        folder: Holds `state.pt` and `curve.csv`; created where missing.
        module: Trained in place.
        optimizers: Step together; each group's `lr` is scaled by the schedule.
        schedule: Length and rate.
        ema_decay: Decay of the averaged weights, which are kept at the end.
        seed: Seed of the run; with step and rank it seeds each batch, so that no two are alike.
        ranks: The processes that train together; alone where left out.
    """

    def __init__(
        self,
        folder: Path,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        schedule: Schedule,
        *,
        ema_decay: float,
        seed: int,
        ranks: Ranks | None = None,
    ) -> None:
        self.folder, self.module, self.optimizers = folder, module, optimizers
        self.schedule, self.ema_decay, self.seed = schedule, ema_decay, seed
        self.ranks = ranks or Ranks()
        self.step, self.seconds = 0, 0.0
        self.ranks.share(list(module.parameters()))
        self.average = [p.detach().clone() for p in module.parameters()]
        self._rates = [[group["lr"] for group in opt.param_groups] for opt in optimizers]
        self._losses: dict[str, list[Tensor]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.pt").exists():
            self._load()

    def steps(self) -> Iterator[int]:
        """Yields the number of each step left; the caller computes losses and calls `update`."""
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        while self.progress < 1.0:
            yield self.step
            self.step += 1
            if self.step % CURVE_EVERY == 0:
                self._write_curve()
            if self.step % CLOCK_EVERY == 0:
                self.seconds = self.ranks.agree(time.monotonic() - started)
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1], the same on all ranks."""
        return self.schedule.progress(self.step, self.seconds)

    def batch_seed(self) -> int:
        """Seeds the data of this step and rank."""
        entropy = np.random.SeedSequence((self.seed, self.step, self.ranks.rank))
        return int(entropy.generate_state(1, np.uint64)[0])

    def update(self, loss: Tensor, **terms: Tensor) -> None:
        """Backpropagates, steps every optimiser and updates the average."""
        factor = self.schedule.factor(self.step, self.seconds)
        for optimizer, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        loss.backward()
        self.ranks.average([p.grad for p in self.module.parameters() if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        if not torch.isfinite(norm):
            # One bad batch must not end a run; gradients are the same on all ranks by now.
            for optimizer in self.optimizers:
                optimizer.zero_grad(set_to_none=True)
            return
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        # A short average early on, so that the first steps are soon forgotten.
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, list(self.module.parameters()), 1 - decay)
        for name, value in {"loss": loss, **terms}.items():
            self._losses.setdefault(name, []).append(value.detach())

    def summary(self) -> dict[str, Any]:
        """Steps, time and processes of the run, for the file of settings."""
        return {
            "processes": self.ranks.count,
            "steps_done": self.step,
            "seconds": round(self.seconds, 1),
        }

    def use_average(self) -> None:
        """Puts the averaged weights into the module."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.module.parameters()), self.average)

    def save(self) -> None:
        """Writes the whole state, at once and to the disk; the first rank alone does."""
        if not self.ranks.is_first:
            return
        state = {
            "module": self.module.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average,
            "step": self.step,
            "seconds": self.seconds,
        }
        with replaced_file(self.folder / "state.pt", durable=True) as partial:
            torch.save(state, partial)

    def _load(self) -> None:
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.module.load_state_dict(state["module"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        with torch.no_grad():
            torch._foreach_copy_(self.average, [t.to(self.average[0]) for t in state["average"]])
        self.step, self.seconds = state["step"], state["seconds"]

    def _write_curve(self) -> None:
        means = {name: torch.stack(values).mean().item() for name, values in self._losses.items()}
        self._losses = {}
        if not self.ranks.is_first:
            return
        path = self.folder / "curve.csv"
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        rows.append({"step": self.step, "seconds": round(self.seconds, 1), **means})
        # A run may measure other losses later on: a column for each that there ever was.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_file(path, text.getvalue())


def write_settings(folder: Path, settings: Any, **more: object) -> None:
    """Writes the settings a component was trained with to `training.json` beside its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**asdict(settings), **more}, indent=2, default=str)
    write_file(folder / "training.json", text + "\n")
