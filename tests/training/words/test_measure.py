import torch

from reelserve.training.scene.labels import Labels
from reelserve.training.scene.vocabulary import SCENE_ATTRIBUTES, object_attributes
from reelserve.training.words.labels import CaptionPlan, Group, label_plans
from reelserve.training.words.measure import (
    agrees,
    all_right,
    check_hand_written,
    hand_written_sentences,
    invented,
    measure_reading,
    most_likely,
    readable,
)

SPECIMENS = (
    "a yellow star moves to the right over a blue background",
    "a green ball falls from the top",
    "a pink heart fades away",
    "a cat jumps over the moon",
    "ein großer gelber Stern dreht sich",
    "two rabbits hop through a meadow at sunset",
)


def test_hand_written_names_what_the_vocabulary_has():
    sentences = hand_written_sentences()
    assert len(sentences) == len({sentence["text"] for sentence in sentences}) == 200
    assert check_hand_written(sentences) == []
    assert set(SPECIMENS) <= {sentence["text"] for sentence in sentences}


def test_all_right_asks_for_what_is_said_alone():
    wanted = label_plans([CaptionPlan((Group("cat", colour="red"),))] * 3)
    found = label_plans(
        [
            CaptionPlan((Group("cat", colour="red", size="large"),), weather="rain"),
            CaptionPlan((Group("cat", colour="blue"),)),
            CaptionPlan((Group("cat", colour="red"), Group("dog"))),
        ]
    )
    assert all_right(found, wanted).tolist() == [True, False, False]
    assert invented(found, wanted).tolist() == [True, False, True]


def test_agrees_takes_objects_in_any_order_and_any_accepted_value():
    plan = CaptionPlan((Group("dog", motion="hop left"), Group("moon")), weather="night")
    found = readable(label_plans([plan]), 0)
    wanted = {
        "objects": [{"thing": ["star", "moon"]}, {"thing": "dog", "motion": "hop"}],
        "scene": {"weather": "night"},
    }
    assert agrees(found, wanted)
    assert not agrees(found, {**wanted, "scene": {"setting": "sea"}})
    assert not agrees(found, {**wanted, "objects": wanted["objects"][:1]})


def test_most_likely_is_what_one_hot_rows_say():
    labels = label_plans(
        [CaptionPlan((Group("owl", motion="sway"),), setting="forest"), CaptionPlan()]
    )
    rows = labels.rows()
    sizes = sum(len(values) for values in object_attributes().values())
    found = most_likely(rows[:, :3, :sizes], rows[:, 3, sizes:])
    assert torch.equal(found.objects, labels.objects)
    assert torch.equal(found.scene, labels.scene)
    assert rows.shape[-1] == sizes + sum(len(values) for values in SCENE_ATTRIBUTES.values())


def test_measure_reading_gives_nothing_to_a_reader_that_sees_nothing():
    def read(texts) -> Labels:
        return label_plans([CaptionPlan()] * len(texts))

    scores, wrong = measure_reading(read, 20)
    assert scores["held_out"] == 0
    assert len(wrong) > 150
    assert wrong[0]["found"] == {"objects": [], "scene": {}}
