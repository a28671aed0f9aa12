from __future__ import annotations

import pytest

from reelserve.loadtest.plan import (
    MAX_CALLERS,
    OPEN,
    PROMPTS_FILE,
    Plan,
    check_levels,
    read_prompts,
    request_name,
)
from tests.loadtest.samples import INFO, plan


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ((), "concurrency holds 0 values; it must hold at least 1"),
        ((0,), "concurrency is 0; the limits are above 0 and at most 1000"),
        ((1, float("nan")), "concurrency is 1,nan; the limits"),
        ((1, 2000), "concurrency is 1,2000; the limits"),
        ((4, 2), "concurrency is 4,2; each value must be larger"),
        ((2, 2), "concurrency is 2,2; each value must be larger"),
    ],
)
def test_check_levels_raises_when_levels_are_wrong(levels, message):
    with pytest.raises(ValueError) as caught:
        check_levels("concurrency", levels, MAX_CALLERS)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loop": "half"}, "loop is 'half'; it must be one of closed, open"),
        ({"prompts": ()}, "prompts holds 0 sentences"),
        ({"loop": OPEN, "levels": (101.0,)}, "rates is 101; the limits"),
    ],
)
def test_plan_raises_when_a_value_is_out_of_range(changes, message):
    with pytest.raises(ValueError) as caught:
        plan(**changes)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("callers", "clips", "rounds", "expected"),
    [(1, 8, 3, 8), (2, 8, 3, 8), (3, 8, 2, 9), (4, 8, 3, 12), (8, 1, 1, 8)],
)
def test_measured_clips_are_whole_rounds(callers, clips, rounds, expected):
    assert plan(clips=clips, rounds=rounds).measured_clips(callers) == expected


def test_warm_up_is_at_least_a_round_of_a_closed_loop():
    assert [plan(warm_up_clips=5).warm_up_count(callers) for callers in (1, 2, 8)] == [5, 6, 8]
    assert plan(loop=OPEN, warm_up_clips=0).warm_up_count(0.5) == 0


def test_window_of_an_open_loop_holds_the_clips_that_are_wanted():
    assert plan(loop=OPEN, clips=20, level_s=30.0).window_s(0.5) == 40.0
    assert plan(loop=OPEN, clips=20, level_s=30.0).window_s(4.0) == 30.0


def test_plan_survives_json():
    sent = plan(request={"num_frames": 16}, ramp_s=2.5)
    assert Plan.from_json(sent.to_json()) == sent


def test_request_name_holds_the_shape():
    assert request_name("text_to_video", INFO) == "text_to_video 256x256 80f 8 steps"


def test_bundled_prompts_are_varied():
    prompts = read_prompts(PROMPTS_FILE)
    assert len(prompts) == len(set(prompts)) == 200
    assert max(map(len, prompts)) < 120


def test_read_prompts_leaves_out_blank_lines(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n a red circle \n\nein blauer Stern ★\n", encoding="utf-8")
    assert read_prompts(file) == ("a red circle", "ein blauer Stern ★")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "holds 0 sentences"), (b"a\xff", "holds the byte 0xff at position 1")],
)
def test_read_prompts_raises_when_there_is_no_text(tmp_path, content, message):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_prompts(file)
