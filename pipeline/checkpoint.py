"""What the serving side must know of a checkpoint: `checkpoint.json`, written by the exporter.

The exporter puts one copy into the version folder of every Python stage, because Triton hands
a stage nothing but its own folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reelserve.pipeline.atomic_file import write_file
from reelserve.pipeline.ddim import DDIMSpec
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec

FILE_NAME = "checkpoint.json"


@dataclass(frozen=True)
class IntRange:
    """Allowed values of an integer field: `low ≤ value ≤ high`, a multiple of `multiple_of`.

    Args:
        low: Smallest value.
        high: Largest value.
        default: Used where the request leaves the field out.
        multiple_of: 1 allows every value in the range.
        offset: Subtracted from a value before `multiple_of` is checked.
    """

    low: int
    high: int
    default: int
    multiple_of: int = 1
    offset: int = 0


@dataclass(frozen=True)
class FloatRange:
    """Allowed values of a real field: finite, `low ≤ value ≤ high`."""

    low: float
    high: float
    default: float


@dataclass(frozen=True)
class RequestLimits:
    """Limits and defaults of the public request; fields are named after its tensors.

    Args:
        max_prompt_characters: Checked before tokenization; also for the negative prompt.
        max_prompt_tokens: `L`, special tokens included; prompts are padded to it.
        num_inference_steps: Denoising steps.
        guidance_scale: 1 disables guidance.
        num_frames: Frames of the clip before encoding.
        fps: Frames per second of the MP4.
        height: Pixels of the MP4.
        width: Pixels of the MP4.
    """

    max_prompt_characters: int
    max_prompt_tokens: int
    num_inference_steps: IntRange
    guidance_scale: FloatRange
    num_frames: IntRange
    fps: IntRange
    height: IntRange
    width: IntRange


@dataclass(frozen=True)
class LatentSpec:
    """Shape of the latents of a clip.

    Args:
        channels: `C`.
        temporal_compression: Frames of the clip per latent frame.
        spatial_compression: MP4 pixels per latent row or column, upsampler included.
        window_frames: Latent frames that the denoiser was trained on; longer clips are
            denoised in overlapping windows of this length.
        window_overlap: Latent frames that neighbouring windows share.
        causal: Whether the first frame has a latent frame of its own.
    """

    channels: int
    temporal_compression: int
    spatial_compression: int
    window_frames: int
    window_overlap: int
    causal: bool = False

    def frames(self, num_frames: int) -> int:
        """Latent frames of a clip of `num_frames` frames."""
        return (num_frames - self.causal) // self.temporal_compression + self.causal


SchedulerSpec = FlowMatchSpec | DDIMSpec
_SCHEDULERS: dict[str, type[SchedulerSpec]] = {"flow_match": FlowMatchSpec, "ddim": DDIMSpec}


@dataclass(frozen=True)
class CheckpointSpec:
    """The served checkpoint.

    Args:
        name: Shown in INFO.
        scheduler: Schedule of the denoising steps.
        latents: Latent shape.
        limits: Request limits and defaults.
        shared_text_mask: Whether the denoiser sees the negative prompt through the prompt's
            mask, as Latte was trained.
        engine: Engine of the exported stages, for example `onnxruntime`; empty before an export.
        vocabulary: Names that the text encoder is known to understand, by kind, for example
            `things`; empty for checkpoints that do not list them.
    """

    name: str
    scheduler: SchedulerSpec
    latents: LatentSpec
    limits: RequestLimits
    shared_text_mask: bool = False
    engine: str = ""
    vocabulary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def denoiser_mask(self, mask: NDArray[np.int64]) -> NDArray[np.int64]:
        """Masks the text that the denoiser sees.

        Args:
            mask: `[2, L]`, of the prompt and the negative prompt.
        """
        return mask[[0, 0]] if self.shared_text_mask else mask

    def to_json(self) -> str:
        """Content of `checkpoint.json`."""
        raw = asdict(self)
        raw["scheduler"] = {"kind": _kind(self.scheduler), **raw["scheduler"]}
        return json.dumps(raw, indent=2) + "\n"

    def save(self, folder: Path) -> None:
        """Writes `checkpoint.json` into `folder`."""
        write_file(folder / FILE_NAME, self.to_json())

    @classmethod
    def load(cls, folder: Path) -> CheckpointSpec:
        """Reads `checkpoint.json` from `folder`.

        Raises:
            FileNotFoundError: If the repository was not exported.
            KeyError: If a field is missing.
        """
        raw = json.loads((folder / FILE_NAME).read_text())
        return cls(
            name=raw["name"],
            engine=raw["engine"],
            scheduler=_scheduler(raw["scheduler"]),
            latents=LatentSpec(**raw["latents"]),
            limits=limits_from_dict(raw["limits"]),
            shared_text_mask=raw["shared_text_mask"],
            vocabulary={kind: tuple(names) for kind, names in raw["vocabulary"].items()},
        )


def _kind(spec: SchedulerSpec) -> str:
    return next(kind for kind, made in _SCHEDULERS.items() if isinstance(spec, made))


def _scheduler(raw: dict[str, Any]) -> SchedulerSpec:
    settings = {name: value for name, value in raw.items() if name != "kind"}
    if settings.get("dynamic"):
        settings["dynamic"] = DynamicShift(**settings["dynamic"])
    return _SCHEDULERS[raw["kind"]](**settings)


def limits_from_dict(raw: dict[str, object]) -> RequestLimits:
    """Builds `RequestLimits` from parsed JSON, whose numbers it does not check.

    Raises:
        KeyError: If a field is missing.
        TypeError: If a range has an unknown or missing member.
    """
    kinds: dict[str, type[Any]] = {"IntRange": IntRange, "FloatRange": FloatRange}
    values: dict[str, Any] = {}
    for member in fields(RequestLimits):
        kind, value = kinds.get(str(member.type)), raw[member.name]
        values[member.name] = kind(**value) if kind and isinstance(value, dict) else value
    return RequestLimits(**values)
