import time

import numpy as np
import pytest

from reelserve.server.diffusion import ClipTable, clip_from_inputs
from reelserve.server.errors import StageError, UnavailableError
from tests.server.clips import clip, diffusion_inputs
from tests.server.tiny_repository import SPEC


def test_clip_from_inputs_refuses_when_a_request_has_two_rows():
    with pytest.raises(ValueError, match="SEED holds 2 rows; the limit is 1"):
        clip_from_inputs({**diffusion_inputs(), "SEED": np.ones((2, 1), np.int64)}, SPEC)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "SEED is -1"),
        ({"steps": 51}, "NUM_INFERENCE_STEPS is 51; the limits are 1 to 50"),
        ({"num_frames": 17}, "NUM_FRAMES is 17; it must be a multiple of 4"),
        ({"guidance_scale": float("nan")}, "GUIDANCE_SCALE is nan"),
    ],
    ids=str,
)
def test_clip_from_inputs_refuses_when_a_field_is_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        clip(**changes)


def test_clip_table_refuses_when_full():
    table = ClipTable(max_active=1, max_in_flight=2, max_idle_s=60)
    table.admit("a", clip)
    table.admit("b", clip)
    with pytest.raises(UnavailableError, match="2 requests are in flight; the limit is 2"):
        table.admit("c", clip)
    table.drop("a")
    table.admit("c", clip)

    assert len(table) == 2


def test_clip_table_gives_turns_to_the_oldest():
    table = ClipTable(max_active=2, max_in_flight=4, max_idle_s=60)
    for key in "abc":
        table.admit(key, clip)

    assert table.active() == {"a", "b"}
    table.drop("a")
    assert table.active() == {"b", "c"}


def test_clip_table_keeps_nothing_when_a_clip_cannot_be_made():
    table = ClipTable(max_active=1, max_in_flight=1, max_idle_s=60)
    with pytest.raises(ValueError, match="SEED"):
        table.admit("a", lambda: clip(seed=-1))

    assert len(table) == 0


def test_clip_table_forgets_requests_that_are_not_scheduled_any_more():
    dropped = []
    table = ClipTable(max_active=1, max_in_flight=1, max_idle_s=0.0, on_drop=dropped.append)
    table.admit("a", clip)
    time.sleep(0.01)
    table.admit("b", clip)
    assert dropped == ["a"]

    with pytest.raises(StageError, match="does not hold"):
        table.find("a")


def test_clip_table_lets_interactive_clips_pass_and_keeps_a_place_for_the_others():
    table = ClipTable(max_active=3, max_in_flight=10, max_idle_s=60)
    for number in range(4):
        table.admit(f"batch{number}", lambda: clip(rank=1))
    assert table.active() == {"batch0", "batch1", "batch2"}

    for number in range(3):
        table.admit(f"interactive{number}", clip)
    assert table.active() == {"interactive0", "interactive1", "batch0"}

    for number in range(4):
        table.drop(f"batch{number}")
    assert table.active() == {"interactive0", "interactive1", "interactive2"}


def test_clip_table_serves_interactive_clips_first_when_there_is_one_place():
    table = ClipTable(max_active=1, max_in_flight=10, max_idle_s=60)
    table.admit("batch", lambda: clip(rank=1))
    table.admit("interactive", clip)

    assert table.active() == {"interactive"}
