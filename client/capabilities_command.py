"""Show what a server draws: its checkpoint, the words that it knows, limits and defaults."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, fields

from rich.console import Console
from rich.table import Table

from reelserve.client._capabilities import Capabilities
from reelserve.client._client import Client
from reelserve.client._exceptions import ReelserveError
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.client.connection_arguments import add_connection_arguments, client_settings
from reelserve.pipeline.checkpoint import FloatRange, IntRange


def run(argv: list[str]) -> int:
    """Runs `reelserve capabilities` and returns its exit status."""
    parser = argparse.ArgumentParser(prog="reelserve capabilities", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print them as JSON")
    add_connection_arguments(parser)
    arguments = parser.parse_args(argv)
    try:
        with Client(**client_settings(arguments)) as client:
            told = client.capabilities()
    except ReelserveError as error:
        error_console().print(f"reelserve capabilities: {error}")
        return FAILURE
    console = Console(highlight=False, markup=False)
    if arguments.json:
        console.print(json.dumps(asdict(told), indent=2), soft_wrap=True)
    else:
        _show(told, console)
    return OK


def _show(told: Capabilities, console: Console) -> None:
    console.print(f"checkpoint {told.checkpoint}, engine {told.engine}\n")
    for kind, names in told.vocabulary.items():
        console.print(f"{kind} ({len(names)}): {', '.join(names)}\n")
    if told.vocabulary:
        console.print("Other words for these are understood, too.\n")
    table = Table("field", "values", "default", box=None, pad_edge=False)
    for member in fields(told.limits):
        limit = getattr(told.limits, member.name)
        if isinstance(limit, (IntRange, FloatRange)):
            table.add_row(member.name, _values(limit), f"{limit.default:g}")
    console.print(table)
    limits = told.limits
    console.print(
        f"\nprompts: up to {limits.max_prompt_characters} characters and "
        f"{limits.max_prompt_tokens} tokens"
    )


def _values(limit: IntRange | FloatRange) -> str:
    if limit.low == limit.high:
        return f"{limit.low:g}"
    shown = f"{limit.low:g} to {limit.high:g}"
    if isinstance(limit, FloatRange) or limit.multiple_of == 1:
        return shown
    more = f" and {limit.offset}" if limit.offset else ""
    return f"{shown}, multiples of {limit.multiple_of}{more}"
