import torch

from reelserve.training.scene.labels import Labels, empty_labels, join_labels
from reelserve.training.scene.vocabulary import SCENE_ATTRIBUTES, object_attributes

OBJECT_SIZES = [len(values) for values in object_attributes().values()]
SCENE_SIZES = [len(values) for values in SCENE_ATTRIBUTES.values()]


def test_rows_are_one_hot_for_every_attribute_of_their_kind():
    labels = empty_labels(2)
    labels.objects[1, 0] = torch.tensor([5, 2, 0, 3, 1, 0])
    labels.scene[1] = torch.tensor([4, 0, 1])
    rows = labels.rows()
    assert rows.shape == (2, 4, sum(OBJECT_SIZES) + sum(SCENE_SIZES))
    objects, scene = rows[:, :3], rows[:, 3]
    assert (objects.sum(-1) == len(OBJECT_SIZES)).all()
    assert (scene.sum(-1) == len(SCENE_SIZES)).all()
    parts = objects[1, 0].split([*OBJECT_SIZES, sum(SCENE_SIZES)])
    assert [int(part.argmax()) for part in parts[:-1]] == [5, 2, 0, 3, 1, 0]
    assert not parts[-1].any()
    parts = scene[1].split([sum(OBJECT_SIZES), *SCENE_SIZES])
    assert [int(part.argmax()) for part in parts[1:]] == [4, 0, 1]
    assert not parts[0].any()


def test_join_labels_undoes_taking_apart():
    labels = Labels(torch.arange(72).view(4, 3, 6), torch.arange(12).view(4, 3))
    joined = join_labels([labels[:1], labels[1:]])
    assert len(joined) == 4
    assert torch.equal(joined.objects, labels.objects)
    assert torch.equal(joined.scene, labels.scene)
