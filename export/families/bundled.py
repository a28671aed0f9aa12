"""Checkpoints around our denoiser, the bundled one first.

That has our own text encoder, autoencoder and upsampler. A larger one may have a T5 text encoder
and LTX-Video's autoencoder instead, as folders of the public libraries, and a packaged upsampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from reelserve.export.families.diffusers_components import (
    T5,
    check_t5,
    t5_source,
    t5_stage,
    t5_width,
)
from reelserve.export.families.layout import INDEX_FILE, PACKAGE_PREFIX, Checkpoint
from reelserve.export.families.limits import LARGEST, limits_with, require_limits
from reelserve.export.families.ltx import (
    LTX_DECODER,
    MAX_COMPRESSION,
    check_ltx_decoder,
    ltx_decoder,
    ltx_decoder_source,
)
from reelserve.export.families.ranges import frame_ranges, latent_ranges, window_ranges
from reelserve.export.families.schedulers import scheduler_spec
from reelserve.export.families.settings import Settings
from reelserve.export.families.tokenizer import tokenizer_json
from reelserve.export.families.vocabulary import vocabulary_of
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
from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.models.frame_consistency import ConsistencyConfig, FrameConsistency
from reelserve.models.loading import (
    CONFIG_FILE,
    Component,
    component_config,
    component_without_weights,
    load_component,
)
from reelserve.models.minilm import load_minilm
from reelserve.models.packages import package_path
from reelserve.models.sentence_features import PACKAGE, RESOURCES
from reelserve.models.sentence_tokenizer import (
    NUM_SLOTS,
    NUM_SPECIAL,
    sentence_tokenizer_json,
)
from reelserve.models.text_encoder import MAX_TOKENS, TextEncoder, TextEncoderConfig
from reelserve.models.upsampler import Upsampler, UpsamplerConfig, load_upsampler
from reelserve.models.video_vae import VideoVAE, VideoVAEConfig
from reelserve.models.weight_files import DIFFUSERS_STEM, require_finite
from reelserve.pipeline.checkpoint import CheckpointSpec, LatentSpec, limits_from_dict
from reelserve.pipeline.checkpoint_files import CheckpointFileError, one_line

_EXAMPLE_FRAMES = 8
_TEXT_ROWS = 2
MAX_CHANNELS = 4096
"""Channels of latents."""
TEMPORAL_COMPRESSION = 4
"""Frames for each latent frame of our autoencoder."""


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
        path = checkpoint.folder / INDEX_FILE
        scheduler = scheduler_spec(checkpoint, "FlowMatchEulerDiscreteScheduler")
        try:
            limits = limits_from_dict(checkpoint.setting("limits"))
            latents = LatentSpec(**checkpoint.setting("latents"))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointFileError(f"{path}: {one_line(error)}") from None
        try:
            require_limits(limits)
        except ValueError as error:
            raise CheckpointFileError(f"{path}: limits: {error}") from None
        _require_latents(Settings(path, asdict(latents)))
        name = checkpoint.setting("name")
        if not isinstance(name, str) or not name:
            raise CheckpointFileError(f"{path}: name is {name!r}; it must be a text")
        return CheckpointSpec(
            name=name,
            scheduler=scheduler,
            latents=latents,
            limits=limits_with(limits, self._profile),
            vocabulary=self._vocabulary(),
        )

    def tokenizer(self) -> bytes:
        """Content of the `tokenizer.json`: the T5 checkpoint's, or that of our text encoder."""
        if self._has("text_encoder", T5):
            return tokenizer_json(self._checkpoint)
        if self._packaged("text_encoder"):
            return self._checkpoint.packaged_file("text_encoder", "tokenizer.json").read_bytes()
        return sentence_tokenizer_json()

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
        if stage == "text_encoder" and self._packaged(stage):
            names = ("config.json", "model.safetensors")
            return StageSource(tuple(checkpoint.packaged_file(stage, n) for n in names), limits)
        if stage == "text_encoder":
            features = package_path(PACKAGE, RESOURCES, "weights.npz")
            files = checkpoint.component_files(stage, DIFFUSERS_STEM)
            return StageSource((*files, features), limits)
        if stage == "denoiser":
            return StageSource(checkpoint.component_files("transformer", DIFFUSERS_STEM), limits)
        if stage == "vae_decoder":
            return StageSource(checkpoint.component_files("vae", DIFFUSERS_STEM), limits)
        if stage == "upsampler" and not self._packaged("upsampler"):
            return StageSource(checkpoint.component_files(stage, DIFFUSERS_STEM), limits)
        if stage == "upsampler":
            suffixes = (".param", ".bin")
            files = tuple(checkpoint.packaged_file(stage, suffix=suffix) for suffix in suffixes)
            return StageSource(files, limits)
        if stage == "frame_consistency":
            return StageSource((), repr((ConsistencyConfig(), spec.limits)))
        raise ValueError(f"stage {stage!r} is not an engine stage")

    def check(self, stage: str) -> None:
        """Refuses weights that do not fit an engine stage, without memory for them.

        Raises:
            CheckpointFileError: If they do not fit.
        """
        if stage == "text_encoder" and self._has("text_encoder", T5):
            check_t5(self._checkpoint, self.tokenizer())
        elif stage == "text_encoder" and not self._packaged(stage):
            self._unloaded("text_encoder", TextEncoder)
            self._require_tokens()
        if stage == "denoiser":
            denoiser = self._unloaded("transformer", SpaceTimeDenoiser)
            self._require_fit(denoiser.config)
        if stage == "vae_decoder" and self._has("vae", LTX_DECODER):
            check_ltx_decoder(self._checkpoint)
        elif stage == "vae_decoder":
            vae = self._unloaded("vae", VideoVAE)
            self._require_enlargement(vae.config)
        if stage == "upsampler" and not self._packaged("upsampler"):
            self._unloaded("upsampler", Upsampler)

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
        if self._packaged("text_encoder"):
            minilm = load_minilm(*self._checkpoint.packaged("text_encoder"))
            mask = torch.ones(2, _TEXT_ROWS, tokens, dtype=torch.int64, device=target.device)
            mask[:, 1, 2:] = 0
            return ExportStage(
                "text_encoder", TextEncoderStage(target.place(minilm)), (mask * 101, mask)
            )
        # Always in fp32: it is small, and what a sentence names must not hang on a rounding.
        target = replace(target, precision="fp32")
        encoder = self._load("text_encoder", TextEncoder, target)
        # Its frozen features are of no checkpoint: they are on the host when it has been loaded.
        module = TextEncoderStage(encoder.to(target.device))
        mask = torch.ones(2, _TEXT_ROWS, tokens, dtype=torch.int64, device=target.device)
        mask[:, 1, NUM_SPECIAL + 1 :] = 0
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
        if self._packaged("upsampler"):
            upsampler = target.place(load_upsampler(*self._checkpoint.packaged("upsampler")))
        else:
            upsampler = self._load("upsampler", Upsampler, target)
        frames, scale = self._example_frames()
        return ExportStage(
            "upsampler",
            UpsamplerStage(upsampler),
            (frames.to(target.device),),
            {"FRAMES": {1: "frames"}},
            _frames_of(frame_ranges(self.spec(), scale)),
        )

    def _vocabulary(self) -> dict[str, tuple[str, ...]]:
        """What may be asked for in words; nothing where the text encoder is a public one."""
        if self._has("text_encoder", T5) or self._packaged("text_encoder"):
            return {}
        return vocabulary_of(self._text_config())

    def _text_config(self) -> TextEncoderConfig:
        config = component_config(self._folder("text_encoder", TextEncoder), TextEncoder)
        assert isinstance(config, TextEncoderConfig)
        return config

    def _packaged(self, component: str) -> bool:
        """Whether a component's weights come with a package."""
        library, _ = self._checkpoint.component(component)
        return library.startswith(PACKAGE_PREFIX)

    def _scale(self) -> int:
        """How much the upsampler enlarges frames."""
        if self._packaged("upsampler"):
            return load_upsampler(*self._checkpoint.packaged("upsampler")).scale
        config = component_config(self._folder("upsampler", Upsampler), Upsampler)
        assert isinstance(config, UpsamplerConfig)
        return config.scale

    def _has(self, component: str, kind: tuple[str, str]) -> bool:
        return self._checkpoint.component(component) == kind

    def _load(self, component: str, module_class: type[Component], target: Target) -> Component:
        folder = self._folder(component, module_class)
        variant = self._checkpoint.variant
        module = load_component(folder, module_class, target.dtype, target.device, variant)
        return module.requires_grad_(False)

    def _unloaded(self, component: str, module_class: type[Component]) -> Component:
        """A component on the meta device, whose weights fit and hold numbers."""
        folder = self._folder(component, module_class)
        module, weights = component_without_weights(folder, module_class, self._checkpoint.variant)
        require_finite(weights)
        return module

    def _folder(self, component: str, module_class: type[Component]) -> Path:
        """Folder of a component that is sure to be of a class."""
        library, name = module_class.__module__, module_class.__name__
        self._checkpoint.require_component(component, library, name)
        return self._checkpoint.folder / component

    def _require_fit(self, config: DenoiserConfig) -> None:
        """Refuses a denoiser that does not fit its neighbours."""
        path = self._checkpoint.folder / "transformer" / CONFIG_FILE
        settings = Settings(path, asdict(config))
        settings.only("in_channels", self.spec().latents.channels)
        if self._has("text_encoder", T5):
            settings.only("text_dim", t5_width(self._checkpoint))
        elif not self._packaged("text_encoder"):
            settings.only("text_dim", self._text_config().embed_dim)
            settings.only("text_tokens", NUM_SLOTS)

    def _require_tokens(self) -> None:
        """Refuses prompts of a length that our text encoder cannot read."""
        limits = Settings(self._checkpoint.folder / INDEX_FILE, asdict(self.spec().limits))
        limits.integer("max_prompt_tokens", MAX_TOKENS, low=NUM_SPECIAL + 1)

    def _require_enlargement(self, config: VideoVAEConfig) -> None:
        """Refuses latents that our autoencoder and the upsampler do not make frames of."""
        latents = Settings(self._checkpoint.folder / INDEX_FILE, asdict(self.spec().latents))
        latents.only("temporal_compression", TEMPORAL_COMPRESSION)
        latents.only("spatial_compression", config.spatial_compression * self._scale())

    def _example_latents(self) -> torch.Tensor:
        spec = self.spec()
        rows = spec.limits.height.default // spec.latents.spatial_compression
        columns = spec.limits.width.default // spec.latents.spatial_compression
        return torch.randn(2, spec.latents.channels, _EXAMPLE_FRAMES, rows, columns)

    def _example_frames(self) -> tuple[torch.Tensor, int]:
        """Frames as the decoder gives them, and how much the upsampler enlarges them."""
        spec = self.spec()
        scale = self._scale()
        rows, columns = spec.limits.height.default // scale, spec.limits.width.default // scale
        shape = (2, _EXAMPLE_FRAMES, rows, columns, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8), scale


def _require_latents(settings: Settings) -> None:
    """Refuses a shape of latents that no clip can have."""
    settings.integer("channels", MAX_CHANNELS)
    settings.integer("temporal_compression", MAX_COMPRESSION)
    settings.integer("spatial_compression", MAX_COMPRESSION)
    window = settings.integer("window_frames", LARGEST["num_frames"])
    settings.integer("window_overlap", window - 1, low=0)
    settings.only("causal", True, False)


def _frames_of(ranges: dict[str, DimRange]) -> dict[str, DimRange]:
    """The range of a stage whose rows and columns are fixed in its graph."""
    return {"frames": ranges["frames"]}
