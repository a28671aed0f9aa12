"""LTX-Video checkpoints, through diffusers' own modules.

Source: diffusers `LTXPipeline` with its defaults (no guidance rescaling, decoding at timestep 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from reelserve.export.families.diffusers_components import (
    Unchanged,
    check_t5,
    t5_source,
    t5_stage,
    t5_width,
)
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.library_components import (
    STEMS,
    check_library_component,
    component_settings,
    load_library_component,
)
from reelserve.export.families.limits import limits_with
from reelserve.export.families.ltx_streamed import StreamedDecoder, needs_parts
from reelserve.export.families.ranges import frame_ranges, latent_ranges
from reelserve.export.families.registry import limits_of
from reelserve.export.families.schedulers import scheduler_spec
from reelserve.export.families.settings import Settings
from reelserve.export.families.tokenizer import tokenizer_json
from reelserve.export.stages import (
    CPU_FP32,
    DimRange,
    ExportStage,
    StageSource,
    Target,
    to_uint8,
)
from reelserve.models.config_limits import MAX_SIZE
from reelserve.pipeline.checkpoint import CheckpointSpec, LatentSpec
from reelserve.pipeline.checkpoint_files import CheckpointFileError

EXAMPLE_LATENTS = (3, 4, 5)
MAX_PATCH, MAX_COMPRESSION = 64, 1024
"""Largest patch of a decoder, and largest number of frames or pixels a latent stands for."""
WHITE = 255.0


class LTXFamily:
    """Stages of a checkpoint whose index names `LTXPipeline`.

    Args:
        checkpoint: The opened folder.
        profile: Changes of the request limits, see `limits_with`.
    """

    name = "ltx"

    def __init__(self, checkpoint: Checkpoint, profile: Mapping[str, Any] | None = None) -> None:
        self._checkpoint = checkpoint
        self._limits = limits_with(limits_of(self.name), profile or {})

    def spec(self) -> CheckpointSpec:
        """Limits, latents and scheduler of the checkpoint, for the serving side.

        Raises:
            FileNotFoundError: If a component is missing.
            ValueError: If the scheduler asks for what ours does not do.
        """
        temporal, spatial = compression(decoder_settings(self._checkpoint))
        latents = LatentSpec(
            channels=self._transformer_settings().integer("in_channels", MAX_SIZE),
            temporal_compression=temporal,
            spatial_compression=spatial,
            window_frames=(self._limits.num_frames.high - 1) // temporal + 1,
            window_overlap=0,
            causal=True,
        )
        return CheckpointSpec(
            name=self._checkpoint.folder.resolve().name,
            scheduler=scheduler_spec(self._checkpoint, "FlowMatchEulerDiscreteScheduler"),
            latents=latents,
            limits=self._limits,
        )

    def tokenizer(self) -> bytes:
        """Content of `tokenizer.json`.

        Raises:
            FileNotFoundError: If the component is missing.
        """
        return tokenizer_json(self._checkpoint)

    def source(self, stage: str) -> StageSource:
        """Files and settings that an engine stage is made from."""
        checkpoint = self._checkpoint
        if stage == "text_encoder":
            return t5_source(checkpoint, self._limits.max_prompt_tokens, masked=False)
        if stage == "denoiser":
            settings = repr((self._limits, checkpoint.component("transformer")))
            files = checkpoint.component_files("transformer", STEMS[TRANSFORMER[0]])
            return StageSource(files, settings, TRANSFORMER[0])
        if stage == "vae_decoder":
            return ltx_decoder_source(checkpoint, latent_ranges(self.spec()))
        return StageSource((), f"unchanged {frame_ranges(self.spec())}")

    def check(self, stage: str) -> None:
        """Refuses weights that do not fit an engine stage, without memory for them.

        Raises:
            CheckpointFileError: If they do not fit, or the decoder adds noise.
        """
        if stage == "text_encoder":
            check_t5(self._checkpoint, self.tokenizer())
        if stage == "denoiser":
            self._transformer_settings()
            check_library_component(self._checkpoint, "transformer", *TRANSFORMER)
        if stage == "vae_decoder":
            check_ltx_decoder(self._checkpoint)

    def build(self, stage: str, target: Target = CPU_FP32) -> ExportStage:
        """Loads an engine stage.

        Args:
            stage: Its name.
            target: Device and precision.

        Raises:
            FileNotFoundError: If a component is missing.
            ValueError: If a component has another class, or the decoder adds noise.
        """
        builders = {
            "text_encoder": self._text_encoder,
            "denoiser": self._denoiser,
            "vae_decoder": self._vae_decoder,
        }
        if stage in builders:
            return builders[stage](target)
        frames = torch.zeros(2, 9, 32, 32, 3, dtype=torch.uint8, device=target.device)
        free = {"FRAMES": {1: "frames", 2: "height", 3: "width"}}
        return ExportStage(stage, Unchanged(), (frames,), free, frame_ranges(self.spec()))

    def _text_encoder(self, target: Target) -> ExportStage:
        tokens = self._limits.max_prompt_tokens
        return t5_stage(self._checkpoint, tokens, target, masked=False)

    def _denoiser(self, target: Target) -> ExportStage:
        transformer = load_library_component(self._checkpoint, "transformer", *TRANSFORMER, target)
        temporal, spatial = compression(decoder_settings(self._checkpoint))
        width = self._transformer_settings().integer("caption_channels", MAX_SIZE)
        embeds = torch.randn(2, self._limits.max_prompt_tokens, width)
        inputs = (
            self._example_latents(),
            torch.full((2, 1), 500.0),
            embeds,
            torch.ones(embeds.shape[:2], dtype=torch.int64),
        )
        return ExportStage(
            "denoiser",
            LTXDenoiserStage(transformer, (temporal / self._limits.fps.default, spatial, spatial)),
            tuple(tensor.to(target.device) for tensor in inputs),
            {"LATENTS": FREE},
            latent_ranges(self.spec()),
        )

    def _vae_decoder(self, target: Target) -> ExportStage:
        return ltx_decoder(self._checkpoint, target, latent_ranges(self.spec()))

    def _example_latents(self) -> Tensor:
        channels = self._transformer_settings().integer("in_channels", MAX_SIZE)
        return torch.randn(2, channels, *EXAMPLE_LATENTS)

    def _transformer_settings(self) -> Settings:
        """Settings of the transformer, which must fit its neighbours.

        Raises:
            CheckpointFileError: If it packs latents, or text or latents have another width.
        """
        settings = component_settings(self._checkpoint, "transformer", TRANSFORMER_DEFAULTS)
        for name in ("patch_size", "patch_size_t"):
            settings.only(name, 1)
        latents = decoder_settings(self._checkpoint).integer("latent_channels", MAX_SIZE)
        for name in ("in_channels", "out_channels"):
            settings.only(name, latents)
        settings.only("caption_channels", t5_width(self._checkpoint))
        return settings


FREE = {2: "frames", 3: "height", 4: "width"}
TRANSFORMER = ("diffusers", "LTXVideoTransformer3DModel")
TRANSFORMER_DEFAULTS: dict[str, Any] = {
    "in_channels": 128,
    "out_channels": 128,
    "patch_size": 1,
    "patch_size_t": 1,
    "caption_channels": 4096,
}
"""What diffusers' class takes for settings that a config leaves out; a test compares them."""
LTX_DECODER = ("diffusers", "AutoencoderKLLTXVideo")
DECODER_DEFAULTS: dict[str, Any] = {
    "latent_channels": 128,
    "scaling_factor": 1.0,
    "spatio_temporal_scaling": (True, True, True, False),
    "decoder_inject_noise": (False, False, False, False, False),
    "patch_size": 4,
    "patch_size_t": 1,
    "spatial_compression_ratio": None,
    "temporal_compression_ratio": None,
}
"""Like `TRANSFORMER_DEFAULTS`."""


