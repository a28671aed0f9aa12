"""Draws a load test: the sweep with its knee, what happened over time, the server's seconds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reelserve.loadtest.figures import GOAL_CLIP_S, LevelFigures, Scale, measured_models
from reelserve.loadtest.plan import CLOSED
from reelserve.loadtest.records import ERROR, OK, REFUSED, Measurement
from reelserve.loadtest.verdict import Goals, Verdict
from reelserve.pipeline.atomic_file import replaced_file

INK, GRID, SHADE = "#1f2937", "#e5e7eb", "#eef2ff"
BLUE, GREEN, AMBER, PALE, RED = "#2563eb", "#0d9488", "#d97706", "#fde68a", "#dc2626"
STAGE_COLOURS = ("#94a3b8", "#38bdf8", "#2563eb", "#0d9488", "#a3e635", "#f59e0b", "#be185d")
OUTCOME_COLOURS = {OK: BLUE, REFUSED: AMBER, ERROR: RED}
DPI = 140
STYLE = {
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "font.size": 9.5,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    # Text stays text, so that an HTML page shows and finds it.
    "svg.fonttype": "none",
}


def draw_sweep(
    levels: Sequence[LevelFigures],
    verdict: Verdict,
    goals: Goals,
    scale: Scale,
    loop: str,
    title: str,
) -> Figure:
    """Throughput and latency against load; the knee and the goals are marked.

    Args:
        levels: Every level.
        verdict: Says where the knee is.
        goals: Drawn as dashed lines.
        scale: To videos of 10 s and one GPU.
        loop: Closed or open.
        title: Above both plots.
    """
    loads = [figures.level for figures in levels]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.1), layout="constrained")
        throughput, latency = figure.subplots(1, 2)
        values = [scale.videos_per_s(figures.clips_per_s) for figures in levels]
        throughput.plot(loads, values, "-o", color=BLUE, linewidth=2)
        _goal(throughput, goals.videos_per_s, f"goal: {goals.videos_per_s:g} or more")
        _mark_knee(throughput, verdict, scale)
        throughput.set_title(f"{GOAL_CLIP_S:g} s videos per second per {scale.per}")
        throughput.set_ylim(0, 1.25 * max(*values, goals.videos_per_s))
        # The first is wide and pale: of few clips, p99 lies under p95.
        for name, colour, width in (("p99", PALE, 7), ("p95", AMBER, 2), ("p50", GREEN, 2)):
            seconds = [scale.latency_s(getattr(figures, f"{name}_s")) for figures in levels]
            latency.plot(loads, seconds, "-o", color=colour, linewidth=width, label=name)
        _goal(latency, goals.p95_s, f"goal: p95 at most {goals.p95_s:g} s")
        latency.axvline(verdict.knee.level, color=INK, linewidth=0.9, linestyle=":")
        latency.set_title(f"Latency of a {GOAL_CLIP_S:g} s video, seconds")
        latency.set_yscale("log")
        latency.yaxis.set_major_formatter("{x:g}")
        latency.legend(loc="upper left", bbox_to_anchor=(0, 0.86))
        for axes in (throughput, latency):
            _level_axis(axes, loads, loop)
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return figure


def draw_timeline(measurement: Measurement, loop: str) -> Figure:
    """Requests in flight and the latency of each, over the test; windows are shaded."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 4.8), layout="constrained")
        in_flight, latency = figure.subplots(2, 1, sharex=True)
        at_s, counts = zip(*measurement.in_flight, strict=True)
        in_flight.step(at_s, counts, where="post", color=BLUE, linewidth=1.2)
        in_flight.set_title("Requests in flight (shaded: what counts)")
        in_flight.set_ylim(0, 1.25 * max(1, *counts))
        in_flight.yaxis.get_major_locator().set_params(integer=True)
        for outcome, colour in OUTCOME_COLOURS.items():
            found = [request for request in measurement.requests if request.outcome == outcome]
            if found:
                ended = [request.ended_s for request in found]
                seconds = [request.latency_s for request in found]
                latency.plot(ended, seconds, "o", color=colour, markersize=4, label=outcome)
        latency.set_title("Seconds of each request, at its end")
        latency.set_xlabel("seconds since the start of the test")
        latency.set_ylim(bottom=0)
        latency.legend(loc="upper left", bbox_to_anchor=(1, 1))
        for axes in (in_flight, latency):
            axes.grid(color=GRID)
            for window in measurement.windows:
                axes.axvspan(window.opened_s, window.closed_s, color=SHADE, zorder=0)
        unit = "at once" if loop == CLOSED else "/s"
        for window in measurement.windows:
            middle = (window.opened_s + window.closed_s) / 2
            in_flight.annotate(
                f"{window.level:g} {unit}",
                (middle, 1),
                xycoords=("data", "axes fraction"),
                ha="center",
                va="top",
            )
    return figure


