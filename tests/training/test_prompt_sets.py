import pytest

from reelserve.training.prompt_sets import PROMPT_SETS
from reelserve.training.showable import can_be_shown
from reelserve.training.words.labels import CaptionPlan, Group


@pytest.mark.parametrize("name", list(PROMPT_SETS))
def test_every_set_has_its_sentences_and_is_the_same_again(name):
    prompts = PROMPT_SETS[name](20)
    assert len(prompts.texts) == len(prompts.wanted) == (200 if name == "hand_written" else 20)
    assert all(text.strip() for text in prompts.texts)
    assert PROMPT_SETS[name](20).texts == prompts.texts


@pytest.mark.parametrize(
    ("name", "count"),
    [("held_out", 1), ("held_out_two_objects", 2), ("held_out_three_objects", 3)],
)
def test_held_out_sets_ask_for_so_many_objects(name, count):
    assert {len(wanted.objects) for wanted in PROMPT_SETS[name](30).wanted} == {count}


def test_hand_written_sentences_have_what_the_issue_names():
    prompts = PROMPT_SETS["hand_written"](0)
    rabbits = prompts.wanted[prompts.texts.index("two rabbits hop through a meadow at sunset")]
    assert len(rabbits.objects) == 2
    assert rabbits.objects[0] == rabbits.objects[1]
    assert set(rabbits.scene) == {"setting", "weather"}


@pytest.mark.parametrize(
    ("plan", "shown"),
    [
        (CaptionPlan((Group("cat", motion="across"),), setting="meadow", weather="rain"), True),
        (CaptionPlan((Group("cat"),), setting="underwater", weather="rain"), False),
        (CaptionPlan((Group("cat", count=2, place="left"),)), False),
        (CaptionPlan((Group("cat", place="left"), Group("dog", place="right"))), True),
        (CaptionPlan((Group("cat", place="left"), Group("dog", place="left"))), False),
        (CaptionPlan((Group("cat", place="left"), Group("dog", place="top"))), False),
        (CaptionPlan((Group("cat", motion="leap"), Group("moon"))), True),
        (CaptionPlan((Group("cat", motion="leap"), Group("moon", motion="spin"))), False),
        (CaptionPlan((Group("cat", motion="leap"),)), False),
        (CaptionPlan((Group("cat", motion="fade in", speed="fast"),)), False),
        (CaptionPlan((Group("cat", motion="across", place="top"),)), True),
        (CaptionPlan((Group("cat", motion="across", place="left"),)), False),
        (CaptionPlan((Group("cat", place="in front"), Group("dog", place="behind"))), True),
        (
            CaptionPlan(
                (Group("cat", place="in front", size="large"), Group("dog", place="behind"))
            ),
            False,
        ),
    ],
)
def test_can_be_shown_tells_what_no_scene_holds(plan, shown):
    assert can_be_shown(plan) is shown
