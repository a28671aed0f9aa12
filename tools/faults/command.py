"""Break a running server in every known way, see what callers see, and write it down."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reelserve.client import ReelserveError
from reelserve.client.argument_types import whole_number
from reelserve.client.cli import FAILURE, OK, USAGE, error_console
from reelserve.pipeline.extras import install_advice
from reelserve.pipeline.output_place import output_file
from reelserve.pipeline.provenance import provenance
from reelserve.server.launch.installation import InstallationError
from reelserve.server.launch.triton_process import ServerError
from reelserve.tools.bench.gpu.gpu_monitor import gpu_query
from reelserve.tools.faults.damages import damages
from reelserve.tools.faults.deaths import deaths
from reelserve.tools.faults.drain import drains
from reelserve.tools.faults.fault import Fault, Trial, write_fault
from reelserve.tools.faults.fuzz import fuzz
from reelserve.tools.faults.links import SILENT_S, links
from reelserve.tools.faults.neighbours import neighbours
from reelserve.tools.faults.overload import overloads
from reelserve.tools.faults.replacement import replacements
from reelserve.tools.faults.same_bytes import same_bytes
from reelserve.tools.faults.soak import soak
from reelserve.tools.faults.storms import storms

CALLS, LEAST_CALLS = 10_000, 100
DEADLINES, CANCELS = 300_000, 20_000
CLIPS = 16
MINUTES = 60


def run(argv: list[str]) -> int:
    """Runs `reelserve faults` and returns its exit status: 1 if anything was not as expected."""
    arguments = _parser().parse_args(argv)
    console = error_console()
    trials = {trial.name: trial for trial in all_trials(arguments)}
    names = arguments.only or [name for name in trials if name != "soak" or arguments.soak]
    unknown = sorted(set(names) - set(trials))
    if unknown:
        console.print(f"reelserve faults: no fault {unknown[0]}; there are {', '.join(trials)}")
        return USAGE
    if importlib.util.find_spec("onnx") is None:
        advice = install_advice("onnx", "export")
        console.print(f"reelserve faults: onnx is not installed; {advice}")
        return FAILURE
    found: list[Fault] = []
    # Before the results file itself makes the tree differ from its commit.
    gpu = gpu_query("name")
    where = {**provenance(), **({"gpu": gpu} if gpu else {})}
    try:
        for name in names:
            found.append(trials[name].run(arguments.model_repository))
            write_fault(arguments.output, found[-1], where)
            console.print(f"{found[-1].fault}: {found[-1].seen}", highlight=False)
    except (InstallationError, ServerError, ReelserveError, OSError, ValueError) as error:
        console.print(f"reelserve faults: {error}")
        return FAILURE
    Console().print(fault_table(found))
    return OK if all(fault.as_expected for fault in found) else FAILURE


def all_trials(arguments: argparse.Namespace) -> list[Trial]:
    """Everything that can be tried, each on a server of its own."""
    return [
        *deaths(),
        *drains(),
        *damages(),
        *storms(arguments.deadlines, arguments.cancels),
        *overloads(),
        *links(SILENT_S),
        *neighbours(),
        *replacements(),
        same_bytes(arguments.clips),
        fuzz(arguments.calls),
        soak(arguments.minutes),
    ]


def fault_table(faults: list[Fault]) -> Table:
    """A table of the faults."""
    table = Table("fault", "seen", "recovered s", "lost", "as expected", box=None)
    for fault in faults:
        recovered = "–" if fault.recovered_s is None else f"{fault.recovered_s:g}"
        expected = "yes" if fault.as_expected else "no"
        table.add_row(fault.fault, fault.seen, recovered, str(fault.lost), expected)
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve faults", description=__doc__)
    add = parser.add_argument
    add("--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER")
    add("--output", type=output_file, default="docs/results/faults.json", metavar="FILE")
    add("--only", nargs="+", metavar="NAME", help="of faults; all but the soak if left out")
    add("--soak", action="store_true", help="also the soak, which is long")
    add(
        "--calls", type=whole_number(LEAST_CALLS), default=CALLS, metavar="N", help="malformed ones"
    )
    calls = whole_number(LEAST_CALLS)
    add("--deadlines", type=calls, default=DEADLINES, metavar="N", help="calls with short ones")
    add("--cancels", type=calls, default=CANCELS, metavar="N", help="calls cancelled at once")
    clips = whole_number(1)
    add("--clips", type=clips, default=CLIPS, metavar="N", help="compared byte for byte")
    add("--minutes", type=whole_number(1), default=MINUTES, metavar="N", help="of soak")
    return parser
