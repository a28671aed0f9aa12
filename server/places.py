"""The places that clips in flight take, over all processes of a server, and what they cost.

A place is a small file on the board: whoever creates it has it, and it says how large the clip
is and since when it runs. A process that dies leaves its file; its number tells that nobody has
the place any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

DECODE_STEPS = 9
"""What follows denoising costs as much as about so many steps (`docs/results/bench_cpu.json`)."""
MEMORY = 0.3
"""Weight of the newest clip in the average cost."""
LEAST_SHARE_LEFT = 0.05
"""Of a clip that has taken longer than expected."""


def clip_units(num_frames: int, height: int, width: int, num_inference_steps: int) -> float:
    """Size of a clip in megapixels times steps."""
    return num_frames * height * width * (num_inference_steps + DECODE_STEPS) / 1e6


@dataclass
class Place:
    """A clip in flight.

    Args:
        pid: Of the process that leads it.
        started: When it was accepted, on the clock that all processes share.
        units: See `clip_units`; 0 until the request has been checked.
    """

    pid: int
    started: float
    units: float = 0.0
    path: Path = Path()

    def measure(self, units: float) -> None:
        """Writes down the size of the clip."""
        self.units = units
        _write(self.path, self)

    def free(self) -> None:
        """Gives the place back; again does nothing."""
        self.path.unlink(missing_ok=True)


class Places:
    """All places of a server.

    Args:
        folder: Of the board.
        limit: Clips in flight.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self.limit = folder, limit

    def take(self) -> Place | None:
        """Takes a place, or None if there is none."""
        for attempt in range(2):
            for number in range(self.limit):
                path = self._folder / f"place.{number}"
                with contextlib.suppress(FileExistsError):
                    place = Place(os.getpid(), time.monotonic(), path=path)
                    _create(path, place)
                    return place
            if attempt == 0:
                self._free_abandoned()
        return None

    def taken(self) -> list[Place]:
        """Every clip in flight."""
        places = []
        for path in self._folder.glob("place.*"):
            # It may end between the two.
            with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
                places.append(Place(**json.loads(path.read_text()), path=path))
        return places

    def count(self) -> int:
        """Clips in flight."""
        return sum(name.startswith("place.") for name in os.listdir(self._folder))

    @contextlib.contextmanager
    def counting(self) -> Iterator[int]:
        """Clips in flight; nobody else counts, here or in another process, before the block ends.

        Else who counted first could tell the number last.
        """
        with (self._folder / "counting").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield self.count()

    def learn(self, seconds_per_unit: float) -> None:
        """Adds what a finished clip has cost to the average."""
        known = self.seconds_per_unit()
        if known is not None:
            seconds_per_unit = known + MEMORY * (seconds_per_unit - known)
        _replace(self._folder / "cost", str(seconds_per_unit))

    def seconds_per_unit(self) -> float | None:
        """The average cost; None before the first clip has ended."""
        try:
            return float((self._folder / "cost").read_text())
        except FileNotFoundError:
            return None

    def expected_s(self, place: Place) -> float | None:
        """Seconds that a clip takes behind all the others; None while nothing is known."""
        cost = self.seconds_per_unit()
        if cost is None:
            return None
        taken = self.taken()
        others = [other for other in taken if other.path != place.path]
        return place.units * cost + sum(_left_s(other, cost, len(taken)) for other in others)

    def share_among(self, clips: int) -> None:
        """Says how many clips take denoising steps together; the others wait."""
        _replace(self._folder / "together", str(clips))

    def next_end_s(self) -> float | None:
        """Seconds until a clip in flight ends; None while nothing is known.

        The oldest clips are those that share the machine, as many as take steps together.
        """
        cost, taken = self.seconds_per_unit(), [p for p in self.taken() if p.units]
        if cost is None or not taken:
            return None
        oldest = sorted(taken, key=lambda place: place.started)[: self._together()]
        return min(_left_s(place, cost, len(oldest)) for place in oldest) * len(oldest)

    def _together(self) -> int:
        try:
            return int((self._folder / "together").read_text())
        except FileNotFoundError:
            return self.limit

    def _free_abandoned(self) -> None:
        """Frees the places of processes that are no more."""
        for place in self.taken():
            if not Path(f"/proc/{place.pid}").exists():
                # Of several processes that see it, one can rename it.
                grave = self._folder / f"abandoned.{uuid.uuid4().hex}"
                with contextlib.suppress(FileNotFoundError):
                    place.path.rename(grave)
                    grave.unlink()


def _left_s(place: Place, cost: float, count: int) -> float:
    """Seconds that a clip still needs by itself, if it had an equal share of the machine."""
    whole = place.units * cost
    return max(LEAST_SHARE_LEFT * whole, whole - (time.monotonic() - place.started) / count)


def _text(place: Place) -> str:
    fields = asdict(place)
    del fields["path"]
    return json.dumps(fields)


def _create(path: Path, place: Place) -> None:
    # Linked into place whole, so that nobody reads half of it; fails if there is one already.
    partial = path.with_name(f"taking.{uuid.uuid4().hex}")
    partial.write_text(_text(place))
    try:
        os.link(partial, path)
    finally:
        partial.unlink()


def _write(path: Path, place: Place) -> None:
    if path.exists():
        _replace(path, _text(place))


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f"writing.{uuid.uuid4().hex}")
    partial.write_text(text)
    partial.replace(path)
