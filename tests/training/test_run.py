import csv
import itertools

import pytest
import torch
from torch import nn

from reelserve.training.run import Run, Schedule

SCHEDULE = Schedule(steps=100, warmup_steps=10, decay_share=0.5, max_seconds=1e9)


def start(folder) -> tuple[Run, nn.Linear]:
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    return Run(folder, module, [optimizer], SCHEDULE, ema_decay=0.9, seed=1), module


def train(run: Run, module: nn.Linear, last: int | None = None) -> None:
    for step in itertools.takewhile(lambda step: step != last, run.steps()):
        torch.manual_seed(step)
        run.update(module(torch.randn(4, 3)).square().mean())


def test_run_goes_on_as_if_never_cut_off(tmp_path):
    whole, module = start(tmp_path / "whole")
    train(whole, module)

    cut, half_module = start(tmp_path / "cut")
    train(cut, half_module, last=40)
    cut.save()
    resumed, resumed_module = start(tmp_path / "cut")
    assert resumed.step == 40
    train(resumed, resumed_module)

    assert torch.equal(module.weight, resumed_module.weight)
    for kept, again in zip(whole.average, resumed.average, strict=True):
        assert torch.equal(kept, again)


def test_run_writes_its_curve(tmp_path):
    run, module = start(tmp_path)
    train(run, module)
    with (tmp_path / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["50", "100"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])


def test_run_writes_a_column_for_every_loss_there_ever_was(tmp_path):
    run, module = start(tmp_path)
    for step in run.steps():
        loss = module(torch.ones(4, 3)).square().mean()
        run.update(loss, **{"early" if step < 50 else "late": loss})
    with (tmp_path / "curve.csv").open() as file:
        first, second = csv.DictReader(file)
    assert first["early"] and not first["late"]
    assert second["late"] and not second["early"]


def test_run_leaves_the_weights_when_gradients_are_not_finite(tmp_path):
    run, module = start(tmp_path)
    before = module.weight.detach().clone()
    run.update(module(torch.full((4, 3), torch.nan)).square().mean())
    assert torch.equal(module.weight, before)
    run.update(module(torch.ones(4, 3)).square().mean())
    assert not torch.equal(module.weight, before)


@pytest.mark.parametrize(
    ("step", "seconds", "factor"),
    [(0, 0.0, 0.1), (9, 0.0, 1.0), (50, 0.0, 1.0), (75, 0.0, 0.5), (50, 0.9e9, 0.2)],
)
def test_schedule_warms_up_and_decays_by_steps_or_seconds(step, seconds, factor):
    assert SCHEDULE.factor(step, seconds) == pytest.approx(factor)
