"""Judges a load test against the goal: pass or fail, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reelserve.loadtest.figures import (
    GOAL_CLIP_S,
    LAW_TOLERANCE,
    Scale,
    StageFigures,
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
        stage: The level that was judged: the highest one up to the knee that meets every goal; the
            knee where none does.
        knee: The saturation point.
        saturated: Whether a higher level than the knee was measured.
        findings: One for each goal.
        reached: Which ends of the project's ranges the judged level reaches.
    """

    stage: StageFigures
    knee: StageFigures
    saturated: bool
    findings: tuple[Finding, ...]
    reached: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether every goal is met and the measurement can be trusted."""
        return all(finding.passed for finding in self.findings)


def judge(
    stages: Sequence[StageFigures], goals: Goals, scale: Scale, loop: str, unfinished: str = ""
) -> Verdict:
    """Judges a sweep.

    Args:
        stages: At least one level, rising.
        goals: To meet.
        scale: Of the clips and the machine.
        loop: Closed or open.
        unfinished: Why the test ended early, or empty.
    """
    edge = knee(stages)
    up_to_knee = stages[: stages.index(edge) + 1]
    good = [stage for stage in up_to_knee if _all_met(stage, goals, scale)]
    stage = good[-1] if good else edge
    where = f"with {level_name(stage.level, loop)}"
    return Verdict(
        stage=stage,
        knee=edge,
        saturated=edge is not stages[-1],
        findings=(*_goal_findings(stage, goals, scale, where), _trust(stages, loop, unfinished)),
        reached=(_throughput_reached(stage, scale), _latency_reached(stage, scale)),
    )


def _all_met(stage: StageFigures, goals: Goals, scale: Scale) -> bool:
    return all(finding.passed for finding in _goal_findings(stage, goals, scale, ""))


def _goal_findings(
    stage: StageFigures, goals: Goals, scale: Scale, where: str
) -> tuple[Finding, ...]:
    videos_per_s, p95_s = scale.videos_per_s(stage.clips_per_s), scale.latency_s(stage.p95_s)
    fast, prompt = videos_per_s >= goals.videos_per_s, p95_s <= goals.p95_s
    sound = stage.error_share <= goals.error_share
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
            f"{stage.errors} of {stage.clips + stage.errors + stage.refused} requests {where} "
            f"failed ({100 * stage.error_share:.1f}%), {'within' if sound else 'over'} the limit "
            f"of {100 * goals.error_share:g}%.",
        ),
    )


def _trust(stages: Sequence[StageFigures], loop: str, unfinished: str) -> Finding:
    if unfinished:
        return Finding(False, f"The measurement is not to be trusted: {unfinished}.")
    wrong = [stage for stage in stages if not stage.law_holds]
    if wrong:
        found = ", ".join(
            f"{stage.law_ratio:.2f} with {level_name(stage.level, loop)}" for stage in wrong
        )
        return Finding(
            False,
            "The measurement is not to be trusted: throughput × latency by the requests in flight "
            f"is {found}; Little's law wants 1 ± {LAW_TOLERANCE:g}.",
        )
    worst = max(stages, key=lambda stage: abs(stage.law_ratio - 1))
    return Finding(
        True,
        "Little's law holds at every level: throughput × latency by the requests in flight is at "
        f"worst {worst.law_ratio:.2f}.",
    )


def _throughput_reached(stage: StageFigures, scale: Scale) -> str:
    low, high = VIDEOS_PER_S_RANGE
    value = scale.videos_per_s(stage.clips_per_s)
    where = f"the range of {low:g} to {high:g} videos per second"
    if value >= high:
        return f"Throughput reaches the upper end of {where}."
    if value >= low:
        return f"Throughput reaches the lower end of {where}, not the upper one."
    return f"Throughput does not reach {where}."


def _latency_reached(stage: StageFigures, scale: Scale) -> str:
    slow, fast = P95_S_RANGE
    value = scale.latency_s(stage.p95_s)
    if value <= fast:
        return f"The 95th percentile reaches the fast end ({fast:g} s) of {slow:g} to {fast:g} s."
    if value <= slow:
        return f"The 95th percentile is within {slow:g} s, not within {fast:g} s."
    return f"The 95th percentile is not within {slow:g} s."
