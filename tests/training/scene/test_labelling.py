import numpy as np

from reelserve.training.scene.labelling import draw_labels
from reelserve.training.scene.scenes import NATURAL, sample_scenes
from reelserve.training.scene.vocabulary import (
    MAX_OBJECTS,
    SHAPES,
    SOME_OBJECT,
    UNSAID,
    motions_meant,
    object_attributes,
    thing_names,
)


def labelled(count=3000):
    scenes = sample_scenes(count, np.random.default_rng(1), held_out_only=None)
    return scenes, draw_labels(scenes, np.random.default_rng(2))


def test_draw_labels_puts_every_object_into_a_row_and_the_rest_after_them():
    scenes, labels = labelled()
    there = labels.objects[..., 0].numpy() != UNSAID
    assert (there.sum(1) == scenes.count).all()
    assert (there == (np.arange(MAX_OBJECTS)[None] < scenes.count[:, None])).all()
    assert (labels.objects.numpy()[~there] == UNSAID).all()


def test_draw_labels_says_nothing_false():
    scenes, labels = labelled(400)
    values = object_attributes()
    motions = values["motion"]
    for scene in range(len(scenes)):
        shown = [
            (
                thing_names()[scenes.thing[scene, which]],
                int(scenes.colour[scene, which]),
                int(scenes.size[scene, which]),
                int(scenes.motion[scene, which]),
                int(scenes.speed[scene, which]),
                int(scenes.place[scene, which]),
            )
            for which in range(scenes.count[scene])
        ]
        for row in labels.objects[scene].tolist()[: scenes.count[scene]]:
            assert any(_fits(row, one, values["thing"], motions) for one in shown)


def _fits(row, shown, things, motions):
    from reelserve.training.scene.vocabulary import MOTIONS

    thing, colour, size, motion, speed, place = row
    return (
        (thing == SOME_OBJECT or things[thing] == shown[0])
        and colour in (UNSAID, shown[1] + 1)
        and size in (UNSAID, shown[2] + 1)
        and (motion == UNSAID or MOTIONS[shown[3]] in motions_meant(motions[motion]))
        and speed in (UNSAID, shown[4])
        and place in (UNSAID, shown[5])
    )


def test_a_tint_is_always_named_and_a_natural_colour_never():
    scenes, labels = labelled()
    natural = (scenes.colour == NATURAL) & (np.arange(MAX_OBJECTS)[None] < scenes.count[:, None])
    tinted = ~natural & (scenes.thing >= len(SHAPES))
    tinted &= np.arange(MAX_OBJECTS)[None] < scenes.count[:, None]
    named = (labels.objects[..., 1] != UNSAID).sum(1).numpy()
    things = labels.objects[..., 0].numpy() > len(SHAPES) + SOME_OBJECT
    said = (labels.objects[..., 1].numpy() != UNSAID) & things
    assert (named <= (scenes.count - natural.sum(1))).all()
    # But for the few things whose name is not said, every tint is.
    assert said.sum() > 0.9 * tinted.sum()


def test_what_is_usual_is_often_unsaid():
    scenes, labels = labelled()
    said = labels.scene.numpy() != UNSAID
    assert 0.4 < said[scenes.setting == 0, 0].mean() < 0.95
    assert said[scenes.weather == 0, 1].mean() < 0.4
    assert said[scenes.weather > 0, 1].mean() > 0.8
