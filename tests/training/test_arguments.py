from dataclasses import dataclass
from pathlib import Path

import pytest

from reelserve.training.arguments import settings_from, training_parser


@dataclass(frozen=True)
class Cooking:
    steps: int = 3
    seconds: float = 1.5
    stirred: bool = False
    secret: str = "salt"


def parsed(*options: str):
    parser = training_parser("Cooks.", Cooking, "soup", ("steps", "seconds", "stirred"))
    return parser.parse_args(options)


def test_settings_are_the_defaults_where_no_option_is_given():
    args = parsed()
    assert settings_from(args, Cooking) == Cooking()
    assert args.out == Path("checkpoints/world/soup")
    assert args.init is None


def test_options_set_fields_by_their_name_and_type():
    args = parsed("--steps", "7", "--seconds", "0.5", "--stirred", "--init", "pot")
    assert settings_from(args, Cooking) == Cooking(7, 0.5, stirred=True)
    assert args.init == Path("pot")


def test_fields_that_are_not_named_have_no_option():
    with pytest.raises(SystemExit):
        parsed("--secret", "pepper")
    with pytest.raises(SystemExit):
        parsed("--steps", "many")
