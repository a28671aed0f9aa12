from __future__ import annotations

import pytest

from reelserve.loadtest.figures import Scale
from reelserve.loadtest.plan import CLOSED
from reelserve.loadtest.verdict import Goals, judge
from tests.loadtest.samples import figures

CPU = Scale(clip_s=10.0, gpus=0)


def test_judge_passes_when_every_goal_is_met():
    verdict = judge([figures()], Goals(), CPU, CLOSED)
    assert verdict.passed
    sentences = [finding.sentence for finding in verdict.findings]
    assert sentences[0] == (
        "Throughput with 1 at once is 0.120 videos of 10 s per second per machine (CPU), "
        "at least the goal of 0.1."
    )
    assert sentences[1] == (
        "The 95th percentile of latency with 1 at once is 15.0 s per video of 10 s, "
        "within the goal of 300 s."
    )
    assert verdict.reached[0].startswith("Throughput reaches the lower end")
    assert "fast end (60 s)" in verdict.reached[1]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"clips_per_s": 0.09}, "Throughput"),
        ({"p95_s": 301.0}, "The 95th percentile"),
        ({"errors": 1}, "1 of 13 requests"),
        ({"mean_in_flight": 1.4}, "The measurement is not to be trusted"),
        ({"mean_in_flight": 1.0}, "The measurement is not to be trusted"),
    ],
)
def test_judge_fails_with_the_reason_when_a_goal_is_missed(changes, failed):
    verdict = judge([figures(**changes)], Goals(), CPU, CLOSED)
    assert not verdict.passed
    wrong = [finding.sentence for finding in verdict.findings if not finding.passed]
    assert len(wrong) == 1
    assert wrong[0].startswith(failed)


def test_judge_fails_when_the_test_did_not_end():
    verdict = judge([figures()], Goals(), CPU, CLOSED, unfinished="the level of 2 did not end")
    assert not verdict.passed
    assert verdict.findings[-1].sentence.endswith("not to be trusted: the level of 2 did not end.")


def test_judge_names_the_level_where_the_law_is_broken():
    levels = [figures(1), figures(8, expected_in_flight=0.6)]
    sentence = judge(levels, Goals(), CPU, CLOSED).findings[-1].sentence
    assert "0.50 with 8 at once" in sentence


def test_refusals_are_no_errors():
    assert judge([figures(refused=30)], Goals(), CPU, CLOSED).passed


def test_judge_takes_the_knee_when_it_meets_the_goals():
    levels = [figures(1, clips_per_s=0.1), figures(2), figures(4, p95_s=60.0)]
    verdict = judge(levels, Goals(), CPU, CLOSED)
    assert (verdict.knee.level, verdict.judged.level, verdict.saturated) == (2, 2, True)


def test_judge_takes_a_lower_level_when_the_knee_is_too_slow():
    levels = [figures(1, clips_per_s=0.2), figures(8, clips_per_s=0.8, p95_s=400.0)]
    verdict = judge(levels, Goals(), CPU, CLOSED)
    assert (verdict.knee.level, verdict.saturated) == (8, False)
    assert verdict.judged.level == 1
    assert verdict.passed


def test_judge_takes_the_knee_when_no_level_meets_the_goals():
    levels = [figures(1, clips_per_s=0.01), figures(2, clips_per_s=0.02)]
    assert judge(levels, Goals(), CPU, CLOSED).judged.level == 2


@pytest.mark.parametrize(
    ("clips_per_s", "p95_s", "words"),
    [
        (2.0, 59.0, ("upper end", "fast end")),
        (0.5, 120.0, ("lower end", "within 300 s, not within 60 s")),
        (0.05, 400.0, ("does not reach", "not within 300 s")),
    ],
)
def test_judge_says_which_ends_of_the_ranges_are_reached(clips_per_s, p95_s, words):
    reached = judge([figures(clips_per_s=clips_per_s, p95_s=p95_s)], Goals(), CPU, CLOSED).reached
    assert all(word in sentence for word, sentence in zip(words, reached, strict=True))


def test_goals_are_those_given():
    assert not judge([figures()], Goals(videos_per_s=0.2), CPU, CLOSED).passed
    assert not judge([figures()], Goals(p95_s=10.0), CPU, CLOSED).passed
    assert judge([figures(errors=1)], Goals(error_share=0.1), CPU, CLOSED).passed