def decoder_settings(checkpoint: Checkpoint) -> Settings:
    """Settings of a checkpoint's `AutoencoderKLLTXVideo`."""
    settings = component_settings(checkpoint, "vae", DECODER_DEFAULTS)
    settings.positive("scaling_factor")
    return settings


def check_ltx_decoder(checkpoint: Checkpoint) -> None:
    """Refuses an autoencoder that `ltx_decoder` cannot serve, without memory for its weights.

    Raises:
        CheckpointFileError: If the weights do not fit, or the decoder adds noise.
    """
    settings = decoder_settings(checkpoint)
    if any(settings.entries("decoder_inject_noise", bool)):
        raise CheckpointFileError(
            f"{settings.path}: decoder_inject_noise is set; a decoder that adds noise of its "
            "own gives other frames each time and cannot be served"
        )
    check_library_component(checkpoint, "vae", *LTX_DECODER)


def ltx_decoder(
    checkpoint: Checkpoint, target: Target, ranges: Mapping[str, DimRange]
) -> ExportStage:
    """The `vae_decoder` stage of a checkpoint with LTX-Video's autoencoder.

    Args:
        checkpoint: The opened folder.
        target: Device and precision.
        ranges: Sizes of the latents' frames, height and width.

    Raises:
        CheckpointFileError: If `check_ltx_decoder` refuses it, or a weight is NaN or infinite.
    """
    check_ltx_decoder(checkpoint)
    vae = load_library_component(checkpoint, "vae", *LTX_DECODER, target)
    del vae.encoder
    latents = torch.randn(2, int(vae.config.latent_channels), *EXAMPLE_LATENTS)
    inputs = (latents.to(target.device),)
    return ExportStage("vae_decoder", LTXDecoderStage(vae), inputs, {"LATENTS": FREE}, ranges)


def ltx_decoder_source(checkpoint: Checkpoint, ranges: Mapping[str, DimRange]) -> StageSource:
    """Files and settings that `ltx_decoder` makes the stage from."""
    settings = repr((checkpoint.component("vae"), sorted(ranges.items())))
    library, _ = LTX_DECODER
    return StageSource(checkpoint.component_files("vae", STEMS[library]), settings, library)


