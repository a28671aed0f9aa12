import numpy as np
import torch

from reelserve.training.recogniser import (
    Recogniser,
    RecogniserConfig,
    SceneReading,
    join_readings,
    object_sections,
)
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import sample_scenes
from reelserve.training.scene.vocabulary import thing_names
from reelserve.training.train_recogniser import (
    assignment_costs,
    best_assignment,
    disturb,
    frame_loss,
    reading_loss,
    targets,
)

SMALL = RecogniserConfig((8, 8, 16, 16), 32, 1, len(thing_names()))


def small_recogniser() -> Recogniser:
    torch.manual_seed(0)
    return Recogniser(SMALL)


def test_reading_loss_falls_in_a_few_steps_on_one_batch():
    module = small_recogniser()
    optimizer = torch.optim.AdamW(module.parameters(), lr=3e-3)
    scenes = sample_scenes(2, np.random.default_rng(0), held_out_only=None, num_objects=2)
    frames, _ = render(scenes, frames=2)
    losses = []
    for _ in range(6):
        reading = module(disturb(frames))
        assert {name: logits.shape for name, logits in reading.objects.items()} == {
            name: (2, 3, size) for name, size in object_sections().items()
        }
        loss = reading_loss(reading, targets(scenes, "cpu"))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_best_assignment_finds_the_query_of_every_object():
    scenes = sample_scenes(4, np.random.default_rng(2), held_out_only=None, num_objects=3)
    wanted = targets(scenes, "cpu")
    objects = {
        name: torch.nn.functional.one_hot(wanted[name].clamp(min=0), size).float() * 9
        for name, size in object_sections().items()
    }
    order = [2, 0, 1]
    shuffled = SceneReading({name: logits[:, order] for name, logits in objects.items()}, {})
    cost, queries = best_assignment(assignment_costs(shuffled, wanted, *objects))
    assert cost.max() < 1.0
    found = shuffled.objects["thing"].argmax(-1).gather(1, queries)
    assert torch.equal(found, wanted["thing"])


def test_nothing_is_asked_of_what_is_not_there():
    scenes = sample_scenes(6, np.random.default_rng(3), held_out_only=None, num_objects=1)
    wanted = targets(scenes, "cpu")
    assert (wanted["thing"][:, 1:] == 0).all()
    assert (wanted["motion"][:, 1:] == -1).all()
    assert (wanted["thing"][:, 0] == torch.from_numpy(scenes.thing[:, 0] + 1)).all()


def test_frame_loss_ignores_clips_whose_objects_are_not_always_seen():
    scenes = sample_scenes(5, np.random.default_rng(4), held_out_only=None, num_objects=1)
    scenes.motion[:] = 0
    frames, _ = render(scenes, frames=1)
    reading, wanted = small_recogniser()(frames), targets(scenes, "cpu")
    assert frame_loss(reading, wanted, scenes) > 0
    scenes.motion[:] = -1
    assert frame_loss(reading, wanted, scenes) == 0


def test_join_readings_keeps_the_order():
    module = small_recogniser()
    frames = torch.rand(3, 3, 2, 128, 128)
    whole = module(frames)
    joined = join_readings([module(frames[:1]), module(frames[1:])])
    for name, logits in whole.objects.items():
        torch.testing.assert_close(joined.objects[name], logits, rtol=0, atol=1e-4)
    for name, logits in whole.scene.items():
        torch.testing.assert_close(joined.scene[name], logits, rtol=0, atol=1e-4)
