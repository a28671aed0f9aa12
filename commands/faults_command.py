"""Break a running server in every known way, see what callers see, and write it down."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reelserve.client import Client, GenerateOptions, ReelserveError
from reelserve.client.cli import FAILURE, OK, error_console
from reelserve.pipeline import contract
from reelserve.pipeline.provenance import provenance
from reelserve.server.installation import InstallationError
from reelserve.server.launcher import ServerError, ServerOptions, TritonServer
from reelserve.server.stage_processes import stage_processes

PROMPT = "a large yellow star spins on a starry night"
CLIP: GenerateOptions = {"seed": 1, "num_frames": 16, "num_inference_steps": 20}
"""Short, with many steps: there is time to break something while it is denoised."""
REQUESTS = 3
ANSWER_TIMEOUT_S = 120.0
RECOVERY_TIMEOUT_S = 60.0
BREAK_AFTER_S = 0.6
"""The requests are in the denoiser then."""
FILE_LIMIT_BYTES = 1000
"""Less than any MP4."""
DIGITS = 2


@dataclass(frozen=True)
class Fault:
    """What was done and what was seen.

    Args:
        fault: What was broken.
        expected: What callers should see.
        seen: What they saw.
        recovered_s: Seconds until a request succeeded again; None where it cannot.
        lost: Requests that got neither an answer nor an error.
    """

    fault: str
    expected: str
    seen: str
    recovered_s: float | None
    lost: int


def run(argv: list[str]) -> int:
    """Runs `reelserve faults` and returns its exit status."""
    arguments = _parser().parse_args(argv)
    console = error_console()
    faults: list[Fault] = []
    try:
        for try_fault in all_faults():
            faults.append(try_fault(arguments.model_repository))
            console.print(f"{faults[-1].fault}: {faults[-1].seen}", highlight=False)
        _write(arguments.output, faults)
    except (InstallationError, ServerError, ReelserveError, OSError) as error:
        console.print(f"reelserve faults: {error}")
        return FAILURE
    Console().print(fault_table(faults))
    return OK if not any(fault.lost for fault in faults) else FAILURE


def all_faults() -> list[Callable[[Path], Fault]]:
    """Everything that is tried, each with a server of its own."""
    kills = [_killer(stage) for stage in contract.STAGES]
    return [*kills, kill_server, end_under_load, corrupt_graph, full_disk, silent_reader]


def fault_table(faults: list[Fault]) -> Table:
    """A table of the faults."""
    table = Table("fault", "seen", "recovered s", "lost", box=None)
    for fault in faults:
        recovered = "–" if fault.recovered_s is None else f"{fault.recovered_s:g}"
        table.add_row(fault.fault, fault.seen, recovered, str(fault.lost))
    return table


def _killer(stage: str) -> Callable[[Path], Fault]:
    def kill(repository: Path) -> Fault:
        with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
            reference = client.generate(PROMPT, **CLIP).mp4
            with _under_load(client) as futures:
                os.kill(stage_processes(server.pid)[stage], signal.SIGKILL)
                broken = time.monotonic()
                ending = _end_of(server)
                seen, lost = _outcomes(futures, reference)
        with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
            recovered_s = _recovery(client, broken, reference)
        return Fault(
            f"kill -9 of {stage}",
            "requests that need it fail with an error, the launcher names it and ends, and a "
            "supervisor starts the server again",
            f"{seen}; {ending}",
            recovered_s,
            lost,
        )

    return kill


def kill_server(repository: Path) -> Fault:
    """`kill -9` of `tritonserver` with requests in flight."""
    with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
        with _under_load(client) as futures:
            os.kill(server.pid, signal.SIGKILL)
            seen, lost = _outcomes(futures, b"")
        ending = _end_of(server)
    return Fault(
        "kill -9 of tritonserver",
        "every request fails with NoServerError; the launcher ends, for a supervisor to start it",
        f"{seen}; {ending}",
        None,
        lost,
    )


def end_under_load(repository: Path) -> Fault:
    """SIGTERM with requests in flight."""
    with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
        with _under_load(client) as futures:
            started = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            ending = _end_of(server)
            took = time.monotonic() - started
            seen, lost = _outcomes(futures, b"")
    return Fault(
        "SIGTERM under load",
        "requests end with a clip or an error, and the server within its bound",
        f"{seen}; {ending} after {took:.1f} s",
        None,
        lost,
    )


def corrupt_graph(repository: Path) -> Fault:
    """A graph that cannot be read, at start."""
    with tempfile.TemporaryDirectory(prefix="reelserve-faults-") as folder:
        broken = Path(folder) / "model_repository"
        shutil.copytree(repository, broken)
        (broken / "upsampler" / "1" / "model.onnx").write_bytes(b"no graph")
        try:
            with TritonServer(ServerOptions(broken)):
                seen = "the server says that it is ready"
        except ServerError as error:
            names = "naming" if "upsampler" in str(error) else "not naming"
            seen = f"the start fails, {names} the stage"
    return Fault("corrupt graph at load", "the start fails, naming the stage", seen, None, 0)


def full_disk(repository: Path) -> Fault:
    """The video encoder may write no more than a few bytes."""
    with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
        pid = stage_processes(server.pid)["video_encoder"]
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_LIMIT_BYTES, limits[1]))
        with _under_load(client) as futures:
            seen, lost = _outcomes(futures, b"")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        recovered_s = _recovery(client, time.monotonic(), None)
    return Fault(
        "full disk for video_encoder",
        "its requests fail with an error; the next ones succeed when there is space again",
        seen,
        recovered_s,
        lost,
    )


def silent_reader(repository: Path) -> Fault:
    """A client that opens a stream and never reads it."""
    with TritonServer(ServerOptions(repository)) as server, Client(server.grpc_url) as client:
        reference = client.generate(PROMPT, **CLIP).mp4
        stream = client.stream(PROMPT, **CLIP)
        with _under_load(client) as futures:
            seen, lost = _outcomes(futures, reference)
        stream.close()
        recovered_s = _recovery(client, time.monotonic(), reference)
    return Fault(
        "a client that never reads its stream", "nobody else notices", seen, recovered_s, lost
    )


def _end_of(server: TritonServer) -> str:
    """How the launcher sees the server end."""
    try:
        return f"the server ended with status {server.wait()}"
    except ServerError as error:
        return str(error)


class _under_load:  # noqa: N801
    """Requests in flight while the block runs, in the denoiser when it begins."""

    def __init__(self, client: Client) -> None:
        self._pool = ThreadPoolExecutor(REQUESTS)
        self._client = client

    def __enter__(self) -> list[Future[bytes]]:
        futures = [
            self._pool.submit(lambda: self._client.generate(PROMPT, **CLIP).mp4)
            for _ in range(REQUESTS)
        ]
        time.sleep(BREAK_AFTER_S)
        return futures

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _outcomes(futures: list[Future[bytes]], reference: bytes) -> tuple[str, int]:
    """What the requests got, in words, and how many got nothing."""
    counts: dict[str, int] = {}
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    for future in futures:
        try:
            mp4 = future.result(max(0.0, deadline - time.monotonic()))
            outcome = "clip" if mp4 == reference or not reference else "other clip"
        except ReelserveError as error:
            outcome = type(error).__name__
        except FutureTimeoutError:
            outcome = "nothing"
        counts[outcome] = counts.get(outcome, 0) + 1
    words = ", ".join(f"{count} × {outcome}" for outcome, count in sorted(counts.items()))
    return words, counts.get("nothing", 0)


def _recovery(client: Client, since: float, reference: bytes | None) -> float | None:
    """Seconds from `since` until a request gives the clip again; None if none does in time."""
    while time.monotonic() - since < RECOVERY_TIMEOUT_S:
        asked = time.monotonic()
        with contextlib.suppress(ReelserveError):
            if reference in (None, client.generate(PROMPT, **CLIP).mp4):
                # What the clip itself takes is no part of it.
                return round(asked - since, DIGITS)
        time.sleep(0.1)
    return None


def _write(path: Path, faults: list[Fault]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"faults": [asdict(fault) for fault in faults], **provenance()}
    path.write_text(json.dumps(results, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="reelserve faults", description=__doc__)
    add = parser.add_argument
    add("--model-repository", type=Path, default=Path("model_repository"), metavar="FOLDER")
    add("--output", type=Path, default=Path("docs/results/faults.json"), metavar="FILE")
    return parser
