import threading

import numpy as np
import pytest

from reelserve.server.errors import StageError
from reelserve.server.steps import FreeSteps, JoinedSteps, denoise_step
from tests.server.clips import clip

LONG_S = 30.0


class Listener:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def step(self, clips, seconds):
        assert seconds >= 0
        self.steps.append(clips)


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


def test_joined_steps_take_all_clips_together():
    listener, clips = Listener(), {seed: clip(seed=seed) for seed in (1, 2)}
    denoiser = Denoiser(poison=clips[2].sampler.latents)
    outcomes = JoinedSteps(denoiser, 16, listener).take(clips, set(clips))

    assert [str(outcomes[seed]) for seed in (1, 2)] == ["None", "denoiser: out of memory"]
    assert denoiser.batches[0][0] == 4 and listener.steps == [2]
    assert JoinedSteps(denoiser, 16, listener).take({}, {3}) == {}


class Gate:
    """A denoiser that holds the clips of some seeds until they are let through."""

    def __init__(self, *clips) -> None:
        self._held = [one.sampler.latents for one in clips]
        self.open = threading.Event()

    def __call__(self, arrays):
        latents = arrays["LATENTS"]
        if any((latents[0] == held).all() for held in self._held):
            assert self.open.wait(LONG_S)
        return {"VELOCITY": latents}


@pytest.fixture
def free():
    made = []

    def make(denoise, max_active=2):
        made.append(FreeSteps(denoise, 16, Listener(), max_active))
        return made[-1]

    yield make
    for steps in made:
        steps._pool.shutdown()


def test_free_steps_do_not_wait_for_the_slowest_clip(free):
    slow, quick = clip(seed=1), clip(seed=2, steps=3)
    gate = Gate(slow)
    steps, turn = free(gate), {"slow": slow, "quick": quick}
    for _ in range(3):
        assert steps.take(turn, set(turn)) == {"quick": None}
    assert quick.sampler.done and slow.sampler.step == 0
    steps.forget("quick")
    gate.open.set()

    assert steps.take({"slow": slow}, {"slow"}) == {"slow": None}
    assert slow.sampler.step == 1
    assert steps._listener.steps == [1] * 4


def test_free_steps_fail_one_clip_alone(free):
    clips = {seed: clip(seed=seed) for seed in (1, 2)}
    steps = free(Denoiser(poison=clips[2].sampler.latents))
    outcomes = {}
    while len(outcomes) < 2:
        outcomes |= steps.take({k: v for k, v in clips.items() if k not in outcomes}, set(clips))

    assert isinstance(outcomes[2], StageError) and outcomes[1] is None


def test_free_steps_keep_an_outcome_for_the_request_that_is_not_here(free):
    first, second = clip(seed=1), clip(seed=2)
    gate = Gate(second)
    steps = free(gate)
    # Both take a step; Triton hands out the second one only, whose step goes on.
    assert steps.take({"first": first, "second": second}, {"second"}) == {}
    assert steps.take({"second": second}, {"second"}) == {}
    assert steps.take({"first": first}, {"first"}) == {"first": None}
    assert first.sampler.step == 1
    gate.open.set()

    assert steps.take({"second": second}, {"second"}) == {"second": None}


def test_free_steps_do_not_step_a_clip_twice_that_has_lost_its_turn(free):
    first, second = clip(seed=1), clip(seed=2)
    gate = Gate(first)
    steps = free(gate)
    assert steps.take({"first": first, "second": second}, {"first", "second"}) == {"second": None}
    gate.open.set()
    assert steps.take({}, {"first", "second"}) == {"first": None}

    assert (first.sampler.step, second.sampler.step) == (1, 1)


def test_free_steps_forget_a_clip_whose_request_is_answered(free):
    gone, other = clip(seed=1), clip(seed=2, steps=2)
    gate = Gate(gone)
    steps = free(gate)
    assert steps.take({"gone": gone, "other": other}, {"gone", "other"}) == {"other": None}
    steps.forget("gone")
    assert steps.take({"other": other}, {"other"}) == {"other": None}
    gate.open.set()

    assert steps.take({}, {"waiting"}) == {}


def test_free_steps_do_not_begin_the_step_of_a_clip_that_has_left(free):
    held, queued = clip(seed=1), clip(seed=2)
    gate = Gate(held)
    steps = free(gate, max_active=1)
    # An ended step whose request is not here: calls return though the others' steps go on.
    assert steps.take({"absent": clip(seed=3)}, {"other"}) == {}
    assert steps.take({"held": held, "queued": queued}, {"held", "queued"}) == {}
    steps.forget("queued")
    gate.open.set()
    outcomes = {}
    while not outcomes:
        outcomes = steps.take({}, {"held"})
    assert outcomes == {"held": None}
    steps._pool.shutdown()
    assert (held.sampler.step, queued.sampler.step) == (1, 0)
