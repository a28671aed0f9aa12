"""Draws the GPU benchmark: load and latency of the models, and the curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from reelserve.loadtest.plots import GRID, INK, STAGE_COLOURS, STYLE
from reelserve.tools.bench.gpu.state import Result

COLOURS = STAGE_COLOURS[2:]
LABELLED = (1, 2, 5)
"""Parts of a power of ten that a logarithmic axis names; all would run into each other."""
ROW_INCHES = 3.7
MARKERS = {"step": "o", "decode": "s"}


def draw_bench(results: Result) -> Figure:
    """Throughput and 95th percentile against load; below, seconds against frames and pixels.

    Args:
        results: The results file.
    """
    with matplotlib.rc_context(STYLE):
        rows = 2 if results["curves"] else 1
        figure = Figure(figsize=(9.6, ROW_INCHES * rows), layout="constrained")
        (throughput, latency), *below = figure.subplots(rows, 2, squeeze=False)
        loaded = [model for model in results["models"] if model["levels"]]
        for number, model in enumerate(loaded):
            levels = [level["concurrency"] for level in model["levels"]]
            label = f"{model['model']} ({model['weights']} weights)"
            for axes, name in ((throughput, "videos_per_s"), (latency, "p95_s")):
                values = [level[name] for level in model["levels"]]
                axes.plot(levels, values, "-o", color=_colour(number), linewidth=2, label=label)
        throughput.set_title("10 s videos per second")
        latency.set_title("95th percentile of latency, seconds")
        for axes in (throughput, latency):
            axes.set_xlabel("requests at once (closed loop)")
            axes.set_xticks(sorted({level["concurrency"] for m in loaded for level in m["levels"]}))
            # Models differ forty times.
            _scale(axes, "y")
            axes.grid(color=GRID)
        if loaded:
            throughput.legend(fontsize=8)
        for frames, pixels in below:
            _draw_curves(frames, results["curves"], "frames")
            _draw_curves(pixels, results["curves"], "pixels")
        title = f"{results['gpu']}, engine {results['engine']}, {results['precision']}"
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return figure


def _draw_curves(axes: Axes, curves: Sequence[Result], against: str) -> None:
    """Both axes logarithmic, so that a power is a line."""
    models = list(dict.fromkeys(curve["model"] for curve in curves))
    for curve in curves:
        if curve["against"] != against:
            continue
        amounts = [
            point["frames"] if against == "frames" else point["height"] * point["width"] / 1e6
            for point in curve["points"]
        ]
        exponent = "" if curve["exponent"] is None else f", exponent {curve['exponent']:.2f}"
        axes.plot(
            amounts,
            [point["seconds"] for point in curve["points"]],
            marker=MARKERS[curve["what"]],
            color=_colour(models.index(curve["model"])),
            linestyle="-" if curve["what"] == "step" else "--",
            label=f"{curve['model']}, {curve['what']}{exponent}",
        )
    _scale(axes, "x")
    _scale(axes, "y")
    axes.set_xlabel("frames" if against == "frames" else "megapixels of a frame")
    axes.set_title(f"Seconds against {against}")
    axes.grid(color=GRID)
    if axes.lines:
        axes.legend(fontsize=8)


def _scale(axes: Axes, direction: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with few labels."""
    axis = axes.xaxis if direction == "x" else axes.yaxis
    axes.set(**{f"{direction}scale": "log"})
    axis.set_major_locator(LogLocator(subs=LABELLED))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
