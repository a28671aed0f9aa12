"""The checkpoint families, one row each: what a checkpoint is recognised by, and its defaults.

The first place for a new family. `docs/families.md` shows these rows; `make docs` writes them.
"""

from __future__ import annotations

from dataclasses import dataclass

from reelserve.pipeline.checkpoint import FloatRange, IntRange, RequestLimits


@dataclass(frozen=True)
class FamilyRow:
    """One family.

    Args:
        class_name: `_class_name` in the `model_index.json` of its checkpoints.
        adapter: Module in this package and its class, a `CheckpointFamily`; imported when a
            checkpoint of the family is opened.
        libraries: Where the modules of its checkpoints come from.
        entries: What its index may hold: components, then settings.
        limits: Limits and defaults of a request; None where the index of a checkpoint holds them.
            An adapter may narrow them to what a checkpoint was made for.
        section: Heading in `docs/families.md`; empty where the README describes the family.
        checked: What was run, in a few words.
    """

    class_name: str
    adapter: tuple[str, str]
    libraries: str
    entries: tuple[str, ...]
    limits: RequestLimits | None
    section: str
    checked: str


_PIPELINE = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
"""Components of a plain text-to-video pipeline of diffusers."""

FAMILIES: dict[str, FamilyRow] = {
    "bundled": FamilyRow(
        class_name="BundledTextToVideoPipeline",
        adapter=("bundled", "BundledFamily"),
        libraries="this project",
        entries=(*_PIPELINE, "upsampler", "name", "latents", "limits"),
        limits=None,
        section="",
        checked="the bundled weights, on a CPU and an H100",
    ),
    "ltx": FamilyRow(
        class_name="LTXPipeline",
        adapter=("ltx", "LTXFamily"),
        libraries="diffusers and transformers",
        entries=_PIPELINE,
        limits=RequestLimits(
            max_prompt_characters=2000,
            max_prompt_tokens=128,
            num_inference_steps=IntRange(1, 100, 50),
            guidance_scale=FloatRange(1.0, 20.0, 3.0),
            num_frames=IntRange(9, 257, 161, multiple_of=8, offset=1),
            # The denoiser's positions in time are seconds, so the graph is of one frame rate.
            fps=IntRange(25, 25, 25),
            height=IntRange(256, 1216, 512, multiple_of=32),
            width=IntRange(256, 1216, 704, multiple_of=32),
        ),
        section="LTX-Video",
        checked="random weights: tiny on a CPU, the 2B size on an H100",
    ),
    "latte": FamilyRow(
        class_name="LattePipeline",
        adapter=("latte", "LatteFamily"),
        libraries="diffusers and transformers",
        entries=_PIPELINE,
        limits=RequestLimits(
            max_prompt_characters=2000,
            max_prompt_tokens=120,
            num_inference_steps=IntRange(1, 250, 50),
            guidance_scale=FloatRange(1.0, 20.0, 7.5),
            num_frames=IntRange(16, 16, 16),
            fps=IntRange(1, 60, 8),
            height=IntRange(512, 512, 512),
            width=IntRange(512, 512, 512),
        ),
        section="Latte",
        checked="random weights, tiny, on a CPU",
    ),
}
"""Rows by the family's name."""


def limits_of(name: str) -> RequestLimits:
    """Limits and defaults of a family that has its own.

    Args:
        name: Name of the family.
    """
    limits = FAMILIES[name].limits
    assert limits is not None
    return limits


def families_table() -> str:
    """The rows as a table in Markdown, for `docs/families.md`."""
    lines = [
        "| Class | Family | Its modules come from | Defaults | Checked with |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in FAMILIES.items():
        anchor = row.section.lower().replace(" ", "-")
        link = f"[`{name}`](#{anchor})" if anchor else f"`{name}`"
        cells = (f"`{row.class_name}`", link, row.libraries, _defaults(row.limits), row.checked)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _defaults(limits: RequestLimits | None) -> str:
    if limits is None:
        return "in its `model_index.json`"
    return (
        f"{limits.num_frames.default} frames of {limits.height.default}×{limits.width.default}, "
        f"{limits.fps.default} fps, {limits.num_inference_steps.default} steps, "
        f"guidance {limits.guidance_scale.default:g}"
    )
