import pytest

from tests.server.clips import clip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": -1}, "SEED is -1"),
        ({"steps": 1001}, "NUM_INFERENCE_STEPS is 1001; the limits are 1 to 1000"),
        ({"num_frames": 17}, "NUM_FRAMES is 17; it must be a multiple of 4"),
        ({"guidance_scale": float("nan")}, "GUIDANCE_SCALE is nan"),
    ],
    ids=str,
)
def test_clip_from_inputs_refuses_when_a_field_is_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        clip(**changes)
