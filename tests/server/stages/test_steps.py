import threading
import time

import numpy as np
import pytest

from reelserve.server.errors import ClipCancelledError, StageError, StageUnavailableError
from reelserve.server.stages.steps import DenoisingLoop, LoopSettings, denoise_step
from tests.server.clips import clip

LONG_S = 30.0


class Observer:
    def __init__(self) -> None:
        self.steps: list[int] = []
        self.holds: list[tuple[int, int]] = []

    def step(self, clips, seconds):
        assert seconds >= 0
        self.steps.append(clips)

    def held(self, active, count):
        self.holds.append((active, count))


class Waiter:
    """Who waits for one clip."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.left = False
        self.ended = threading.Event()
        self.latents = self.error = None
        self.answers = 0

    def cancelled(self):
        return self.left

    def stepped(self, clip, began):
        self.steps.append(clip.sampler.step)

    def finish(self, outputs):
        self.latents = outputs["LATENTS"]
        self._end()

    def fail(self, error):
        self.error = error
        self._end()

    def _end(self):
        self.answers += 1
        self.ended.set()

    def wait(self):
        assert self.ended.wait(LONG_S), "it was not answered"
        assert self.answers == 1
        return self


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


class Gate:
    """A denoiser whose steps wait until a test lets them begin, one by one or all."""

    def __init__(self) -> None:
        self.began: list[np.ndarray] = []
        self._permits = threading.Semaphore(0)
        self.poison: list[np.ndarray] = []

    def __call__(self, arrays):
        latents = arrays["LATENTS"]
        self.began.append(latents)
        assert self._permits.acquire(timeout=LONG_S)
        if any((row == one).all() for one in self.poison for row in latents):
            raise StageError("denoiser: out of memory")
        return {"VELOCITY": latents}

    def let(self, steps=1000):
        self._permits.release(steps)

    def wait_began(self, count):
        deadline = time.monotonic() + LONG_S
        while len(self.began) < count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


class Loop:
    """A loop and its clips."""

    def __init__(self, denoise, *, join=True, max_active=2, max_in_flight=10, max_rows=16):
        self.observer = Observer()
        settings = LoopSettings(max_active, max_in_flight, max_rows, join)
        self.loop = DenoisingLoop(denoise, settings, self.observer)

    def admit(self, make=clip, **changes):
        waiter = Waiter()
        self.loop.admit(lambda: make(**changes), waiter)
        return waiter


@pytest.fixture
def start():
    made = []

    def make(denoise, **options):
        made.append((Loop(denoise, **options), denoise))
        return made[-1][0]

    yield make
    for loop, denoise in made:
        if isinstance(denoise, Gate):
            denoise.let()
        loop.loop.close()


def alone(**changes):
    """Latents of a clip by itself."""
    one = clip(**changes)
    while not one.sampler.done:
        denoise_step([one], Denoiser(), 16)
    return one.outputs()["LATENTS"]


@pytest.mark.parametrize("join", [True, False], ids=["joined", "free"])
def test_loop_gives_the_latents_of_each_clip(start, join):
    loop = start(Denoiser(), join=join)
    requests = [{"seed": seed, "steps": 2 + seed} for seed in range(5)]
    waiters = [loop.admit(**request) for request in requests]

    for waiter, request in zip(waiters, requests, strict=True):
        waiter.wait()
        assert waiter.error is None and waiter.steps == list(range(1, request["steps"] + 1))
        np.testing.assert_array_equal(waiter.latents, alone(**request))
    assert loop.observer.holds[-1] == (0, 0)
    assert max(active for active, _ in loop.observer.holds) <= 2


def test_joined_clips_take_their_steps_together(start):
    gate = Gate()
    loop = start(gate)
    first = loop.admit(seed=1, steps=3)
    gate.wait_began(1)
    second = loop.admit(seed=2, steps=3)
    assert len(gate.began) == 1, "a joined step waits for the one before it"
    gate.let()
    first.wait()
    second.wait()

    # Two rows a clip, for its two prompts.
    assert [len(latents) for latents in gate.began] == [2, 4, 4, 2]
    assert loop.observer.steps == [1, 2, 2, 1]


def test_free_clips_do_not_wait_for_the_slowest_one(start):
    slow_latents = clip(seed=1).sampler.latents
    released = threading.Event()

    def denoise(arrays):
        if (arrays["LATENTS"][0] == slow_latents).all():
            assert released.wait(LONG_S)
        return {"VELOCITY": arrays["LATENTS"]}

    loop = start(denoise, join=False)
    slow, quick = loop.admit(seed=1), loop.admit(seed=2, steps=3)
    quick.wait()
    assert quick.latents is not None and not slow.ended.is_set()
    released.set()

    assert slow.wait().latents is not None
    assert loop.observer.steps == [1] * 5


@pytest.mark.parametrize("join", [True, False], ids=["joined", "free"])
def test_a_clip_that_nobody_waits_for_leaves_between_two_steps(start, join):
    gate = Gate()
    loop = start(gate, join=join)
    leaving, staying = loop.admit(seed=1, steps=50), loop.admit(seed=2, steps=2)
    gate.wait_began(1 if join else 2)
    leaving.left = True
    gate.let()
    leaving.wait()
    staying.wait()

    assert isinstance(leaving.error, ClipCancelledError)
    assert len(leaving.steps) <= 1 and staying.latents is not None


def test_a_clip_that_waits_for_its_turn_can_leave(start):
    gate = Gate()
    loop = start(gate, max_active=1)
    active, waiting = loop.admit(seed=1, steps=2), loop.admit(seed=2, steps=2)
    gate.wait_began(1)
    waiting.left = True
    gate.let(1)

    assert isinstance(waiting.wait().error, ClipCancelledError) and waiting.steps == []
    gate.let()
    assert active.wait().latents is not None


@pytest.mark.parametrize("join", [True, False], ids=["joined", "free"])
def test_one_clip_fails_alone(start, join):
    gate = Gate()
    gate.poison.append(clip(seed=2).sampler.latents)
    loop = start(gate, join=join, max_active=3)
    waiters = [loop.admit(seed=seed) for seed in (1, 2, 3)]
    gate.let()
    for waiter in waiters:
        waiter.wait()

    assert isinstance(waiters[1].error, StageError) and waiters[1].steps == []
    assert waiters[0].latents is not None and waiters[2].latents is not None


@pytest.mark.parametrize("join", [True, False], ids=["joined", "free"])
def test_a_mistake_in_a_step_leaves_nobody_waiting(start, join):
    def broken(**changes):
        one = clip(**changes)
        one.denoiser_inputs = lambda: 1 / 0
        return one

    loop = start(Denoiser(), join=join, max_active=1)
    assert isinstance(loop.admit(broken).wait().error, ZeroDivisionError)
    assert loop.admit(seed=1).wait().latents is not None, "the loop goes on"
    assert loop.observer.holds[-1] == (0, 0)


def test_loop_refuses_when_full_and_takes_the_next_when_one_has_ended(start):
    gate = Gate()
    loop = start(gate, max_in_flight=2)
    first, _ = loop.admit(seed=1), loop.admit(seed=2)
    with pytest.raises(
        StageUnavailableError, match="2 requests are in flight, as many as the limit"
    ):
        loop.admit(seed=3)
    gate.let()
    first.wait()

    assert loop.admit(seed=3).wait().latents is not None


def test_loop_keeps_nothing_of_a_clip_that_cannot_be_made(start):
    loop = start(Denoiser(), max_in_flight=1)
    with pytest.raises(ValueError, match="SEED is -1"):
        loop.admit(seed=-1)

    assert loop.admit(seed=1).wait().latents is not None


def seeds_of(latents, clips):
    """Seeds of the clips whose first step this is."""
    return {seed for seed, noise in clips.items() if (latents[0] == noise).all()}


def test_loop_takes_as_many_as_it_may_oldest_first(start):
    gate = Gate()
    loop = start(gate, join=False, max_active=2)
    waiters = [loop.admit(seed=seed, steps=1) for seed in range(4)]
    gate.wait_began(2)
    assert loop.observer.holds[-1] == (2, 4)
    gate.let()
    for waiter in waiters:
        waiter.wait()

    noise = {seed: clip(seed=seed).sampler.latents for seed in range(4)}
    assert set.union(*(seeds_of(one, noise) for one in gate.began[:2])) == {0, 1}


def begun(start, ranks, max_active):
    """Numbers of the clips that take the second joined step, when all are there."""
    gate = Gate()
    loop = start(gate, max_active=max_active)
    waiters = [loop.admit(seed=100, steps=1)]
    gate.wait_began(1)
    waiters += [loop.admit(seed=seed, steps=1, rank=rank) for seed, rank in enumerate(ranks)]
    gate.let(1)
    gate.wait_began(2)
    gate.let()
    for waiter in waiters:
        waiter.wait()
    noise = {seed: clip(seed=seed).sampler.latents for seed in range(len(ranks))}
    rows = gate.began[1]
    return {s for s, one in noise.items() if any((row == one).all() for row in rows)}


def test_interactive_clips_pass_the_others_and_leave_them_a_place(start):
    batch = [1, 1, 1, 1]
    assert begun(start, batch, 3) == {0, 1, 2}
    assert begun(start, [*batch, 0, 0, 0], 3) == {0, 4, 5}
    assert begun(start, [0, 0, 0, 0], 3) == {0, 1, 2}, "there is nobody to leave it to"


def test_interactive_clips_come_first_where_there_is_one_place(start):
    assert begun(start, [1, 0], 1) == {1}


@pytest.mark.parametrize("join", [True, False], ids=["joined", "free"])
def test_close_answers_everybody_and_takes_no_more(start, join):
    gate = Gate()
    loop = start(gate, join=join, max_active=1)
    stepping, waiting = loop.admit(seed=1, steps=50), loop.admit(seed=2)
    gate.wait_began(1)
    closing = threading.Thread(target=loop.loop.close)
    closing.start()
    assert isinstance(waiting.wait().error, StageUnavailableError)
    assert not stepping.ended.is_set(), "its step is waited for"
    gate.let()
    closing.join(LONG_S)

    assert not closing.is_alive()
    assert str(stepping.wait().error) == "the server is shutting down" and stepping.steps == [1]
    with pytest.raises(StageUnavailableError, match="shutting down"):
        loop.admit(seed=3)


def test_close_hands_over_what_the_last_step_has_finished(start):
    gate = Gate()
    loop = start(gate)
    waiter = loop.admit(seed=1, steps=1)
    gate.wait_began(1)
    closing = threading.Thread(target=loop.loop.close)
    closing.start()
    gate.let()
    closing.join(LONG_S)

    np.testing.assert_array_equal(waiter.wait().latents, alone(seed=1, steps=1))
