"""Fill the tables of the README and docs/ from docs/results/, and the load test's sentences."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reelserve.client.argument_types import real_number
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.export.families.registry import families_table
from reelserve.export.families.schedulers import schedulers_table
from reelserve.pipeline.atomic_file import write_file
from reelserve.tools.figures.comparisons import COMPARISONS, comparison
from reelserve.tools.figures.deploying import DEPLOY_WRITERS, sizing
from reelserve.tools.figures.gpu import GPU_WRITERS
from reelserve.tools.figures.kernels import KERNEL_WRITERS, csv_rows
from reelserve.tools.figures.metric_rows import BLOCK_NAME, metric_rows
from reelserve.tools.figures.prompts import SOURCE, TARGET, load_test_prompts
from reelserve.tools.figures.scaling import SCALING_WRITERS
from reelserve.tools.figures.summary import summary
from reelserve.tools.figures.system import SYSTEM_WRITERS, figures_in_sentences
from reelserve.tools.figures.tables import WRITERS
from reelserve.tools.figures.tensorrt import NOT_RUN, TENSORRT_WRITERS
from reelserve.tools.figures.world import evaluation_world

PerGpu = Mapping[str, Callable[[Sequence[Any]], str]]
NOT_MEASURED = "*Not measured yet.*"
REGISTRIES = {
    "families": families_table,
    "schedulers": schedulers_table,
    BLOCK_NAME: metric_rows,
}
"""Tables of what the code knows, which no results file holds."""
ONE_FILE_WRITERS = {**WRITERS, **DEPLOY_WRITERS, "evaluation_world": evaluation_world}
FOLDER_WRITERS = {"summary": summary, "sizing": sizing, **SYSTEM_WRITERS}
"""Blocks with figures of many files."""
PER_GPU: tuple[tuple[PerGpu, str, str], ...] = (
    (GPU_WRITERS, "bench_gpu", NOT_MEASURED),
    (SCALING_WRITERS, "scaling", NOT_MEASURED),
    (TENSORRT_WRITERS, "bench_tensorrt", NOT_RUN),
)
"""Tables of what has a file for each GPU: writers, how its name begins, and what stands there where
there is none."""
BLOCK = re.compile(
    r"(?P<start><!-- figures: (?P<name>\w+) -->\n).*?(?P<end><!-- end of figures -->)", re.DOTALL
)
"""A block that this command owns."""
IN_SENTENCE = re.compile(r"(?P<start><!-- figure: (?P<name>\w+) -->).*?(?P<end><!-- end -->)")
"""A single figure that this command owns, inside a line."""


def run(argv: list[str]) -> int:
    """Runs `reelserve docs` and returns its exit status."""
    parser = argparse.ArgumentParser(prog="reelserve docs", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the README")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a table is stale"
    )
    parser.add_argument(
        "--sizing",
        type=real_number(0, above=True),
        metavar="USD",
        help="write nothing; print what a clip costs at this price of a GPU for an hour",
    )
    arguments = parser.parse_args(argv)
    console = error_console()
    try:
        if arguments.sizing:
            sys.stdout.write(f"{sizing(arguments.root / 'docs' / 'results', arguments.sizing)}\n")
            return OK
        stale = fill_pages(arguments.root, write=not arguments.check)
        stale += fill_prompts(arguments.root, write=not arguments.check)
    except (OSError, ValueError, KeyError) as error:
        console.print(f"reelserve docs: {error}")
        return FAILURE
    for page in stale:
        console.print(f"{page}: {'stale' if arguments.check else 'written'}")
    return FAILURE if stale and arguments.check else OK


def fill_pages(root: Path, *, write: bool) -> list[Path]:
    """Brings every table up to date.

    Args:
        root: Holds README.md and docs/.
        write: Whether to change the pages, or only to look.

    Returns:
        The pages whose tables were stale.

    Raises:
        ValueError: If a page asks for figures that nothing writes.
    """
    stale = []
    for page in sorted(
        (*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("kernels/*.md"))
    ):
        text = page.read_text(encoding="utf-8")
        filled = fill(text, root / "docs" / "results")
        if filled != text:
            stale.append(page)
            if write:
                write_file(page, filled)
    return stale


def fill_prompts(root: Path, *, write: bool) -> list[Path]:
    """Brings the load test's sentences up to date, where their list is there.

    Arguments, result and errors are those of `fill_pages`.
    """
    target = root / TARGET
    if not (root / SOURCE).is_file():
        return []
    wanted = load_test_prompts(root)
    if target.is_file() and target.read_text(encoding="utf-8") == wanted:
        return []
    if write:
        write_file(target, wanted)
    return [target]


def fill(text: str, results: Path) -> str:
    """Replaces what stands in every block, and in every mark inside a line, by its figures.

    Args:
        text: Markdown.
        results: Folder of results files; a missing file is said to be not measured yet.

    Raises:
        ValueError: If no function writes the figures of a block, or no figure has that name.
        FileNotFoundError: If a file that figures inside lines come from is missing.
    """

    def replace(block: re.Match[str]) -> str:
        return f"{block['start']}{_figures(block['name'], results)}\n{block['end']}"

    return _fill_sentences(BLOCK.sub(replace, text), results)


def _fill_sentences(text: str, results: Path) -> str:
    if not IN_SENTENCE.search(text):
        return text
    known = figures_in_sentences(results)

    def replace(mark: re.Match[str]) -> str:
        if mark["name"] not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"no figure is called {mark['name']!r}; there are {names}")
        return f"{mark['start']}{known[mark['name']]}{mark['end']}"

    return IN_SENTENCE.sub(replace, text)


def _figures(name: str, results: Path) -> str:
    if name in ONE_FILE_WRITERS:
        file = results / f"{name}.json"
        return (
            ONE_FILE_WRITERS[name](json.loads(file.read_text())) if file.exists() else NOT_MEASURED
        )
    if name in KERNEL_WRITERS:
        # One file for each GPU.
        rows = [row for file in sorted(results.glob(f"{name}_*.csv")) for row in csv_rows(file)]
        return KERNEL_WRITERS[name](rows) if rows else NOT_MEASURED
    for writers, kind, otherwise in PER_GPU:
        if name in writers:
            found = [json.loads(f.read_text()) for f in sorted(results.glob(f"{kind}_*.json"))]
            return writers[name](found) if found else otherwise
    if name in FOLDER_WRITERS:
        try:
            return FOLDER_WRITERS[name](results)
        except FileNotFoundError:
            return NOT_MEASURED
    if name in REGISTRIES:
        return REGISTRIES[name]()
    if name in COMPARISONS:
        folder = results / name
        return comparison(folder) if folder.is_dir() else NOT_MEASURED
    per_gpu = {block for writers, _, _ in PER_GPU for block in writers}
    named = {*FOLDER_WRITERS, *ONE_FILE_WRITERS, *KERNEL_WRITERS, *per_gpu}
    names = ", ".join(sorted(named | {*COMPARISONS, *REGISTRIES}))
    raise ValueError(f"no table is called {name!r}; there are {names}")
