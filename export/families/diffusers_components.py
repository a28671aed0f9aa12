"""Parts that families of public checkpoints share: loading, limits, schedulers, T5."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, get_args

import torch
from torch import Tensor, nn

from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.stages import CPU_FP32, ExportStage, StageSource, Target
from reelserve.pipeline.checkpoint import FloatRange, IntRange, RequestLimits
from reelserve.pipeline.ddim import BetaSchedule, DDIMSpec, Prediction, TimestepSpacing
from reelserve.pipeline.extras import install_advice
from reelserve.pipeline.request import check_float, check_int
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec

UNSUPPORTED_FLOW_MATCH = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)
UNSUPPORTED_DDIM = {
    "clip_sample": True,
    "thresholding": False,
    "rescale_betas_zero_snr": False,
    "trained_betas": None,
}
"""Settings of DDIM that must be off, and the defaults of diffusers for them."""
TEXT_ROWS = 2


class MissingLibraryError(ValueError):
    """A library that the checkpoint's classes come from is not installed."""


def load_library_component(
    checkpoint: Checkpoint, name: str, library: str, class_name: str, target: Target = CPU_FP32
) -> nn.Module:
    """Loads a component with the library that saved it.

    Args:
        checkpoint: The opened folder.
        name: Name of the component, its subfolder.
        library: Library that the index must name.
        class_name: Class that the index must name.
        target: Device and precision.

    Raises:
        FileNotFoundError: If the component is missing.
        MissingLibraryError: If the library is not installed.
        ValueError: If the index names something else.
    """
    found = checkpoint.component(name)
    if found != (library, class_name):
        raise ValueError(
            f"{checkpoint.folder / INDEX_FILE}: component {name!r} is {'.'.join(found)}; this "
            f"family needs {library}.{class_name}"
        )
    checkpoint.component_files(name)
    try:
        module = __import__(library)
    except ModuleNotFoundError:
        raise MissingLibraryError(
            f"{library} is not installed; it comes with {install_advice(library, 'families')}"
        ) from None
    # The export has a bar of its own.
    module.utils.logging.disable_progress_bar()
    loader = getattr(module, class_name)
    component: nn.Module = loader.from_pretrained(checkpoint.folder / name, dtype=target.dtype)
    return component.to(target.device).eval().requires_grad_(False)


@lru_cache(maxsize=32)
def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        config: dict[str, Any] = json.load(file)
    return config


def component_config(
    checkpoint: Checkpoint, name: str, file: str = "config.json"
) -> dict[str, Any]:
    """The settings that a component was saved with.

    Raises:
        FileNotFoundError: If the component is missing.
    """
    path = checkpoint.folder / name / file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: component {name!r} is missing from the checkpoint")
    return _read(str(path))


def tokenizer_json(checkpoint: Checkpoint) -> bytes:
    """Content of the checkpoint's `tokenizer.json`, made from its other files where it is missing.

    Raises:
        FileNotFoundError: If the component is missing.
        MissingLibraryError: If it must be made and a library for that is not installed.
    """
    folder = checkpoint.folder / "tokenizer"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: component 'tokenizer' is missing from the checkpoint")
    path = folder / "tokenizer.json"
    if path.is_file():
        return path.read_bytes()
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
    except ImportError as error:
        raise MissingLibraryError(
            f"{folder} has no tokenizer.json and what would make one is not installed; it comes "
            f"with `pip install 'reelserve[families]'`: {error}"
        ) from None
    text: str = tokenizer.backend_tokenizer.to_str()
    return text.encode()


def flow_match_spec(config: Mapping[str, Any]) -> FlowMatchSpec:
    """The schedule of a saved `FlowMatchEulerDiscreteScheduler`.

    Args:
        config: Content of `scheduler_config.json`.

    Raises:
        ValueError: If it asks for what our schedule does not do.
    """
    for name in UNSUPPORTED_FLOW_MATCH:
        if config.get(name):
            raise ValueError(f"scheduler_config.json: {name} is {config[name]}; it must be false")
    dynamic = None
    if config.get("use_dynamic_shifting"):
        kind = config.get("time_shift_type", "exponential")
        if kind != "exponential":
            raise ValueError(
                f"scheduler_config.json: time_shift_type is {kind!r}; it must be 'exponential'"
            )
        dynamic = DynamicShift(
            base_seq_len=int(config.get("base_image_seq_len", 256)),
            max_seq_len=int(config.get("max_image_seq_len", 4096)),
            base_shift=float(config.get("base_shift", 0.5)),
            max_shift=float(config.get("max_shift", 1.15)),
        )
    return FlowMatchSpec(
        shift=float(config.get("shift", 1.0)),
        dynamic=dynamic,
        terminal=config.get("shift_terminal") or None,
    )


