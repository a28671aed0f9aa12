"""Judges a load test against the goal: pass or fail, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reelserve.loadtest.figures import (
    GOAL_CLIP_S,
    LAW_TOLERANCE,
    LevelFigures,
    Scale,
    knee,
    level_name,
)

VIDEOS_PER_S_RANGE = (0.1, 1.0)
"""What the project is after, from the modest end to the ambitious one."""
P95_S_RANGE = (300.0, 60.0)


@dataclass(frozen=True)
class Goals:
    """What must be met, all at one level of load.

    Args:
        videos_per_s: At least so many videos of 10 s per second, by GPU.
        p95_s: 95% of videos of 10 s take at most so long.
        error_share: At most this share of requests fails.
    """

    videos_per_s: float = VIDEOS_PER_S_RANGE[0]
    p95_s: float = P95_S_RANGE[0]
    error_share: float = 0.01


@dataclass(frozen=True)
class Finding:
    """One goal.

    Args:
        passed: Whether it is met.
        sentence: Why.
    """

    passed: bool
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """The judgement.

    Args:
        judged: The level that was judged: the highest one up to the knee that meets every goal; the
            knee where none does.
        knee: The saturation point.
        saturated: Whether a higher level than the knee was measured.
        findings: One for each goal.
        reached: Which ends of the project's ranges the judged level reaches.
    """

    judged: LevelFigures
    knee: LevelFigures
    saturated: bool
    findings: tuple[Finding, ...]
    reached: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every goal is met and the measurement can be trusted."""
        return all(finding.passed for finding in self.findings)


def judge(
    levels: Sequence[LevelFigures], goals: Goals, scale: Scale, loop: str, unfinished: str = ""
) -> Verdict:
    """Judges a sweep.

    Args:
        levels: At least one level, rising.
        goals: To meet.
        scale: Scale of the clips and the machine.
        loop: Closed or open.
        unfinished: Why the test ended early, or empty.
    """
    edge = knee(levels)
    up_to_knee = levels[: levels.index(edge) + 1]
    good = [figures for figures in up_to_knee if _all_met(figures, goals, scale)]
    figures = good[-1] if good else edge
    where = f"with {level_name(figures.level, loop)}"
    return Verdict(
        judged=figures,
        knee=edge,
        saturated=edge is not levels[-1],
        findings=(*_goal_findings(figures, goals, scale, where), _trust(levels, loop, unfinished)),
        reached=(_throughput_reached(figures, scale), _latency_reached(figures, scale)),
    )


def _all_met(figures: LevelFigures, goals: Goals, scale: Scale) -> bool:
    return all(finding.passed for finding in _goal_findings(figures, goals, scale, ""))


def _goal_findings(
    figures: LevelFigures, goals: Goals, scale: Scale, where: str
) -> tuple[Finding, ...]:
    videos_per_s, p95_s = scale.videos_per_s(figures.clips_per_s), scale.latency_s(figures.p95_s)
    fast, prompt = videos_per_s >= goals.videos_per_s, p95_s <= goals.p95_s
    sound = figures.error_share <= goals.error_share
    videos = f"videos of {GOAL_CLIP_S:g} s"
    return (
        Finding(
            fast,
            f"Throughput {where} is {videos_per_s:.3f} {videos} per second per {scale.per}, "
            f"{'at least' if fast else 'below'} the goal of {goals.videos_per_s:g}.",
        ),
        Finding(
            prompt,
            f"The 95th percentile of latency {where} is {p95_s:.1f} s per video of "
            f"{GOAL_CLIP_S:g} s, {'within' if prompt else 'over'} the goal of {goals.p95_s:g} s.",
        ),
        Finding(
            sound,
            f"{figures.errors} of {figures.requests} requests {where} "
            f"failed ({100 * figures.error_share:.1f}%), {'within' if sound else 'over'} the limit "
            f"of {100 * goals.error_share:g}%.",
        ),
    )


def _trust(levels: Sequence[LevelFigures], loop: str, unfinished: str) -> Finding:
    if unfinished:
        return Finding(False, f"The measurement is not to be trusted: {unfinished}.")
    wrong = [figures for figures in levels if not figures.law_holds]
    if wrong:
        found = ", ".join(
            f"{figures.law_ratio:.2f} with {level_name(figures.level, loop)}" for figures in wrong
        )
        return Finding(
            False,
            "The measurement is not to be trusted: throughput × latency by the requests in flight "
            f"is {found}; Little's law wants 1 ± {LAW_TOLERANCE:g}.",
        )
    worst = max(levels, key=lambda figures: abs(figures.law_ratio - 1))
    return Finding(
        True,
        "Little's law holds at every level: throughput × latency by the requests in flight is at "
        f"worst {worst.law_ratio:.2f}.",
    )


def _throughput_reached(figures: LevelFigures, scale: Scale) -> str:
    low, high = VIDEOS_PER_S_RANGE
    value = scale.videos_per_s(figures.clips_per_s)
    where = f"the range of {low:g} to {high:g} videos per second"
    if value >= high:
        return f"Throughput reaches the upper end of {where}."
    if value >= low:
        return f"Throughput reaches the lower end of {where}, not the upper one."
    return f"Throughput does not reach {where}."


def _latency_reached(figures: LevelFigures, scale: Scale) -> str:
    slow, fast = P95_S_RANGE
    value = scale.latency_s(figures.p95_s)
    if value <= fast:
        return f"The 95th percentile reaches the fast end ({fast:g} s) of {slow:g} to {fast:g} s."
    if value <= slow:
        return f"The 95th percentile is within {slow:g} s, not within {fast:g} s."
    return f"The 95th percentile is not within {slow:g} s."
