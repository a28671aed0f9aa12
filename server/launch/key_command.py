"""Make an API key for a caller: the key is shown once, its line for --api-keys is printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from rich.console import Console

from reelserve.server.frontend.api_keys import (
    NAME_RULE,
    KeyHolder,
    check_name,
    key_line,
    new_key,
    read_limit,
)

MAX_IN_FLIGHT = 4
"""A third of the places of one Triton."""

Checked = TypeVar("Checked")


def run(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: Arguments after the command's name.

    Returns:
        Exit status: 0.
    """
    arguments = _parser().parse_args(argv)
    key = new_key()
    # Apart, so that `>> FILE` takes the line alone.
    for text in (f"the key of {arguments.name}, which is shown only now:", key):
        Console(stderr=True, soft_wrap=True).out(text, highlight=False)
    line = key_line(KeyHolder(arguments.name, arguments.max_in_flight), key)
    Console(soft_wrap=True).out(line, highlight=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reelserve key",
        description="Make an API key. Standard output gets its line for the file of `reelserve "
        "serve --api-keys`, which holds a hash; standard error gets the key.",
    )
    parser.add_argument(
        "name",
        type=partial(_checked, check_name),
        metavar="NAME",
        help=f"who will hold it: {NAME_RULE}",
    )
    parser.add_argument(
        "--max-in-flight",
        type=partial(_checked, read_limit),
        default=MAX_IN_FLIGHT,
        metavar="N",
        help="clips that it may have in flight at once (%(default)s)",
    )
    return parser


def _checked(check: Callable[[str], Checked], text: str) -> Checked:
    try:
        return check(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; it is {text!r}") from None