def draw_server_seconds(levels: Sequence[LevelFigures], loop: str) -> Figure:
    """Seconds of computing and of waiting by stage for each clip, see `ServerTime`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8), layout="constrained")
        compute, queue = figure.subplots(1, 2)
        places = range(len(levels))
        for axes, kind in ((compute, "compute_s"), (queue, "queue_s")):
            lower = [0.0] * len(levels)
            # `video_diffusion` computes while `denoiser` does, whose queue is a part of its wait.
            models = [model for model in measured_models(levels) if model != "denoiser"]
            for number, model in enumerate(models):
                heights = [getattr(figures.server[model], kind) for figures in levels]
                colour = STAGE_COLOURS[number % len(STAGE_COLOURS)]
                axes.bar(places, heights, 0.6, lower, label=model, color=colour)
                lower = [low + height for low, height in zip(lower, heights, strict=True)]
            axes.set_xticks(places, [f"{figures.level:g}" for figures in levels])
            axes.set_xlabel(_load_label(loop))
            axes.grid(axis="y", color=GRID)
        compute.set_title("Computing, seconds per clip")
        queue.set_title("Waiting, seconds per clip")
        handles, labels = compute.get_legend_handles_labels()
        # In the order in which they are stacked.
        figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    return figure


def svg(figure: Figure) -> str:
    """A figure as an SVG element, to stand in an HTML page."""
    file = io.StringIO()
    with matplotlib.rc_context(STYLE):
        # No date, so that the same figures give the same page.
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return text[text.index("<svg") :]


def save_png(figure: Figure, path: Path) -> None:
    """Writes a PNG file; its folder is created where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png")


def _goal(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, color=INK, linewidth=1, linestyle="--")
    axes.annotate(
        label,
        (0.02, value),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        va="top",
        fontsize=8.5,
    )


def _mark_knee(axes: Axes, verdict: Verdict, scale: Scale) -> None:
    knee = verdict.knee
    axes.axvline(knee.level, color=INK, linewidth=0.9, linestyle=":")
    axes.plot(
        [knee.level],
        [scale.videos_per_s(knee.clips_per_s)],
        "o",
        markersize=13,
        markerfacecolor="none",
        markeredgecolor=RED,
        markeredgewidth=2,
    )
    axes.annotate(
        "knee" if verdict.saturated else "highest level, not saturated",
        (knee.level, scale.videos_per_s(knee.clips_per_s)),
        xytext=(0, 12),
        textcoords="offset points",
        ha="center" if verdict.saturated else "right",
        color=RED,
    )


def _level_axis(axes: Axes, levels: Sequence[float], loop: str) -> None:
    if loop == CLOSED:
        axes.set_xscale("log", base=2)
    axes.set_xticks(levels, [f"{level:g}" for level in levels])
    axes.minorticks_off()
    axes.set_xlabel(_load_label(loop))
    axes.grid(color=GRID)


def _load_label(loop: str) -> str:
    return "requests at once (closed loop)" if loop == CLOSED else "requests per second (open loop)"
