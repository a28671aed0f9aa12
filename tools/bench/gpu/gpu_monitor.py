"""Samples how busy and how fast GPUs are, and their memory, while something runs."""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

PERIOD_MS = 100
MIB = 2**20
COLUMNS = "index,utilization.gpu,memory.used,clocks.sm,power.draw"


@dataclass(frozen=True)
class Sample:
    """One reading.

    Args:
        at_s: When, on the machine's monotonic clock.
        gpu: Its number.
        utilisation: Share of the last moments in which a kernel ran.
        memory_bytes: In use on the whole GPU.
        clock_mhz: Clock of its multiprocessors; None where it does not tell.
        power_w: Power that it draws; None where it does not tell.
    """

    at_s: float
    gpu: int
    utilisation: float
    memory_bytes: int
    clock_mhz: float | None
    power_w: float | None


def parse_sample(line: str, at_s: float) -> Sample | None:
    """Reads `0, 37, 1234, 1980, 650.2`: number, percent, MiB, MHz, W.

    None of a line without the first three; the others may be missing (`[N/A]`).
    """
    numbers = [_number(part) for part in line.split(",")]
    if len(numbers) != len(COLUMNS.split(",")):
        return None
    gpu, percent, mib, clock_mhz, power_w = numbers
    if gpu is None or percent is None or mib is None:
        return None
    return Sample(at_s, int(gpu), percent / 100, int(mib * MIB), clock_mhz, power_w)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _mean(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return round(statistics.fmean(told), 1) if told else None


class GpuMonitor:
    """Reads `nvidia-smi` while the block runs; samples nothing where there is none.

    Args:
        gpus: Numbers of the GPUs; empty: the first.
    """

    def __init__(self, gpus: Sequence[str] = ()) -> None:
        self._gpus = ",".join(gpus) or _first_gpu()
        self.samples: list[Sample] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuMonitor:
        binary = shutil.which("nvidia-smi")
        if binary is not None:
            self._process = subprocess.Popen(
                [
                    binary,
                    f"--id={self._gpus}",
                    f"--query-gpu={COLUMNS}",
                    "--format=csv,noheader,nounits",
                    f"--loop-ms={PERIOD_MS}",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._process is not None and self._thread is not None:
            self._process.terminate()
            self._thread.join()
            # Waits, and closes the pipe.
            with self._process:
                pass

    @property
    def runs(self) -> bool:
        """Whether there is a GPU to sample."""
        return self._process is not None

    def utilisation(self, opened_s: float, closed_s: float) -> float | None:
        """Mean over a window of the monotonic clock and over GPUs; None without samples in it."""
        shares = [s.utilisation for s in self.samples if opened_s <= s.at_s <= closed_s]
        return statistics.fmean(shares) if shares else None

    def speed(self, opened_s: float = 0.0, closed_s: float = math.inf) -> dict[str, float | None]:
        """Means over the samples of a window in which a kernel ran, None without any."""
        busy = [s for s in self.samples if opened_s <= s.at_s <= closed_s and s.utilisation > 0]
        return {
            "clock_mhz": _mean([s.clock_mhz for s in busy]),
            "power_w": _mean([s.power_w for s in busy]),
        }

    def peak_memory_bytes(self) -> int | None:
        """The largest reading above the first of the same GPU; None without samples."""
        first: dict[int, int] = {}
        for sample in self.samples:
            first.setdefault(sample.gpu, sample.memory_bytes)
        grown = (sample.memory_bytes - first[sample.gpu] for sample in self.samples)
        return max(grown, default=None)

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            sample = parse_sample(line, time.monotonic())
            if sample is not None:
                self.samples.append(sample)


def gpu_query(column: str) -> str | None:
    """A property of the first GPU by its name in `nvidia-smi`; None without a GPU."""
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return None
    command = [binary, f"--id={_first_gpu()}", f"--query-gpu={column}", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 and found.stdout.strip() else None


def gpu_numbers() -> tuple[str, ...]:
    """Numbers of all GPUs that a program sees here; empty without any."""
    binary = shutil.which("nvidia-smi")
    if binary is None:
        return ()
    command = [binary, "--query-gpu=index", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    numbers = found.stdout.split() if found.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return tuple(visible.split(",")) if visible else tuple(numbers)


def _first_gpu() -> str:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
