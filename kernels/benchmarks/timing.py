"""Times functions on a GPU, without what the CPU adds; on a CPU only to show that they run."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from reelserve.pipeline.atomic_file import write_file

ROOT = Path(__file__).resolve().parents[2]
FLUSH_BYTES = 256 * 2**20
"""Bytes read before each timed call, more than any L2 cache holds. They are read, because written
bytes would leave the cache while the call runs."""
COPY_BYTES = 2**30
WARMUP_CALLS = 3
TEST_WORKERS = 8


@dataclass(frozen=True)
class Times:
    """Times of one function.

    Args:
        p20_ms: 20% of the calls took less.
        p50_ms: Median.
        p80_ms: 80% of the calls took less.
    """

    p20_ms: float
    p50_ms: float
    p80_ms: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Times:
        """Quantiles of the times of single calls."""
        ordered = torch.tensor(milliseconds, dtype=torch.float64)
        points = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
        return cls(*torch.quantile(ordered, points).tolist())


def measure_times(function: Callable[[], object], device: str, seconds: float = 0.2) -> Times:
    """Times single calls from a cold L2 cache, as a CUDA graph: the CPU's part is left out.

    Args:
        function: Takes nothing; works on tensors that it holds.
        device: `cuda` or `cpu`.
        seconds: About how long to measure.
    """
    for _ in range(WARMUP_CALLS):
        function()
    if device == "cpu":
        return Times.of([_cpu_ms(function) for _ in range(WARMUP_CALLS)])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    flushed = torch.zeros(FLUSH_BYTES // 4, device=device)
    first = _graph_ms(graph, flushed, 3)
    calls = min(1000, max(7, int(1e3 * seconds / max(first))))
    return Times.of(_graph_ms(graph, flushed, calls))


def _graph_ms(graph: torch.cuda.CUDAGraph, flushed: torch.Tensor, calls: int) -> list[float]:
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(calls)]
    for start, end in events:
        flushed.sum()
        start.record()
        graph.replay()
        end.record()
    torch.cuda.synchronize()
    return [start.elapsed_time(end) for start, end in events]


def _cpu_ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def copy_gb_per_s(device: str, num_bytes: int = COPY_BYTES) -> float:
    """Bandwidth of a copy inside the device's memory: bytes read and written, in 1e9 a second.

    The best of the driver's copy and of a kernel that multiplies by one, at the size and at a
    quarter of it: an H100's driver copies 1 GiB a fifth slower than 256 MiB.
    """
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    calls = [
        (part.numel(), call)
        for part, into in ((source, target), (source[: num_bytes // 16], target[: num_bytes // 16]))
        for call in (partial(into.copy_, part), partial(torch.mul, part, 1.0, out=into))
    ]
    return max(2 * 4 * count / measure_times(call, device).p50_ms / 1e6 for count, call in calls)


def machine(device: str) -> dict[str, str]:
    """GPU, its driver, and the versions of torch and triton."""
    try:
        import triton
    except ModuleNotFoundError:
        triton_version = ""
    else:
        triton_version = triton.__version__
    return {
        "gpu": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "driver": _driver() if device == "cuda" else "",
        "torch": torch.__version__,
        "triton": triton_version,
    }


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]


def require_green_tests(paths: tuple[str, ...]) -> None:
    """Runs tests, side by side where pytest-xdist is; what is wrong is not timed.

    Raises:
        SystemExit: If one fails.
    """
    workers = ["-n", str(TEST_WORKERS)] if importlib.util.find_spec("xdist") else []
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", *workers, *paths], cwd=ROOT)
    if done.returncode:
        raise SystemExit("the tests are red: no figures")


def results_file(kind: str, gpu: str) -> Path:
    """Where figures of a GPU are kept."""
    name = re.sub(r"[^a-z0-9]+", "_", gpu.lower()).strip("_")
    return ROOT / "docs" / "results" / f"{kind}_{name}.csv"


def write_rows(
    rows: Iterable[Mapping[str, object]], columns: Sequence[str], path: Path | None, kind: str
) -> Path | None:
    """Writes rows as CSV, each as soon as it is there.

    Args:
        rows: The rows.
        columns: Columns of the file, in order.
        path: The file; None for `results_file` of the GPU, and for nothing on a CPU.
        kind: Beginning of the file's name, the kind of results.
    """
    found: list[Mapping[str, object]] = []
    for row in rows:
        found.append(row)
        if path is None and row["gpu"] != "cpu":
            path = results_file(kind, str(row["gpu"]))
        if path is not None:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found)
            write_file(path, text.getvalue())
    return path
