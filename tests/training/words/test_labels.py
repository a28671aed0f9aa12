from collections import Counter
from random import Random

from reelserve.training.scene.vocabulary import MAX_OBJECTS, SCENE_ATTRIBUTES, object_attributes
from reelserve.training.words.labels import CaptionPlan, Group, draw_plan, label_plans


def values(labels, row, number):
    attributes = object_attributes()
    found = labels.objects[row, number].tolist()
    return {name: attributes[name][value] for name, value in zip(attributes, found, strict=True)}


def test_label_plans_gives_a_row_to_each_object():
    plan = CaptionPlan((Group("rabbit", 2, motion="hop"), Group("sun")), setting="meadow")
    labels = label_plans([plan])
    for number in (0, 1):
        row = values(labels, 0, number)
        assert (row["thing"], row["motion"], row["colour"]) == ("rabbit", "hop", "")
    assert values(labels, 0, 2)["thing"] == "sun"
    assert SCENE_ATTRIBUTES["setting"][labels.scene[0, 0]] == "meadow"


def test_draw_plan_never_has_too_many_objects():
    rng = Random(0)
    for _ in range(2000):
        plan = draw_plan(rng)
        assert sum(group.count for group in plan.groups) <= MAX_OBJECTS


def test_draw_plan_gives_roles_to_both_of_a_chase():
    rng = Random(1)
    chases = [plan for plan in (draw_plan(rng) for _ in range(5000)) if plan.relation == "chase"]
    assert chases
    for plan in chases:
        assert [group.motion for group in plan.groups[:2]] == ["chase", "flee"]


def test_draw_plan_leaves_most_unsaid():
    rng = Random(2)
    labels = label_plans([draw_plan(rng) for _ in range(2000)])
    first = labels.objects[:, 0]
    said = (first[:, 1:] != 0).float().mean(0)
    assert (said < 0.75).all()
    assert (said > 0.03).all()
    counts = Counter((labels.objects[..., 0] > 0).sum(1).tolist())
    assert counts[1] > counts[2] > counts[3] > counts[0] > 0
