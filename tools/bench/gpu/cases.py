"""What is measured: models, sizes and the clips that they draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeVar

BUNDLED = "bundled"
"""The committed checkpoint, the only one with trained weights."""
UPSCALING = 2
"""Factor by which the upsampler of the sized checkpoints enlarges."""
Layout = Literal["ltx", "sized", "bundled"]


class MeasuredCase(Protocol):
    """What is measured, a dataclass: all its fields shape the results."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Its name among those that are measured."""
        ...


AnyCase = TypeVar("AnyCase", bound=MeasuredCase)


@dataclass(frozen=True)
class Case:
    """A model and the clip that it draws.

    Args:
        name: In the results and of its folders.
        layout: LTX-Video's pipeline, ours around T5 and LTX's decoder, or the bundled one.
        denoiser: What its random denoiser is made from: arguments of diffusers' class or of
            `DenoiserConfig`; empty: the committed weights.
        steps: Denoising steps.
        guidance: Guidance scale; 1 denoises once a step.
        num_frames: Frames of the clip.
        fps: Frames per second of the clip.
        height: Rows of the MP4.
        width: Columns of the MP4.
    """

    name: str
    layout: Layout
    denoiser: Mapping[str, Any]
    steps: int
    guidance: float
    num_frames: int
    fps: int
    height: int
    width: int

    @property
    def weights(self) -> str:
        """`trained` or `random`."""
        return "trained" if self.layout == BUNDLED else "random"

    @property
    def decoded(self) -> tuple[int, int]:
        """Rows and columns before the upsampler of a sized checkpoint."""
        scale = UPSCALING if self.layout == "sized" else 1
        return self.height // scale, self.width // scale

    def stage_key(self, stage: str) -> tuple[object, ...] | None:
        """What an exported stage depends on: cases with equal keys can share it.

        The exporter decides by its fingerprints; this only says where to look. None: with nobody.
        """
        shape = (self.num_frames, *self.decoded)
        if self.layout == BUNDLED or stage == "denoiser":
            return None
        if stage == "vae_decoder":
            return (stage, *shape)
        # LTX-Video does not hide padding from its encoder, and has no stage after its decoder.
        return (stage, self.layout, *(() if stage == "text_encoder" else shape))


LTX_2B: Mapping[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "cross_attention_dim": 2048,
    "num_layers": 28,
    "caption_channels": 4096,
}
"""LTX-Video 2B, 0.9.0 to 0.9.5. Source: diffusers' `LTXVideoTransformer3DModel`, its defaults."""

CASES = (
    Case("ltx-2b", "ltx", LTX_2B, 8, 1.0, 241, 24, 512, 768),
    Case("bundled-3b", "sized", {"size": "3B"}, 4, 1.0, 241, 24, 1024, 1536),
    Case("bundled-10b", "sized", {"size": "10B"}, 4, 1.0, 241, 24, 1024, 1536),
    Case(BUNDLED, "bundled", {}, 8, 2.5, 80, 8, 256, 256),
)
"""Ten seconds each; the sized ones decode 512×768 before their upsampler."""

_TINY_LTX: Mapping[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "num_layers": 2,
    "caption_channels": 32,
}
DRY_CASES = (
    Case("ltx-2b", "ltx", _TINY_LTX, 2, 1.0, 9, 8, 32, 32),
    Case("bundled-3b", "sized", {"size": "tiny"}, 2, 1.0, 9, 8, 64, 64),
    Case("bundled-10b", "sized", {"size": "tiny-deep"}, 2, 1.0, 9, 8, 64, 64),
    replace(CASES[3], num_frames=16, steps=2),
)
"""The same with models of some thousand weights, for a machine without a GPU."""


def chosen(
    names: str | None, cases: tuple[AnyCase, ...], option: str = "--only"
) -> tuple[AnyCase, ...]:
    """Cases by their names, in the order of the table.

    Args:
        names: Separated by commas; None: all.
        cases: To choose from.
        option: Where the names come from, for the error.

    Raises:
        ValueError: If there is no such case.
    """
    if names is None:
        return cases
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = [case.name for case in cases]
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        raise ValueError(f"{option} is {names!r}; it must name some of {', '.join(known)}")
    return tuple(case for case in cases if case.name in wanted)
