"""Latte checkpoints, through diffusers' own modules.

Source: diffusers `LattePipeline` with its defaults; captions are put in lower case, not cleaned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers
from torch import Tensor, nn

from reelserve.export.families.diffusers_components import (
    Unchanged,
    check_t5,
    t5_source,
    t5_stage,
    t5_width,
)
from reelserve.export.families.latte_denoiser import LatteDenoiserStage
from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.families.library_components import (
    STEMS,
    check_library_component,
    component_settings,
    load_library_component,
)
from reelserve.export.families.limits import limits_with
from reelserve.export.families.ranges import frame_ranges
from reelserve.export.families.registry import limits_of
from reelserve.export.families.schedulers import scheduler_spec
from reelserve.export.families.settings import Settings
from reelserve.export.families.tokenizer import tokenizer_json
from reelserve.export.stages import CPU_FP32, ExportStage, StageSource, Target, to_uint8
from reelserve.kernels.launch import MAX_FRAMES
from reelserve.models.config_limits import MAX_SIZE, MAX_WIDTH
from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange, LatentSpec, RequestLimits
from reelserve.pipeline.checkpoint_files import CheckpointFileError

DECODE_CHUNK_SIZE = 14
"""Frames that a decoder with temporal layers sees together, as in diffusers."""
TRANSFORMER = ("diffusers", "LatteTransformer3DModel")
TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "num_attention_heads": 16,
    "attention_head_dim": 88,
    "sample_size": 64,
    "video_length": 16,
    "norm_type": "layer_norm",
}
"""What diffusers' class takes for settings that a config leaves out; a test compares them."""
TRANSFORMER_HEADS = ("num_attention_heads", "attention_head_dim")
VAE_CLASSES = ("AutoencoderKL", "AutoencoderKLTemporalDecoder")
VAE_DEFAULTS: dict[str, Any] = {
    "block_out_channels": (64,),
    "latent_channels": 4,
    "scaling_factor": 0.18215,
}
"""Like `TRANSFORMER_DEFAULTS`."""
MAX_SIDE = 128
"""Rows or columns of latents."""
MAX_POSITIONS = 2**24
"""Values of the table of positions, which is made before a weight is seen; Latte-1 has 2²⁰."""
MAX_PATCH, MAX_BLOCKS = 16, 8
WHITE = 255.0


