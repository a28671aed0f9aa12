"""What callers are told that a text encoder knows by name."""

from reelserve.export.families.vocabulary import KINDS, vocabulary_of
from reelserve.models.text_encoder import TextEncoderConfig
from reelserve.training.scene import vocabulary


def test_names_of_a_text_encoder_are_told_by_kind_and_what_is_not_said_is_left_out():
    config = TextEncoderConfig(
        object_values={"thing": ["", "something", "cat"], "size": ["", "small"]},
        scene_values={"weather": ["", "fog"], "ground_colour": ["", "red"]},
    )
    told = vocabulary_of(config)
    assert told == {"things": ("cat",), "sizes": ("small",), "weathers": ("fog",)}
    assert list(told) == ["things", "sizes", "weathers"]


def test_every_attribute_of_a_label_has_a_kind():
    attributes = {*vocabulary.object_attributes(), *vocabulary.SCENE_ATTRIBUTES}
    assert attributes == {*KINDS, "ground_colour"}
