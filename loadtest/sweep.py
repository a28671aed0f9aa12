"""Leads a load test from level to level: when a window opens, what counts, when it closes.

Clips take long against a window, so its edges matter. A closed loop's window opens at the end of
a clip and closes at the end of another one, whole rounds of the callers later. Clips that batch
together end together; a window cut by the clock would hold one such group more or less, from the
same server. It opens only when every request in flight was sent under the full load of the level,
and the callers go on until it is closed. An open loop's window has a fixed length; arrivals go on
at the same rate until the last request that was due in it has ended, so none ends in a calmer
server than it was sent to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from reelserve.client import StageStatistics
from reelserve.loadtest.in_flight import InFlight
from reelserve.loadtest.plan import CLOSED, Plan
from reelserve.loadtest.records import REFUSED, RequestRecord, Window

Statistics = Mapping[str, StageStatistics]


@dataclass
class _Edge:
    """What was read at one end of a window."""

    at_s: float
    request_seconds: float
    statistics: Statistics = field(default_factory=dict)


@dataclass
class _LevelState:
    """A level on its way."""

    level: float
    started_s: float
    full_load_s: float | None = None
    ended: int = 0
    counted: int = 0
    opened: _Edge | None = None
    closed: _Edge | None = None


class Sweep:
    """The state of a load test; told what happens, asked how much load there should be.

    Args:
        plan: What to do.
        in_flight: Kept by who sends the requests.
        read_statistics: Reads Triton's counters; may let other requests go on meanwhile.
    """

    def __init__(
        self, plan: Plan, in_flight: InFlight, read_statistics: Callable[[], Statistics]
    ) -> None:
        self.plan, self.unfinished, self.finished = plan, "", False
        self._in_flight, self._read_statistics = in_flight, read_statistics
        self._levels = [_LevelState(plan.levels[0], 0.0)]
        self._due_unended: set[int] = set()

    @property
    def number(self) -> int:
        """Number of the present level, from 0."""
        return len(self._levels) - 1

    @property
    def level(self) -> float:
        """The present level."""
        return self._state.level

    @property
    def previous_level(self) -> float:
        """The level before the present one; 0 before the first."""
        return self._levels[-2].level if self.number else 0.0

    @property
    def started_s(self) -> float:
        """When the present level started."""
        return self._state.started_s

    @property
    def _state(self) -> _LevelState:
        return self._levels[-1]

    def callers(self, now_s: float) -> int:
        """How many callers a closed loop should have."""
        before, level, ramp_s = self.previous_level, self.level, self.plan.ramp_s
        if ramp_s == 0:
            return int(level)
        risen = min(1.0, (now_s - self.started_s) / ramp_s)
        return max(1, int(before + (level - before) * risen))

    def load_is(self, callers: float, now_s: float) -> None:
        """Told how much load there is; the level counts as reached once it is its own."""
        if self._state.full_load_s is None and callers >= self.level:
            self._state.full_load_s = now_s

    def sent(self, request: int, due_s: float) -> None:
        """Told that a request is sent."""
        state = self._state
        if self.plan.loop == CLOSED or not state.opened or due_s < state.opened.at_s:
            return
        # One that was due in the window may be sent a moment after its end.
        if not state.closed or due_s < state.closed.at_s:
            self._due_unended.add(request)

    def ended(self, request: RequestRecord) -> bool:
        """Told that a request has ended.

        Returns:
            Whether it counts.
        """
        state = self._state
        counts = self._counts(state, request)
        if request.outcome != REFUSED:
            state.ended += 1
            state.counted += counts
        self._due_unended.discard(request.number)
        # A closed loop's edges are ends of clips. A refusal is none.
        if self.plan.loop == CLOSED and request.outcome != REFUSED and not self.finished:
            self._move(state, request.ended_s)
        return counts

    def tick(self, now_s: float) -> None:
        """Told that time has passed; often."""
        if self.finished:
            return
        if self.plan.loop != CLOSED:
            self._move(self._state, now_s)
        if now_s - self.started_s > self.plan.max_level_s and not self.finished:
            self.unfinished = (
                f"the level of {self.level:g} did not end within {self.plan.max_level_s:g} s"
            )
            self.finished = True

    def records(self) -> tuple[Window, ...]:
        """Every window that was closed."""
        return tuple(
            Window(
                level=state.level,
                opened_s=state.opened.at_s,
                closed_s=state.closed.at_s,
                mean_in_flight=(state.closed.request_seconds - state.opened.request_seconds)
                / (state.closed.at_s - state.opened.at_s),
                statistics=difference(state.opened.statistics, state.closed.statistics),
            )
            for state in self._levels
            if state.opened and state.closed
        )

    def _counts(self, state: _LevelState, request: RequestRecord) -> bool:
        if not state.opened:
            return False
        if self.plan.loop == CLOSED:
            return not state.closed
        return request.number in self._due_unended

    def _move(self, state: _LevelState, now_s: float) -> None:
        """Opens or closes the window, or goes on to the next level, if it is time to."""
        if not state.opened:
            if self._may_open(state, now_s):
                state.opened = self._edge(now_s)
                state.opened.statistics = self._read_statistics()
            return
        if not state.closed and self._may_close(state, state.opened, now_s):
            state.closed = self._edge(now_s)
            state.closed.statistics = self._read_statistics()
            if self.plan.loop == CLOSED:
                self._go_on(now_s)
        elif state.closed and self.plan.loop != CLOSED and not self._due_unended:
            self._go_on(now_s)

    def _may_open(self, state: _LevelState, now_s: float) -> bool:
        if state.full_load_s is None or now_s - state.full_load_s < self.plan.warm_up_s:
            return False
        oldest = self._in_flight.oldest_sent_s()
        if oldest is not None and oldest < state.full_load_s:
            return False
        return state.ended >= self.plan.warm_up_count(state.level)

    def _may_close(self, state: _LevelState, opened: _Edge, now_s: float) -> bool:
        window_s = now_s - opened.at_s
        if self.plan.loop != CLOSED:
            return window_s >= self.plan.window_s(state.level)
        enough = state.counted >= self.plan.measured_clips(state.level)
        round_ends = state.counted % int(state.level) == 0
        return enough and round_ends and window_s >= self.plan.level_s

    def _go_on(self, now_s: float) -> None:
        if len(self._levels) == len(self.plan.levels):
            self.finished = True
        else:
            self._levels.append(_LevelState(self.plan.levels[len(self._levels)], now_s))

    def _edge(self, now_s: float) -> _Edge:
        return _Edge(now_s, self._in_flight.request_seconds(now_s))


def difference(before: Statistics, after: Statistics) -> dict[str, StageStatistics]:
    """What happened between two readings, model by model."""
    nothing = StageStatistics()
    return {model: counters - before.get(model, nothing) for model, counters in after.items()}