def ddim_spec(config: Mapping[str, Any]) -> DDIMSpec:
    """The schedule of a saved `DDIMScheduler`.

    Args:
        config: Content of `scheduler_config.json`.

    Raises:
        ValueError: If it asks for what our schedule does not do.
    """
    for name, usual in UNSUPPORTED_DDIM.items():
        if config.get(name, usual):
            raise ValueError(
                f"scheduler_config.json: {name} is {config.get(name, usual)}; it must be false"
            )
    known = {field.name: field for field in dataclasses.fields(DDIMSpec)}
    settings = {name: value for name, value in config.items() if name in known}
    allowed = (
        ("beta_schedule", get_args(BetaSchedule)),
        ("prediction_type", get_args(Prediction)),
        ("timestep_spacing", get_args(TimestepSpacing)),
    )
    for name, values in allowed:
        if name in settings and settings[name] not in values:
            raise ValueError(
                f"scheduler_config.json: {name} is {settings[name]!r}; it must be one of "
                f"{', '.join(values)}"
            )
    return DDIMSpec(**settings)


def limits_with(defaults: RequestLimits, profile: Mapping[str, Any]) -> RequestLimits:
    """Limits with some of them changed.

    Args:
        defaults: Limits of the family.
        profile: Field to a value, or to some of the members of its range.

    Raises:
        ValueError: If there is no such field or member, or a default lies out of its range.
    """
    changes: dict[str, Any] = {}
    for name, value in profile.items():
        if name not in {field.name for field in dataclasses.fields(RequestLimits)}:
            raise ValueError(f"profile: there is no limit {name!r}")
        old = getattr(defaults, name)
        try:
            changes[name] = dataclasses.replace(old, **value) if isinstance(value, dict) else value
        except TypeError as error:
            raise ValueError(f"profile: {name}: {error}") from None
    limits = dataclasses.replace(defaults, **changes)
    for field in dataclasses.fields(limits):
        range_ = getattr(limits, field.name)
        if isinstance(range_, IntRange):
            check_int(f"profile: {field.name}", range_.default, range_)
        elif isinstance(range_, FloatRange):
            check_float(f"profile: {field.name}", range_.default, range_)
    return limits


T5 = ("transformers", "T5EncoderModel")


def t5_stage(checkpoint: Checkpoint, tokens: int, target: Target, *, masked: bool) -> ExportStage:
    """The `text_encoder` stage of a checkpoint with a T5 encoder.

    Args:
        checkpoint: The opened folder.
        tokens: `L` of a prompt.
        target: Device and precision.
        masked: See `T5Stage`.
    """
    encoder = load_library_component(checkpoint, "text_encoder", *T5, target)
    mask = torch.ones(2, TEXT_ROWS, tokens, dtype=torch.int64, device=target.device)
    # Two tensors: the export takes one that is given twice for one input.
    return ExportStage("text_encoder", T5Stage(encoder, masked=masked), (mask, mask.clone()))


def t5_source(checkpoint: Checkpoint, tokens: int, *, masked: bool) -> StageSource:
    """Source of `t5_stage`; no limit of a request shapes it but the number of tokens."""
    settings = repr((checkpoint.component("text_encoder"), tokens, masked))
    return StageSource(checkpoint.component_files("text_encoder"), settings)


class T5Stage(nn.Module):
    """INPUT_IDS, ATTENTION_MASK `[B, 2, L]` to PROMPT_EMBEDS `[B, 2, L, E]`.

    Args:
        encoder: transformers' `T5EncoderModel`.
        masked: Whether padding is hidden from the encoder, as Latte does and LTX-Video does not.
    """

    def __init__(self, encoder: nn.Module, *, masked: bool) -> None:
        super().__init__()
        self.encoder, self.masked = encoder, masked

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch, rows, tokens = input_ids.shape
        ids = input_ids.reshape(batch * rows, tokens)
        mask = attention_mask.reshape(batch * rows, tokens)
        if not self.masked:
            # Kept as an input of the graph, which the contract asks for.
            mask = torch.ones_like(mask) + 0 * mask
        embeds: Tensor = self.encoder(ids, attention_mask=mask)[0]
        return embeds.reshape(batch, rows, tokens, -1).float()


class Unchanged(nn.Module):
    """Frames as they come, for a stage that the checkpoint does without."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.clone()
