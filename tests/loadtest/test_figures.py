from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reelserve.client import StageStatistics
from reelserve.loadtest.figures import Scale, all_figures, knee, level_figures, percentile
from reelserve.loadtest.plan import CLOSED, OPEN
from reelserve.loadtest.records import ERROR, OK, REFUSED, RequestRecord, Window
from tests.loadtest.samples import figures, measurement


@pytest.mark.parametrize(("percent", "expected"), [(50, 10), (95, 19), (99, 20), (100, 20), (1, 1)])
def test_percentile_is_the_nearest_rank(percent, expected):
    assert percentile(range(1, 21), percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_percentile_is_a_value_that_so_many_do_not_exceed(values, percent):
    found = percentile(sorted(values), percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


def test_percentile_is_infinite_when_nothing_was_drawn():
    assert percentile([], 95) == math.inf


def window(**changes) -> Window:
    values = {"level": 2, "opened_s": 10.0, "closed_s": 30.0, "mean_in_flight": 2.0}
    return Window(**{**values, "statistics": {}, **changes})


def test_a_closed_loop_counts_what_ended_in_the_window():
    requests = [
        RequestRecord(0, 0.0, 0.0, 10.0, OK),
        RequestRecord(1, 0.0, 0.0, 20.0, OK),
        RequestRecord(2, 10.0, 10.0, 30.0, OK),
        RequestRecord(3, 20.0, 20.0, 31.0, OK),
    ]
    found = level_figures(window(), requests, CLOSED)
    assert (found.clips, found.clips_per_s) == (2, 0.1)
    assert (found.p50_s, found.p95_s, found.mean_s) == (20.0, 20.0, 20.0)
    assert found.law_ratio == pytest.approx(1.0)
    assert found.law_holds


def test_an_open_loop_counts_what_was_due_and_waits_for_its_end():
    requests = [
        RequestRecord(0, 9.0, 9.0, 12.0, OK),
        RequestRecord(1, 10.0, 10.5, 20.0, OK),
        RequestRecord(2, 29.0, 29.0, 49.0, OK),
        RequestRecord(3, 30.0, 30.0, 31.0, OK),
    ]
    found = level_figures(window(), requests, OPEN)
    assert (found.clips, found.p50_s, found.p95_s) == (2, 10.0, 20.0)
    assert found.clips_per_s == pytest.approx(2 / 20), "two ended in the window"


def test_a_late_sender_hides_nothing():
    late = RequestRecord(0, due_s=10.0, sent_s=18.0, ended_s=20.0, outcome=OK)
    assert late.latency_s == 10.0


def test_refusals_and_errors_are_counted_apart():
    outcomes = [OK, OK, OK, REFUSED, ERROR]
    requests = [
        RequestRecord(number, 12.0, 12.0, 15.0 if outcome == OK else 12.0, outcome)
        for number, outcome in enumerate(outcomes)
    ]
    found = level_figures(window(), requests, CLOSED)
    assert (found.clips, found.refused, found.errors) == (3, 1, 1)
    assert (found.error_share, found.refused_share) == (0.2, 0.2)
    assert found.p50_s == 3.0


def test_law_is_broken_when_requests_are_missed():
    requests = [RequestRecord(n, 10.0 * n, 10.0 * n, 10.0 * n + 10, OK) for n in range(3)]
    assert level_figures(window(mean_in_flight=1.0), requests, CLOSED).law_holds
    lost = level_figures(window(mean_in_flight=1.0), requests[:2], CLOSED)
    assert lost.law_ratio == pytest.approx(0.5)
    assert not lost.law_holds


def test_law_is_broken_when_nothing_was_in_flight():
    assert not level_figures(window(mean_in_flight=0.0), [], CLOSED).law_holds


def test_server_times_are_per_clip_in_the_order_of_the_flow():
    counters = {
        "upsampler": StageStatistics(2, 0, 2, compute_s=3.0, queue_s=1.0),
        "denoiser": StageStatistics(16, 0, 8, compute_s=8.0, queue_s=0.5),
        "text_to_video": StageStatistics(2, 0, 2, compute_s=0.1, queue_s=0.0),
    }
    requests = [RequestRecord(n, 10.0, 10.0, 20.0, OK) for n in range(2)]
    found = level_figures(window(statistics=counters), requests, CLOSED).server
    assert list(found) == ["denoiser", "upsampler"]
    assert found["denoiser"].requests == 8
    assert (found["upsampler"].queue_s, found["upsampler"].compute_s) == (0.5, 1.5)


def test_server_times_of_video_diffusion_come_from_the_clips_and_the_denoiser():
    counters = {
        "video_diffusion": StageStatistics(2, 0, 2, compute_s=0.002, queue_s=0.001),
        "denoiser": StageStatistics(16, 0, 8, compute_s=8.0, queue_s=0.5),
    }
    requests = [RequestRecord(n, 10.0, 10.0, 20.0, OK, diffusion_s=5.0 + n) for n in range(2)]
    requests.append(RequestRecord(2, 10.0, 10.0, 20.0, REFUSED))
    found = level_figures(window(statistics=counters), requests, CLOSED).server
    assert (found["video_diffusion"].compute_s, found["video_diffusion"].queue_s) == (4.0, 1.5)


def test_figures_of_a_whole_test():
    one, two = all_figures(measurement(), CLOSED)
    assert (one.clips, one.clips_per_s, one.p95_s) == (4, 0.1, 10.0)
    assert (two.clips, two.clips_per_s, two.p95_s) == (8, 0.125, 16.0)
    assert one.law_ratio == pytest.approx(1.0)
    assert two.law_ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("throughputs", "expected"),
    [
        ((0.10, 0.115, 0.12, 0.12), 2),
        ((0.10, 0.11, 0.12, 0.12), 3),
        ((0.12, 0.12, 0.11, 0.10), 1),
        ((0.1, 0.2, 0.4, 0.8), 4),
        ((0.0, 0.0, 0.0, 0.0), 1),
    ],
)
def test_knee_is_the_last_worthwhile_gain(throughputs, expected):
    levels = [figures(n + 1, clips_per_s=value) for n, value in enumerate(throughputs)]
    assert knee(levels).level == expected


def test_scale_brings_figures_to_10_s_and_one_gpu():
    short = Scale(clip_s=2.0, gpus=0)
    assert short.videos_per_s(1.0) == pytest.approx(0.2)
    assert short.latency_s(3.0) == pytest.approx(15.0)
    assert short.per == "machine (CPU)"
    eight = Scale(clip_s=10.0, gpus=8)
    assert eight.videos_per_s(1.0) == pytest.approx(1 / 8)
    assert eight.latency_s(3.0) == 3.0
    assert eight.per == "GPU"
