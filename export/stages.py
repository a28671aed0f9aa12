"""Stages of a video-diffusion pipeline as graphs: exactly the tensors of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.frame_consistency import FrameConsistency
from reelserve.models.text_encoder import TextEncoder
from reelserve.models.upsampler import RGB, Upsampler
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.contract import STAGES, StageContract

_WHITE = 255.0
PART_PIXELS = 2**24
"""Pixels that the upsampler takes at once: 2 GiB for each of its hidden layers in 16 bits."""

Precision = Literal["fp32", "fp16", "bf16"]
DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Target:
    """Precision and device that a stage is loaded for.

    Args:
        precision: Precision of its weights and products. The tensors of the contract do not depend
            on it: the stage casts inside.
        device: Device for loading, tracing and comparing.
    """

    precision: Precision = "fp32"
    device: str = "cpu"

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return DTYPES[self.precision]

    def place(self, module: Module) -> Module:
        """Moves a module and casts its parameters; buffers, constants of the field, keep fp32."""
        for parameter in module.parameters():
            parameter.data = parameter.data.to(self.device, self.dtype)
        return module.to(self.device)


CPU_FP32 = Target()


@dataclass(frozen=True)
class DimRange:
    """Sizes that a free dimension takes within the limits of a request.

    Args:
        low: Smallest.
        high: Largest.
        usual: Size of the default request; an engine is tuned for it.
    """

    low: int
    high: int
    usual: int

    @property
    def fixed(self) -> bool:
        """Whether there is only one size."""
        return self.low == self.high


@dataclass(frozen=True)
class ExportStage:
    """One stage, ready to become a graph.

    Args:
        name: Name of the stage in the contract.
        module: Takes and returns the contract's tensors with a leading batch dimension.
        example_inputs: In the contract's order; the exporter traces them.
        free_dims: Names of the dimensions that stay free, by input name and position.
            Dimension 0 is always free.
        ranges: Sizes of each free dimension within the limits of a request, by its name.
    """

    name: str
    module: nn.Module
    example_inputs: tuple[Tensor, ...]
    free_dims: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    ranges: Mapping[str, DimRange] = field(default_factory=dict)

    @property
    def contract(self) -> StageContract:
        """Names and types of its tensors."""
        return STAGES[self.name]

    @property
    def num_parameters(self) -> int:
        """Weights of the module."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def inputs_at(self, batch: int, sizes: Mapping[str, int] | None = None) -> tuple[Tensor, ...]:
        """Inputs of another shape, with the values of the example repeated or cut.

        Args:
            batch: Size of dimension 0.
            sizes: Sizes of free dimensions, by name; those left out have their usual size.
        """
        wanted = {name: range_.usual for name, range_ in self.ranges.items()} | dict(sizes or {})
        inputs = []
        for spec, example in zip(self.contract.inputs, self.example_inputs, strict=True):
            for axis, name in {0: "batch", **self.free_dims.get(spec.name, {})}.items():
                size = batch if name == "batch" else wanted.get(name, example.shape[axis])
                index = torch.arange(size, device=example.device) % example.shape[axis]
                example = example.index_select(axis, index)
            inputs.append(example)
        return tuple(inputs)


@dataclass(frozen=True)
class StageSource:
    """Files and settings that a stage is made from; they decide whether its graph is up to date.

    Args:
        files: Checkpoint files whose content it depends on.
        settings: Everything else that it depends on, as text.
        library: Package whose modules it is made of; its version counts, too. Empty: our own.
    """

    files: tuple[Path, ...]
    settings: str = ""
    library: str = ""


class TextEncoderStage(nn.Module):
    """INPUT_IDS, ATTENTION_MASK `[B, 2, L]` to PROMPT_EMBEDS `[B, 2, L, E]`."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch, rows, tokens = input_ids.shape
        embeds = self.encoder(
            input_ids.reshape(batch * rows, tokens), attention_mask.reshape(batch * rows, tokens)
        )
        return embeds.reshape(batch, rows, tokens, -1).float()


class DenoiserStage(nn.Module):
    """LATENTS `[B, C, F, H, W]`, TIMESTEP `[B, 1]` and one text per row to VELOCITY."""

    def __init__(self, denoiser: SpaceTimeDenoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(
        self, latents: Tensor, timestep: Tensor, prompt_embeds: Tensor, attention_mask: Tensor
    ) -> Tensor:
        dtype = self.denoiser.embed_latents.weight.dtype
        return self.denoiser(
            latents.to(dtype), timestep[:, 0], prompt_embeds.to(dtype), attention_mask
        )


class VAEDecoderStage(nn.Module):
    """LATENTS `[B, C, F, H, W]` to FRAMES, uint8."""

    def __init__(self, vae: VideoVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        frames = self.vae.decode(latents).permute(0, 2, 3, 4, 1).float()
        return to_uint8(frames * (_WHITE / 2) + _WHITE / 2)


class FrameConsistencyStage(nn.Module):
    """FRAMES to CONSISTENT_FRAMES, both uint8 `[B, F, H, W, 3]`.

    Always in fp32: it has no weights, and takes differences between frames.
    """

    def __init__(self, filter_: FrameConsistency) -> None:
        super().__init__()
        self.filter = filter_

    def forward(self, frames: Tensor) -> Tensor:
        clip = frames.permute(0, 1, 4, 2, 3).float() / _WHITE
        return to_uint8(self.filter(clip) * _WHITE).permute(0, 1, 3, 4, 2)


class UpsamplerStage(nn.Module):
    """FRAMES to UPSAMPLED_FRAMES, both uint8 `[B, F, H, W, 3]`.

    Frames are independent of each other: a long clip goes through in parts, so that its memory is
    bounded. A graph whose sizes are not fixed takes it whole.
    """

    def __init__(self, upsampler: Upsampler) -> None:
        super().__init__()
        self.upsampler = upsampler

    def forward(self, frames: Tensor) -> Tensor:
        batch, count, height, width, _ = frames.shape
        fixed = all(isinstance(size, int) for size in frames.shape)
        part = max(1, PART_PIXELS // (batch * height * width)) if fixed else count
        if not fixed or count <= part:
            return self._upsampled(frames)
        return torch.cat([self._upsampled(some) for some in frames.split(part, dim=1)], dim=1)

    def _upsampled(self, frames: Tensor) -> Tensor:
        batch, count, height, width, _ = frames.shape
        planes = frames.permute(0, 1, 4, 2, 3).reshape(batch * count, RGB, height, width)
        planes = (planes.float() / _WHITE).to(self.upsampler.body[0].weight.dtype)
        upsampled = to_uint8(self.upsampler(planes).float() * _WHITE)
        scale = self.upsampler.scale
        return upsampled.permute(0, 2, 3, 1).reshape(
            batch, count, height * scale, width * scale, RGB
        )


def to_uint8(values: Tensor) -> Tensor:
    """Rounds values on the 0 to 255 scale, clipping what lies outside.

    Raises:
        ValueError: If a value is NaN, which no frame would show; a graph does not look.
    """
    if not torch.compiler.is_compiling() and bool(values.isnan().any()):
        raise ValueError(
            "frames hold NaN: a weight or a value leaves the range of this precision; a stage that "
            "overflows can stay in fp32 (--fp32-stages)"
        )
    return (values.clamp(0.0, _WHITE) + 0.5).to(torch.uint8)