class LatteFamily:
    """Stages of a checkpoint whose index names `LattePipeline`.

    Args:
        checkpoint: The opened folder.
        profile: Changes of the request limits, see `limits_with`.
    """

    name = "latte"

    def __init__(self, checkpoint: Checkpoint, profile: Mapping[str, Any] | None = None) -> None:
        self._checkpoint = checkpoint
        self._profile = profile or {}

    def spec(self) -> CheckpointSpec:
        """Limits, latents and scheduler of the checkpoint, for the serving side.

        Raises:
            FileNotFoundError: If a component is missing.
            ValueError: If the scheduler asks for what ours does not do.
        """
        transformer = self._transformer_settings()
        latents = LatentSpec(
            channels=transformer.integer("in_channels", MAX_SIZE),
            temporal_compression=1,
            spatial_compression=self._spatial_compression(),
            window_frames=transformer.integer("video_length", MAX_FRAMES),
            window_overlap=0,
        )
        return CheckpointSpec(
            name=self._checkpoint.folder.resolve().name,
            scheduler=scheduler_spec(self._checkpoint, "DDIMScheduler"),
            latents=latents,
            limits=self._limits(),
            shared_text_mask=True,
        )

    def tokenizer(self) -> bytes:
        """Content of `tokenizer.json`, with the pipeline's lower case before all else.

        Raises:
            FileNotFoundError: If the component is missing.
        """
        tokenizer = Tokenizer.from_buffer(tokenizer_json(self._checkpoint))
        first = [normalizers.Lowercase(), normalizers.Strip()]
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([*first, *own])
        text: str = tokenizer.to_str()
        return text.encode()

    def source(self, stage: str) -> StageSource:
        """Files and settings that an engine stage is made from."""
        if stage == "text_encoder":
            return t5_source(self._checkpoint, self._limits().max_prompt_tokens, masked=True)
        components = {"denoiser": "transformer", "vae_decoder": "vae"}
        if stage not in components:
            return StageSource((), "unchanged")
        settings = repr((self._limits(), self._checkpoint.component(components[stage])))
        files = self._checkpoint.component_files(components[stage], STEMS[TRANSFORMER[0]])
        return StageSource(files, settings, TRANSFORMER[0])

    def check(self, stage: str) -> None:
        """Refuses weights that do not fit an engine stage, without memory for them.

        Raises:
            CheckpointFileError: If they do not fit.
        """
        if stage == "text_encoder":
            check_t5(self._checkpoint, self.tokenizer())
        if stage == "denoiser":
            self._transformer_settings()
            check_library_component(self._checkpoint, "transformer", *TRANSFORMER)
        if stage == "vae_decoder":
            check_library_component(self._checkpoint, "vae", TRANSFORMER[0], self._vae_class())

    def build(self, stage: str, target: Target = CPU_FP32) -> ExportStage:
        """Loads an engine stage.

        Args:
            stage: Its name.
            target: Device and precision.

        Raises:
            FileNotFoundError: If a component is missing.
            CheckpointFileError: If a component has another class or norm, or does not fit.
        """
        builders = {
            "text_encoder": self._text_encoder,
            "denoiser": self._denoiser,
            "vae_decoder": self._vae_decoder,
        }
        if stage in builders:
            return builders[stage](target)
        frames = torch.zeros(2, 3, 32, 32, 3, dtype=torch.uint8, device=target.device)
        free = {"FRAMES": {1: "frames", 2: "height", 3: "width"}}
        return ExportStage(stage, Unchanged(), (frames,), free, frame_ranges(self.spec()))

    def _limits(self) -> RequestLimits:
        """One size and length: the position embeddings are tables of just that."""
        transformer = self._transformer_settings()
        frames = transformer.integer("video_length", MAX_FRAMES)
        side = transformer.integer("sample_size", MAX_SIDE) * self._spatial_compression()
        limits = replace(
            limits_of(self.name),
            num_frames=IntRange(frames, frames, frames),
            height=IntRange(side, side, side),
            width=IntRange(side, side, side),
        )
        changed = limits_with(limits, self._profile)
        for name in ("num_frames", "height", "width"):
            if getattr(changed, name) != getattr(limits, name):
                raise ValueError(
                    f"{name} of this checkpoint is {getattr(limits, name).default} and no other"
                )
        return changed

    def _transformer_settings(self) -> Settings:
        """Settings of the transformer, which must fit its neighbours.

        Raises:
            CheckpointFileError: If its norm, or the width of text or latents, is another one.
        """
        settings = component_settings(self._checkpoint, "transformer", TRANSFORMER_DEFAULTS)
        settings.only("norm_type", "ada_norm_single")
        patch = settings.integer("patch_size", MAX_PATCH)
        heads, width = (settings.integer(name, MAX_WIDTH) for name in TRANSFORMER_HEADS)
        positions = (settings.integer("sample_size", MAX_SIDE) // patch) ** 2
        if positions * heads * width > MAX_POSITIONS:
            raise settings.refused(
                "sample_size",
                f"smaller: its positions have {heads * width} values each, and the "
                f"limit is {MAX_POSITIONS} values together",
            )
        settings.only("in_channels", self._vae_settings().integer("latent_channels", MAX_SIZE))
        settings.only("caption_channels", t5_width(self._checkpoint))
        return settings

    def _vae_settings(self) -> Settings:
        """Settings of the autoencoder, whose latents must be scaled by a number."""
        settings = component_settings(self._checkpoint, "vae", VAE_DEFAULTS)
        settings.positive("scaling_factor")
        return settings

    def _vae_class(self) -> str:
        """Class of the autoencoder.

        Raises:
            CheckpointFileError: If the family has no such class.
        """
        found = self._checkpoint.component("vae")
        if found not in {("diffusers", name) for name in VAE_CLASSES}:
            raise CheckpointFileError(
                f"{self._checkpoint.folder / INDEX_FILE}: component 'vae' is {'.'.join(found)}; "
                f"this family needs diffusers.{' or diffusers.'.join(VAE_CLASSES)}"
            )
        return found[1]

    def _spatial_compression(self) -> int:
        blocks = self._vae_settings().entries("block_out_channels", int)
        if len(blocks) > MAX_BLOCKS:
            raise CheckpointFileError(
                f"{self._vae_settings().path}: block_out_channels has {len(blocks)} entries; the "
                f"limit is {MAX_BLOCKS}"
            )
        return int(2 ** (len(blocks) - 1))

    def _text_encoder(self, target: Target) -> ExportStage:
        tokens = self._limits().max_prompt_tokens
        return t5_stage(self._checkpoint, tokens, target, masked=True)

    def _denoiser(self, target: Target) -> ExportStage:
        transformer = load_library_component(self._checkpoint, "transformer", *TRANSFORMER, target)
        width = t5_width(self._checkpoint)
        embeds = torch.randn(2, self._limits().max_prompt_tokens, width)
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64)
        inputs = (self._example_latents(), torch.full((2, 1), 500.0), embeds, mask)
        return ExportStage(
            "denoiser",
            LatteDenoiserStage(transformer),
            tuple(tensor.to(target.device) for tensor in inputs),
        )

    def _vae_decoder(self, target: Target) -> ExportStage:
        name = self._vae_class()
        vae = load_library_component(self._checkpoint, "vae", TRANSFORMER[0], name, target)
        del vae.encoder
        temporal = name == "AutoencoderKLTemporalDecoder"
        stage = LatteDecoderStage(vae, DECODE_CHUNK_SIZE if temporal else None)
        return ExportStage("vae_decoder", stage, (self._example_latents().to(target.device),))

    def _example_latents(self) -> Tensor:
        settings = self._transformer_settings()
        channels = settings.integer("in_channels", MAX_SIZE)
        frames = settings.integer("video_length", MAX_FRAMES)
        side = settings.integer("sample_size", MAX_SIDE)
        return torch.randn(2, channels, frames, side, side)


