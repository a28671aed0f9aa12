"""The report of a load test: one HTML file with everything in it."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from reelserve.loadtest.figures import (
    GOAL_CLIP_S,
    LAW_TOLERANCE,
    WORTHWHILE_GAIN,
    level_name,
    measured_models,
)
from reelserve.loadtest.plots import draw_server_seconds, draw_sweep, draw_timeline, svg
from reelserve.loadtest.results import Outcome

TEMPLATE = "report.html.jinja"


def title(found: Outcome) -> str:
    """What was measured, on what, in one line."""
    origin, info = found.origin, found.info
    return (
        f"{info.duration_s:g} s clips, {info.width}×{info.height}, "
        f"{info.num_inference_steps} steps, checkpoint {info.checkpoint}, {info.engine}; "
        f"{origin['hardware']}; {found.plan.loop} loop"
    )


def sweep_figure(found: Outcome) -> Figure:
    """The plot of the sweep."""
    return draw_sweep(
        found.levels, found.verdict, found.goals, found.scale, found.plan.loop, title(found)
    )


def html(found: Outcome) -> str:
    """The report; it loads nothing from elsewhere."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda value, digits=2: f"{value:.{digits}f}"
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f}%"
    loop = found.plan.loop
    return environment.get_template(TEMPLATE).render(
        found=found,
        verdict=found.verdict,
        plan=found.plan,
        scale=found.scale,
        info=found.info,
        origin=found.origin,
        title=title(found),
        level_name=lambda level: level_name(level, loop),
        models=measured_models(found.levels),
        goal_clip_s=GOAL_CLIP_S,
        tolerance=LAW_TOLERANCE,
        gain=WORTHWHILE_GAIN,
        sweep_plot=Markup(svg(sweep_figure(found))),
        timeline_plot=Markup(svg(draw_timeline(found.measurement, loop))),
        server_plot=Markup(svg(draw_server_seconds(found.levels, loop))),
    )
