"""Writes the figures of docs/deploy.md: the image's, and what a clip needs of a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from reelserve.tools.figures.gpu import NONE, clip_shape, decimal
from reelserve.tools.figures.system import PRICES_USD_PER_HOUR, cents_a_clip
from reelserve.tools.figures.tables import Results, table, when

MB, MIB, GIB = 10**6, 2**20, 2**30
EXAMPLE_USD_PER_HOUR = PRICES_USD_PER_HOUR[1]
"""Price of a GPU-hour that the page reckons with: one H100 SXM on demand in May 2026."""
WAYS = {"container": "Container, read-only", "systemd": "systemd unit"}


def image(results: Results) -> str:
    """`image.json`: sizes, and how soon the server is there, back, and at its end."""
    request = results["request"]
    clip = f"{request['num_frames'] / request['fps']:g} s clip"
    titles = (
        "Server in",
        "Ready, s",
        f"First {clip}, s",
        "Ready after kill -9, s",
        f"{clip} after kill -9, s",
        "Stopped with a short clip in every place, s",
        "Of them drawn",
    )
    rows = [(title, *_row(results[way])) for way, title in WAYS.items()]
    versions = results["versions"]
    names = ("podman", "runc", "crun", "systemd")
    tools = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    sizes = (
        f"The image has {results['image_bytes'] / MB:.0f} MB, of which "
        f"{results['base_bytes'] / MB:.0f} are Debian with Python"
    )
    # A run that took an image which was there does not know it.
    built = (
        f"; it was built from nothing in {results['build_s']:.0f} s" if "build_s" in results else ""
    )
    return (
        f"{table(titles, rows)}\n\n{sizes}{built}. Median and longest of "
        f"{len(results['container'])} rounds of each; seconds count from the command that starts, "
        f"kills or stops. Measured by `make bench-image` on {results['cpu']}, "
        f"{results['cores']} cores, {tools}, {when(results)}."
    )


def sizing(results: Path, usd_per_hour: float = EXAMPLE_USD_PER_HOUR) -> str:
    """What one GPU draws of each model, what it needs for that, and what a clip costs.

    Args:
        results: Folder of results files.
        usd_per_hour: Price of a GPU for an hour, above 0.
    """
    titles = (
        "Hardware",
        "Model, weights",
        "Clip, steps",
        "Videos per second",
        "At once",
        "p95, s",
        "GPU memory, GiB",
        "Memory, GiB",
        "Shared memory, MiB",
        "Cents a clip",
    )
    rows = [*_gpu_rows(results, usd_per_hour), *_cpu_rows(results)]
    return (
        f"{table(titles, rows)}\n\nCents a clip are 100 × price of a GPU-hour ÷ 3600 ÷ videos per "
        f"second, here at ${usd_per_hour:.2f} an hour as an example, of a GPU that is never idle. "
        f"A dash: no results file says it."
    )


DEPLOY_WRITERS = {"image": image}
"""Name of a results file, without its ending, to what writes its tables."""


def _row(rounds: Sequence[Results]) -> tuple[str, ...]:
    names = ("ready_s", "first_clip_s", "recovered_s", "clip_after_kill_s", "stopped_s")
    seconds = (sorted(one[name] for one in rounds) for name in names)
    drawn, of = (sum(one[name] for one in rounds) for name in ("drawn", "in_flight"))
    return (*(f"{one[len(one) // 2]:.1f}, {one[-1]:.1f}" for one in seconds), f"{drawn} of {of}")


def _gpu_rows(results: Path, usd_per_hour: float) -> Iterator[tuple[str, ...]]:
    """A row of each model that a GPU served, at the load at which it drew most clips."""
    for file in sorted(results.glob("bench_gpu_*.json")):
        bench = json.loads(file.read_text(encoding="utf-8"))
        for model in bench["models"]:
            each = model["videos_per_s"]
            yield (
                f"{bench['gpu']}, {bench['engine']}, {bench['precision']}",
                f"`{model['model']}`, {model['weights']}",
                f"{clip_shape(model)}, {model['steps']}",
                decimal(each, 3),
                decimal(model["concurrency"], 0),
                decimal(model["p95_s"], 2),
                decimal(model["peak_memory_bytes"], 1, GIB),
                NONE,
                NONE,
                NONE if not each else f"{cents_a_clip(usd_per_hour, each):.3f}",
            )


def _cpu_rows(results: Path) -> Iterator[tuple[str, ...]]:
    """The row of the bundled checkpoint on a processor."""
    file, image_file = results / "bench_cpu.json", results / "image.json"
    if not file.exists():
        return
    bench = json.loads(file.read_text(encoding="utf-8"))
    shared = json.loads(image_file.read_text()).get("shm_bytes") if image_file.exists() else None
    request = bench["request"]
    shape = {**request, "frames": request["num_frames"]}
    shape |= {f"decoded_{side}": request[side] for side in ("height", "width")}
    yield (
        f"{bench['cores']} cores, {request['engine']}",
        f"`{request['checkpoint']}`, trained",
        f"{clip_shape(shape)}, {request['num_inference_steps']}",
        f"{bench['videos_per_s_at_4']:.3f}",
        "4",
        NONE,
        NONE,
        decimal(bench["peak_memory_bytes"], 1, GIB),
        decimal(shared, 0, MIB),
        NONE,
    )
