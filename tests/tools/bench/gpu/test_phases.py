"""The order of phases, what is not run again, and what a failure or the budget's end leaves."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from reelserve.tools.bench.gpu import phases
from reelserve.tools.bench.gpu.cases import DRY_CASES
from reelserve.tools.bench.gpu.children import ChildError
from reelserve.tools.bench.gpu.phases import Options, Runner
from reelserve.tools.bench.gpu.state import Budget, OutOfBudgetError, State
from tests.tools.bench.gpu.samples import level, stage

LTX, SIZED, LARGE, BUNDLED = DRY_CASES
ALL_OF_ONE = ["checkpoints", "export", "in_process", "serve", "1", "2", "4", "curves"]


class Bench:
    """A runner whose phases only write down that they were run."""

    def __init__(self, work: Path, monkeypatch, budget: Budget | None = None) -> None:
        self.ran: list[str] = []
        self.failing = ""
        self.serving = False
        self.exported: set[str] = set()
        options = Options(work, work, "pytorch", "fp32", 1, True, 60.0, False)
        self.state = State(work / "state.json", {}, {})
        self.changes = 0
        self.runner = Runner(
            options, DRY_CASES, self.state, budget or Budget(None), lambda _: None, self._changed
        )
        fakes = {
            "run_module": self._module,
            "run_child": self._export,
            "prepare_repository": lambda case, siblings, work: None,
            "exported_stages": lambda repository: {"denoiser": stage(1)},
            "is_exported": lambda repository: repository.name in self.exported,
            "release_stages": lambda repository, stages: self.exported.discard(repository.name),
            "served_case": self._serve,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(phases, name, fake)

    def _changed(self) -> None:
        self.changes += 1

    def _module(self, module, job, folder, budget):
        name = module.rpartition(".")[2]
        self._note(name)
        results = {
            "checkpoints": {"checkpoint": str(folder), "seconds": 1.0},
            "curves": {"curves": []},
        }
        return results.get(name, {"seconds": 1.0})

    def _export(self, command, log, budget):
        self._note("export")
        self.exported.add(log.parent.name)
        return 1.0

    @contextlib.contextmanager
    def _serve(self, case, repository, log, ready_timeout_s, gpus=()):
        self._note("serve")
        self.serving = True
        try:
            yield SimpleNamespace(
                first_clip=self._first_clip,
                level=self._level,
                server=SimpleNamespace(ready_s=1.0),
            )
        finally:
            self.serving = False

    def _first_clip(self):
        video = SimpleNamespace(mp4=b"", info=SimpleNamespace(versions={}), save=lambda path: None)
        return video, 1.0

    def _level(self, callers, clips, video, most_s):
        # Of tiny models; others have more clips (`level_clips`).
        assert clips == callers
        assert self.serving
        self._note(str(callers))
        return level(callers, 1.0)

    def _note(self, name: str) -> None:
        if name == self.failing:
            raise ChildError(f"{name} fails")
        self.ran.append(name)


def test_runner_runs_every_phase_once(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    assert bench.runner.run((SIZED,), curves=True) == []
    assert bench.ran == ALL_OF_ONE
    assert bench.changes == 7
    bench.runner.run((SIZED,), curves=True)
    assert bench.ran == ALL_OF_ONE


def test_runner_measures_no_curves_of_the_trained_checkpoint(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    bench.runner.run((BUNDLED,), curves=True)
    assert bench.ran == ALL_OF_ONE[:-1]


def test_runner_goes_on_after_an_interruption_with_the_levels_that_are_missing(
    tmp_path, monkeypatch
):
    bench = Bench(tmp_path, monkeypatch)
    bench.failing = "2"
    assert bench.runner.run((SIZED,), curves=False) == ["bundled-3b: 2 fails"]
    assert not bench.serving
    bench.failing, bench.ran = "", []
    assert bench.runner.run((SIZED,), curves=False) == []
    assert bench.ran == ["serve", "2", "4"]


def test_runner_begins_the_next_case_when_one_fails(tmp_path, monkeypatch):
    bench = Bench(tmp_path, monkeypatch)
    bench.failing = "export"
    failed = bench.runner.run((SIZED, LARGE), curves=False)
    assert failed == ["bundled-3b: export fails", "bundled-10b: export fails"]


def test_runner_exports_again_when_graphs_are_gone_and_a_phase_is_asked_for_again(
    tmp_path, monkeypatch
):
    bench = Bench(tmp_path, monkeypatch)
    bench.runner.run((SIZED,), curves=False)
    assert bench.exported == set()
    bench.state.forget(SIZED, "in_process")
    bench.ran = []
    bench.runner.run((SIZED,), curves=False)
    assert bench.ran == ["checkpoints", "export", "in_process"]


def test_runner_stops_before_a_phase_that_does_not_fit(tmp_path, monkeypatch):
    now = [0.0]
    bench = Bench(tmp_path, monkeypatch, Budget(100.0, clock=lambda: now[0]))
    bench.runner.run((LTX,), curves=False)
    now[0] = 50.0
    with pytest.raises(OutOfBudgetError, match="bundled-3b: checkpoint is expected"):
        bench.runner.run((LTX, SIZED), curves=False)


def test_runner_ends_the_server_when_a_level_does_not_fit(tmp_path, monkeypatch):
    now = [0.0]
    bench = Bench(tmp_path, monkeypatch, Budget(200.0, clock=lambda: now[0]))
    take = bench._level

    def slow(callers, clips, video, most_s):
        now[0] += 150.0
        return take(callers, clips, video, most_s)

    monkeypatch.setattr(bench, "_level", slow)
    with pytest.raises(OutOfBudgetError, match="bundled-3b, 4 at once"):
        bench.runner.run((SIZED,), curves=False)
    assert not bench.serving
    assert bench.state.find(SIZED, "serve 2") is not None
    assert bench.state.find(SIZED, "serve 4") is None
