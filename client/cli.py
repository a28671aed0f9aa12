"""The `reelserve` command: hands over to the room that registered the subcommand.

A subcommand is an entry point of group `reelserve.commands` with `run(argv: list[str]) -> int`,
so this module imports no room but its own.
"""

from __future__ import annotations

import ast
import importlib.util
import signal
import sys
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

import reelserve
from reelserve.pipeline.extras import install_advice

COMMAND_GROUP = "reelserve.commands"
OK, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: list[str] | None = None) -> int:
    """Runs `reelserve <command> …` and returns its exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    commands = {entry.name: entry for entry in metadata.entry_points(group=COMMAND_GROUP)}
    stderr = error_console()
    if arguments[:1] == ["--version"]:
        Console(highlight=False).print(f"reelserve {reelserve.__version__}")
        return OK
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_help(commands, Console() if arguments else Console(stderr=True))
        return OK if arguments else USAGE
    name, *rest = arguments
    if name not in commands:
        stderr.print(f"reelserve: no command {name!r}; there are: {', '.join(sorted(commands))}")
        return USAGE
    try:
        _interrupt_on_termination()
        run = commands[name].load()
        return int(run(rest))
    except ModuleNotFoundError as error:
        stderr.print(f"reelserve {name}: {_missing_module_advice(error, commands[name])}")
        return FAILURE
    except KeyboardInterrupt:
        stderr.print("interrupted")
        return INTERRUPTED


def _interrupt_on_termination() -> None:
    """Lets a termination or a closed terminal unwind like Ctrl-C.

    A command that has started a server would leave it behind otherwise.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


def error_console() -> Console:
    """Where commands say what went wrong: text as it is, not broken into lines."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def _print_help(commands: dict[str, metadata.EntryPoint], console: Console) -> None:
    console.print("usage: reelserve <command> [options]\n", markup=False, highlight=False)
    table = Table.grid(padding=(0, 2))
    for name in sorted(commands):
        table.add_row(f"  {name}", _summary(commands[name]))
    console.print(table)
    more = "reelserve <command> --help says more, reelserve --version its version."
    console.print(f"\n{more}", highlight=False)


def _summary(entry: metadata.EntryPoint) -> str:
    """First sentence of a command's module, which is read and not imported."""
    try:
        spec = importlib.util.find_spec(entry.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        return "not installed"
    docstring = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return (docstring or "").partition("\n")[0]


def _missing_module_advice(error: ModuleNotFoundError, entry: metadata.EntryPoint) -> str:
    room = entry.module.split(".")[1]
    advice = install_advice(error.name or "", room)
    return f"{error.name} is not installed; it comes with {advice}"
