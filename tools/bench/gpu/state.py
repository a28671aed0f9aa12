"""What has been measured, kept on disk after every phase, and how much time is left."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reelserve.pipeline.provenance import provenance
from reelserve.tools.bench.gpu.cases import MeasuredCase
from reelserve.tools.results_file import write_json

Result = dict[str, Any]


class OutOfBudgetError(RuntimeError):
    """The next phase does not fit into the time that is left; what was measured is kept."""


class Budget:
    """Seconds that a run may take.

    Args:
        seconds: Limit of the whole run; None is no limit.
        clock: Monotonic, seconds.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends_s = None if seconds is None else clock() + seconds

    @property
    def left_s(self) -> float | None:
        """What is left; None without a limit."""
        return None if self._ends_s is None else max(0.0, self._ends_s - self._clock())

    def require(self, what: str, seconds: float) -> None:
        """Raises `OutOfBudgetError` if less than `seconds` are left for `what`."""
        left_s = self.left_s
        if left_s is not None and left_s < seconds:
            raise OutOfBudgetError(
                f"{what} is expected to take {seconds:.0f} s; {left_s:.0f} s of the budget are left"
            )


class State:
    """Results of the phases of every case, in one JSON file.

    A phase whose case or settings have changed since counts as not measured. Several runs may share
    the file, as where each measures on a GPU of its own: what one saves, another one keeps.

    Args:
        file: Created with its folder where missing.
        settings: What shapes every result of the run: engine, precision and their like.
        machine: GPU, driver and versions, kept with every result beside its provenance.
    """

    def __init__(self, file: Path, settings: Result, machine: Result) -> None:
        self._file, self._settings, self._machine = file, settings, machine
        self._entries = self._read()

    def find(self, case: MeasuredCase, phase: str) -> Result | None:
        """What a phase gave, or None if it has to be run."""
        entry = self._entries.get(case.name, {}).get(phase)
        if entry is None or entry["key"] != self._key(case):
            return None
        result: Result = entry["result"]
        return result

    def origins(self, case: MeasuredCase) -> list[Result]:
        """Machine, versions, commit and date of every phase of a case that has been run."""
        phases = self._entries.get(case.name, {}).values()
        return [entry["origin"] for entry in phases if entry["key"] == self._key(case)]

    def save(self, case: MeasuredCase, phase: str, result: Result) -> None:
        """Keeps what a phase gave, on disk at once."""
        origin = {**self._machine, **provenance()}
        entry = {"key": self._key(case), "result": result, "origin": origin}
        with self._newest():
            self._entries.setdefault(case.name, {})[phase] = entry

    def take_over(self, file: Path) -> None:
        """Adds what another run has measured, of phases that this one has not.

        Args:
            file: State of the other run.

        Raises:
            ValueError: If there is no such file.
        """
        if not file.is_file():
            raise ValueError(f"--merge: {file} does not exist; nothing was measured there")
        with self._newest():
            for name, phases in json.loads(file.read_text()).items():
                self._entries[name] = {**phases, **self._entries.get(name, {})}

    def forget(self, case: MeasuredCase, phase: str) -> None:
        """Lets a phase be run again, with every part of it.

        Args:
            case: Whose phase.
            phase: Its name; the names of its parts begin with it and a space.
        """
        with self._newest():
            phases = self._entries.get(case.name, {})
            for name in [name for name in phases if f"{name} ".startswith(f"{phase} ")]:
                del phases[name]

    def _key(self, case: MeasuredCase) -> str:
        return json.dumps({**asdict(case), **self._settings}, sort_keys=True)

    def _read(self) -> dict[str, dict[str, Result]]:
        if not self._file.is_file():
            return {}
        entries: dict[str, dict[str, Result]] = json.loads(self._file.read_text())
        return entries

    @contextlib.contextmanager
    def _newest(self) -> Iterator[None]:
        """The entries as they are on disk now, to be changed; they are written at the end."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._entries = self._read()
            yield
            write_json(self._file, self._entries)