class LatteDecoderStage(nn.Module):
    """LATENTS `[B, C, F, H, W]` to FRAMES, uint8 `[B, F, 8H, 8W, 3]`.

    Args:
        vae: diffusers' `AutoencoderKL` or `AutoencoderKLTemporalDecoder`.
        chunk_size: Frames that the latter decodes together; None: every frame is on its own.
    """

    def __init__(self, vae: Any, chunk_size: int | None) -> None:
        super().__init__()
        self.vae, self.chunk_size = vae, chunk_size

    def forward(self, latents: Tensor) -> Tensor:
        latents = latents.transpose(1, 2) / self.vae.config.scaling_factor
        latents = latents.to(self.vae.dtype)
        frames = latents.shape[1]
        chunk = self.chunk_size or frames
        parts = [self._decode(latents[:, i : i + chunk]) for i in range(0, frames, chunk)]
        decoded = torch.cat(parts, dim=1).permute(0, 1, 3, 4, 2)
        return to_uint8(decoded.float() * (WHITE / 2) + WHITE / 2)

    def _decode(self, latents: Tensor) -> Tensor:
        """`[B, f, C, H, W]` to `[B, f, 3, 8H, 8W]`."""
        batch, frames = latents.shape[:2]
        extra = {"num_frames": frames} if self.chunk_size else {}
        decoded: Tensor = self.vae.decode(latents.flatten(0, 1), return_dict=False, **extra)[0]
        return decoded.reshape(batch, frames, *decoded.shape[1:])
