"""Checkpoints around our denoiser, the bundled one first.

That has our autoencoder and a packaged text encoder. A larger one may have a T5 text encoder and
LTX-Video's autoencoder instead, as folders of the public libraries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from reelserve.export.families.diffusers_components import (
    T5,
    limits_with,
    t5_source,
    t5_stage,
    tokenizer_json,
)
from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.families.ltx import LTX_DECODER, ltx_decoder, ltx_decoder_source
from reelserve.export.families.ranges import frame_ranges, latent_ranges, window_ranges
from reelserve.export.stages import (
    CPU_FP32,
    DenoiserStage,
    DimRange,
    ExportStage,
    FrameConsistencyStage,
    StageSource,
    Target,
    TextEncoderStage,
    UpsamplerStage,
    VAEDecoderStage,
)
from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.frame_consistency import ConsistencyConfig, FrameConsistency
from reelserve.models.loading import Component, load_component
from reelserve.models.text_encoder import load_text_encoder
from reelserve.models.upsampler import load_upsampler
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.checkpoint import CheckpointSpec, LatentSpec, limits_from_dict
from reelserve.pipeline.scheduler import FlowMatchSpec

_EXAMPLE_FRAMES = 8
_TEXT_ROWS = 2


class BundledFamily:
    """Stages of a checkpoint whose index names `BundledTextToVideoPipeline`.

    Args:
        checkpoint: The opened folder.
        profile: Changes of the request limits, see `limits_with`.
    """

    name = "bundled"

    def __init__(self, checkpoint: Checkpoint, profile: Mapping[str, Any] | None = None) -> None:
        self._checkpoint, self._profile = checkpoint, profile or {}

    def spec(self) -> CheckpointSpec:
        """Limits, latents and scheduler of the checkpoint, for the serving side.

        Raises:
            ValueError: If the index misses or misnames a setting.
        """
        checkpoint = self._checkpoint
        path = checkpoint.folder / "scheduler" / "scheduler_config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: component 'scheduler' is missing")
        scheduler: dict[str, Any] = json.loads(path.read_text())
        try:
            return CheckpointSpec(
                name=str(checkpoint.setting("name")),
                scheduler=FlowMatchSpec(shift=float(scheduler["shift"])),
                latents=LatentSpec(**checkpoint.setting("latents")),
                limits=limits_with(limits_from_dict(checkpoint.setting("limits")), self._profile),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"{checkpoint.folder / INDEX_FILE}: {error}") from None

    def tokenizer(self) -> bytes:
        """Content of the `tokenizer.json`: the T5 checkpoint's, or that of the packaged encoder."""
        if self._has("text_encoder", T5):
            return tokenizer_json(self._checkpoint)
        return self._checkpoint.packaged_file("text_encoder", "tokenizer.json").read_bytes()

    def source(self, stage: str) -> StageSource:
        """Files and settings that an engine stage is made from.

        Raises:
            FileNotFoundError: If a component is missing.
        """
        checkpoint, spec = self._checkpoint, self.spec()
        limits = repr((spec.latents, spec.limits))
        if stage == "text_encoder" and self._has("text_encoder", T5):
            return t5_source(checkpoint, spec.limits.max_prompt_tokens, masked=True)
        if stage == "vae_decoder" and self._has("vae", LTX_DECODER):
            return ltx_decoder_source(checkpoint, latent_ranges(spec))
        if stage == "text_encoder":
            names = ("config.json", "model.safetensors")
            files = tuple(checkpoint.packaged_file(stage, name) for name in names)
            return StageSource(files, limits)
        if stage == "denoiser":
            return StageSource(checkpoint.component_files("transformer"), limits)
        if stage == "vae_decoder":
            return StageSource(checkpoint.component_files("vae"), limits)
        if stage == "upsampler":
            suffixes = (".param", ".bin")
            files = tuple(checkpoint.packaged_file(stage, suffix=suffix) for suffix in suffixes)
            return StageSource(files, limits)
        if stage == "frame_consistency":
            return StageSource((), repr((ConsistencyConfig(), spec.limits)))
        raise ValueError(f"stage {stage!r} is not an engine stage")

    def build(self, stage: str, target: Target = CPU_FP32) -> ExportStage:
        """Loads an engine stage.

        Args:
            stage: Its name.
            target: Device and precision.

        Raises:
            FileNotFoundError: If a component is missing.
            ValueError: If a component has an unknown class or does not fit its configuration.
        """
        builders = {
            "text_encoder": self._text_encoder,
            "denoiser": self._denoiser,
            "vae_decoder": self._vae_decoder,
            "frame_consistency": self._frame_consistency,
            "upsampler": self._upsampler,
        }
        if stage not in builders:
            raise ValueError(f"stage {stage!r} is not an engine stage")
        return builders[stage](target)

    def _text_encoder(self, target: Target) -> ExportStage:
        tokens = self.spec().limits.max_prompt_tokens
        if self._has("text_encoder", T5):
            return t5_stage(self._checkpoint, tokens, target, masked=True)
        encoder = load_text_encoder(*self._checkpoint.packaged("text_encoder"))
        mask = torch.ones(2, _TEXT_ROWS, tokens, dtype=torch.int64, device=target.device)
        mask[:, 1, 2:] = 0
        module = TextEncoderStage(target.place(encoder))
        return ExportStage("text_encoder", module, (mask * 101, mask))

    def _denoiser(self, target: Target) -> ExportStage:
        denoiser = self._load("transformer", SpaceTimeDenoiser, target)
        latents = self._example_latents()
        tokens = self.spec().limits.max_prompt_tokens
        embeds = torch.randn(len(latents), tokens, denoiser.config.text_dim)
        mask = torch.ones(len(latents), tokens, dtype=torch.int64)
        inputs = (latents, torch.full((len(latents), 1), 500.0), embeds, mask)
        return ExportStage(
            "denoiser",
            DenoiserStage(denoiser),
            tuple(tensor.to(target.device) for tensor in inputs),
            {"LATENTS": {2: "frames"}},
            _frames_of(window_ranges(self.spec())),
        )

    def _vae_decoder(self, target: Target) -> ExportStage:
        if self._has("vae", LTX_DECODER):
            return ltx_decoder(self._checkpoint, target, latent_ranges(self.spec()))
        vae = self._load("vae", VideoVAE, target)
        del vae.encoder
        return ExportStage(
            "vae_decoder",
            VAEDecoderStage(vae),
            (self._example_latents().to(target.device),),
            {"LATENTS": {2: "frames"}},
            _frames_of(latent_ranges(self.spec())),
        )

    def _frame_consistency(self, target: Target) -> ExportStage:
        stage = FrameConsistencyStage(FrameConsistency()).to(target.device)
        free = {1: "frames", 2: "height", 3: "width"}
        frames, scale = self._example_frames()
        return ExportStage(
            "frame_consistency",
            stage,
            (frames.to(target.device),),
            {"FRAMES": free},
            frame_ranges(self.spec(), scale),
        )

    def _upsampler(self, target: Target) -> ExportStage:
        upsampler = load_upsampler(*self._checkpoint.packaged("upsampler"))
        frames, scale = self._example_frames()
        return ExportStage(
            "upsampler",
            UpsamplerStage(target.place(upsampler)),
            (frames.to(target.device),),
            {"FRAMES": {1: "frames"}},
            _frames_of(frame_ranges(self.spec(), scale)),
        )

    def _has(self, component: str, kind: tuple[str, str]) -> bool:
        return self._checkpoint.component(component) == kind

    def _load(self, component: str, module_class: type[Component], target: Target) -> Component:
        library, name = self._checkpoint.component(component)
        expected = (module_class.__module__, module_class.__name__)
        if (library, name) != expected:
            raise ValueError(
                f"{self._checkpoint.folder / INDEX_FILE}: component {component!r} has unknown "
                f"class {library}.{name}; known is {'.'.join(expected)}"
            )
        self._checkpoint.component_files(component)
        folder = self._checkpoint.folder / component
        module = load_component(folder, module_class, target.dtype, target.device)
        return module.requires_grad_(False)

    def _example_latents(self) -> torch.Tensor:
        spec = self.spec()
        rows = spec.limits.height.default // spec.latents.spatial_compression
        columns = spec.limits.width.default // spec.latents.spatial_compression
        return torch.randn(2, spec.latents.channels, _EXAMPLE_FRAMES, rows, columns)

    def _example_frames(self) -> tuple[torch.Tensor, int]:
        """Frames as the decoder gives them, and how much the upsampler enlarges them."""
        spec = self.spec()
        scale = load_upsampler(*self._checkpoint.packaged("upsampler")).scale
        rows, columns = spec.limits.height.default // scale, spec.limits.width.default // scale
        shape = (2, _EXAMPLE_FRAMES, rows, columns, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8), scale


def _frames_of(ranges: dict[str, DimRange]) -> dict[str, DimRange]:
    """The range of a stage whose rows and columns are fixed in its graph."""
    return {"frames": ranges["frames"]}