class LTXDenoiserStage(nn.Module):
    """LATENTS `[B, C, F, H, W]`, TIMESTEP `[B, 1]` and one text per row to VELOCITY.

    Args:
        transformer: diffusers' `LTXVideoTransformer3DModel`.
        scale: Seconds per latent frame, pixels per latent row and column.
    """

    def __init__(self, transformer: Any, scale: tuple[float, float, float]) -> None:
        super().__init__()
        self.transformer, self.scale = transformer, scale
        for block in transformer.transformer_blocks:
            block.attn1.set_processor(LTXAttention())
            block.attn2.set_processor(LTXAttention())

    def forward(
        self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor, attention_mask: Tensor
    ) -> Tensor:
        batch, channels, frames, height, width = latents.shape
        for other in (timestep, prompt_embeds, attention_mask):
            # Else the export takes the batch of each input for a size of its own.
            torch._check(other.shape[0] == batch)
        dtype = self.transformer.proj_in.weight.dtype
        tokens = self.transformer(
            hidden_states=latents.flatten(2).transpose(1, 2).to(dtype),
            encoder_hidden_states=prompt_embeds.to(dtype),
            timestep=timestep[:, 0],
            encoder_attention_mask=attention_mask,
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=self.scale,
            return_dict=False,
        )[0]
        return tokens.transpose(1, 2).reshape(-1, channels, frames, height, width).float()


class LTXAttention:
    """Attention processor whose mask has a row for every query.

    ONNX Runtime's Attention takes no mask that is broadcast over the queries, which diffusers'
    own processor gives.
    Source: diffusers `LTXVideoAttnProcessor`; but for the mask the same.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attends from `hidden_states` to themselves or to the text.

        Args:
            attn: diffusers' module, whose projections are used.
            hidden_states: `[B, L, C]`.
            encoder_hidden_states: `[B, T, C]`, the text; None: `hidden_states`.
            attention_mask: `[B, 1, T]`, added to the logits.
            image_rotary_emb: Cosines and sines, `[B, L, C]` each.
        """
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source))
        if image_rotary_emb is not None:
            query, key = rotated(query, *image_rotary_emb), rotated(key, *image_rotary_emb)
        mask = None
        if attention_mask is not None:
            mask = attention_mask[:, None].expand(-1, -1, hidden_states.shape[1], -1)
        parts = (query, key, attn.to_v(source))
        heads = (part.unflatten(2, (attn.heads, -1)).transpose(1, 2) for part in parts)
        out = functional.scaled_dot_product_attention(*heads, attn_mask=mask)
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


def rotated(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotates neighbouring pairs of the last dimension, in fp32."""
    real, imaginary = x.unflatten(2, (-1, 2)).unbind(-1)
    turned = torch.stack([-imaginary, real], dim=-1).flatten(2)
    return (x.float() * cosines + turned.float() * sines).to(x.dtype)


class LTXDecoderStage(nn.Module):
    """LATENTS `[B, C, F, H, W]`, normalised, to FRAMES, uint8 `[B, 8(F − 1) + 1, 32H, 32W, 3]`.

    A large clip is decoded in parts, so that its memory is bounded; a graph whose sizes are not
    fixed decodes it at once.

    Args:
        vae: diffusers' `AutoencoderKLLTXVideo`.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae = vae
        self.register_buffer("mean", vae.latents_mean.view(1, -1, 1, 1, 1).float())
        scale = vae.latents_std.view(1, -1, 1, 1, 1).float() / vae.config.scaling_factor
        self.register_buffer("scale", scale)

    def forward(self, latents: Tensor) -> Tensor:
        latents = (latents * self.scale + self.mean).to(self.vae.dtype)
        conditioned = self.vae.config.timestep_conditioning
        timestep = torch.zeros_like(latents[:, 0, 0, 0, 0]) if conditioned else None
        decoder, fixed = self.vae.decoder, all(isinstance(size, int) for size in latents.shape)
        if fixed and needs_parts(decoder, latents):
            parts = StreamedDecoder(decoder, timestep).parts(latents)
            return torch.cat([_to_frames(part) for part in parts], dim=1)
        return _to_frames(self.vae.decode(latents, timestep, return_dict=False)[0])


def _to_frames(decoded: Tensor) -> Tensor:
    """`[B, 3, F, H, W]` from −1 to 1 to uint8 `[B, F, H, W, 3]`."""
    return to_uint8(decoded.permute(0, 2, 3, 4, 1).float() * (WHITE / 2) + WHITE / 2)


def compression(settings: Settings) -> tuple[int, int]:
    """Frames and pixels per latent of an `AutoencoderKLLTXVideo`, by its configuration.

    Raises:
        CheckpointFileError: If a setting is of another type or beyond `MAX_COMPRESSION`.
    """
    halvings = sum(settings.entries("spatio_temporal_scaling", bool))

    def ratio(given: str, patch: str) -> int:
        if settings.value(given) is not None:
            return settings.integer(given, MAX_COMPRESSION)
        return settings.integer(patch, MAX_PATCH) * int(2**halvings)

    return (
        ratio("temporal_compression_ratio", "patch_size_t"),
        ratio("spatial_compression_ratio", "patch_size"),
    )
