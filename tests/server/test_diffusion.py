import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from reelserve.server.diffusion import (
    ClipTable,
    clip_from_inputs,
    denoise_step,
    denoise_step_apart,
)
from reelserve.server.errors import StageError, UnavailableError
from tests.server.tiny_repository import SPEC


def inputs(
    seed: int = 1, guidance_scale: float = 2.0, num_frames: int = 16, steps: int = 2, rank: int = 0
):
    def one(value, dtype):
        return np.array([[value]], dtype)

    return {
        "PROMPT_EMBEDS": np.arange(2 * 16 * 12, dtype=np.float32).reshape(1, 2, 16, 12),
        "ATTENTION_MASK": np.ones((1, 2, 16), np.int64),
        "SEED": one(seed, np.int64),
        "NUM_INFERENCE_STEPS": one(steps, np.int32),
        "GUIDANCE_SCALE": one(guidance_scale, np.float32),
        "NUM_FRAMES": one(num_frames, np.int32),
        "HEIGHT": one(64, np.int32),
        "WIDTH": one(64, np.int32),
        "PRIORITY_RANK": one(rank, np.int32),
    }


def clip(**changes):
    return clip_from_inputs(inputs(**changes), SPEC)


class Denoiser:
    """Velocity is the latents; remembers the shapes and fails on seeds it is told."""

    def __init__(self, poison: np.ndarray | None = None) -> None:
        self.batches: list[tuple[int, ...]] = []
        self.poison = poison

    def __call__(self, arrays):
        latents = arrays["LATENTS"]
        self.batches.append(latents.shape)
        assert arrays["TIMESTEP"].shape == (len(latents), 1)
        assert arrays["PROMPT_EMBEDS"].shape == (len(latents), 16, 12)
        assert arrays["ATTENTION_MASK"].shape == (len(latents), 16)
        if self.poison is not None and any((row == self.poison).all() for row in latents):
            raise StageError("denoiser: out of memory")
        return {"VELOCITY": latents}


def test_denoise_step_asks_for_all_clips_of_a_shape_at_once():
    denoiser = Denoiser()
    clips = [clip(seed=1), clip(seed=2, guidance_scale=1.0), clip(seed=3, num_frames=20)]

    assert denoise_step(clips, denoiser, 16) == [None, None, None]
    # Guided and plain clips share a batch; another number of frames does not.
    assert denoiser.batches == [(3, 16, 4, 2, 2), (2, 16, 5, 2, 2)]


def test_denoise_step_splits_what_is_more_than_the_denoiser_takes():
    denoiser = Denoiser()
    denoise_step([clip(seed=seed) for seed in range(5)], denoiser, 4)

    assert [shape[0] for shape in denoiser.batches] == [4, 4, 2]


def test_denoise_step_fails_one_clip_when_only_its_rows_cannot_be_computed():
    clips = [clip(seed=1), clip(seed=2), clip(seed=3)]
    failures = denoise_step(clips, Denoiser(poison=clips[1].sampler.latents), 16)

    assert [str(failure) for failure in failures] == ["None", "denoiser: out of memory", "None"]


def test_denoise_step_fails_one_clip_when_the_velocity_has_another_shape():
    (failure,) = denoise_step([clip()], lambda arrays: {"VELOCITY": np.zeros((2, 3, 4))}, 16)

    assert isinstance(failure, ValueError)


def test_denoise_step_gives_the_same_latents_alone_and_together():
    together = [clip(seed=seed, steps=3) for seed in range(3)]
    alone = [clip(seed=seed, steps=3) for seed in range(3)]
    for _ in range(3):
        denoise_step(together, Denoiser(), 16)
        for one in alone:
            denoise_step([one], Denoiser(), 16)

    assert all(one.sampler.done for one in together)
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.sampler.latents, other.sampler.latents)


def test_denoise_step_apart_calls_for_every_clip_at_the_same_time():
    clips = [clip(seed=seed) for seed in range(3)]
    together = threading.Barrier(3, timeout=30)

    def denoise(arrays):
        together.wait()
        assert len(arrays["LATENTS"]) == 2
        if (arrays["LATENTS"][0] == clips[1].sampler.latents).all():
            raise StageError("denoiser: out of memory")
        return {"VELOCITY": arrays["LATENTS"]}

    with ThreadPoolExecutor(3) as pool:
        failures = denoise_step_apart(clips, denoise, 16, pool)

    assert [str(failure) for failure in failures] == ["None", "denoiser: out of memory", "None"]
    assert [one.sampler.step for one in clips] == [1, 0, 1]


def test_clip_from_inputs_refuses_when_a_request_has_two_rows():
    with pytest.raises(ValueError, match="SEED holds 2 rows; the limit is 1"):
        clip_from_inputs({**inputs(), "SEED": np.ones((2, 1), np.int64)}, SPEC)


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
    table = ClipTable(max_active=1, max_in_flight=1, max_idle_s=0.0)
    table.admit("a", clip)
    time.sleep(0.01)
    table.admit("b", clip)

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
