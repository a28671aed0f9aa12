"""Decodes LTX-Video's latents in parts of a clip, with the frames of the whole decoder.

Convolutions of the decoder see one more frame on either side (or two before); all its other layers
see single frames. A convolution that is given a clip in parts therefore keeps the last frames of a
part, and computes them when the next part, or the end of the clip, has come. Each value is computed
once, from the same values as in one go; only the order of a sum may differ with the size. Blocks
pass parts on as they come: the large tensors of the last block exist for one part only.

Source: diffusers `LTXVideoDecoder3d` and its blocks, whose weights and equations these are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any

import torch
from torch import Tensor

PART_VALUES = 2**30
"""Values of a block's output that are computed together: 2 GiB in 16 bits, of which a block holds
about five. Smaller parts would mean more of them to compile."""


class StreamedDecoder:
    """One clip on its way through the decoder.

    Args:
        decoder: diffusers' `LTXVideoDecoder3d`, without noise.
        temb: `[B]`, the timestep of a decoder that is conditioned on one.
        part_values: See `PART_VALUES`.
    """

    def __init__(self, decoder: Any, temb: Tensor | None, part_values: int = PART_VALUES) -> None:
        self._decoder, self._part_values = decoder, part_values
        scaled = decoder.timestep_scale_multiplier is not None
        self._temb = temb * decoder.timestep_scale_multiplier if scaled else temb
        self._kept: dict[Hashable, Tensor] = {}

    def parts(self, latents: Tensor) -> Iterator[Tensor]:
        """Decodes `[B, C, F, H, W]` to parts of `[B, 3, 8(F − 1) + 1, 32H, 32W]` along time."""
        decoder = self._decoder
        # At the size of the latents these take next to nothing.
        hidden = decoder.mid_block(decoder.conv_in(latents), self._temb)
        yield from self._through(0, hidden, last=True)

    def _through(self, number: int, hidden: Tensor, *, last: bool) -> Iterator[Tensor]:
        """Takes frames through block `number` and all blocks after it."""
        blocks = self._decoder.up_blocks
        if number == len(blocks):
            pixels = self._pixels(hidden, last)
            if pixels is not None:
                yield pixels
            return
        parts = hidden.split(self._frames(blocks[number], hidden), dim=2)
        for index, part in enumerate(parts):
            ends = last and index + 1 == len(parts)
            done = self._block(blocks[number], part, ends)
            if done is not None:
                yield from self._through(number + 1, done, last=ends)

    def _frames(self, block: Any, hidden: Tensor) -> int:
        """Frames that a block is given at once."""
        batch, _, _, height, width = hidden.shape
        scale = math.prod(block.upsamplers[0].stride) if block.upsamplers else 1
        channels = block.resnets[-1].conv2.out_channels
        return max(1, self._part_values // (batch * channels * scale * height * width))

    def _block(self, block: Any, hidden: Tensor | None, last: bool) -> Tensor | None:
        temb = self._temb
        if block.conv_in is not None:
            hidden = self._resnet(block.conv_in, hidden, temb, last)
        if block.time_embedder is not None and hidden is not None:
            temb = _embedded(block, temb, hidden)[:, :, None, None, None]
        for upsampler in block.upsamplers or ():
            hidden = self._upsampled(upsampler, hidden, last)
        for resnet in block.resnets:
            hidden = self._resnet(resnet, hidden, temb, last)
        return hidden

    def _resnet(
        self, block: Any, hidden: Tensor | None, temb: Tensor | None, last: bool
    ) -> Tensor | None:
        if hidden is None:
            return None
        scales: tuple[Any, ...] = (None, None)
        if block.scale_shift_table is not None:
            assert temb is not None
            table = block.scale_shift_table[None, ..., None, None, None]
            rows = (temb.unflatten(1, (4, -1)) + table).unbind(1)
            scales = (rows[:2], rows[2:])
        found: Tensor | None = hidden
        for norm, conv, scale in zip(
            (block.norm1, block.norm2), (block.conv1, block.conv2), scales, strict=True
        ):
            if found is not None:
                found = self._convolved(conv, block.nonlinearity(_normed(norm, found, scale)), last)
        if block.norm3 is not None:
            hidden = block.norm3(hidden.movedim(1, -1)).movedim(-1, 1)
        if block.conv_shortcut is not None:
            hidden = block.conv_shortcut.conv(hidden)
        return self._added(block, hidden, found)

    def _upsampled(self, upsampler: Any, hidden: Tensor | None, last: bool) -> Tensor | None:
        if hidden is None:
            return None
        found = self._convolved(upsampler.conv, hidden, last)
        spread = None if found is None else _spread(found, upsampler.stride)
        if upsampler.residual:
            repeats = math.prod(upsampler.stride) // upsampler.upscale_factor
            residual = _spread(hidden, upsampler.stride).repeat(1, repeats, 1, 1, 1)
            spread = self._added(upsampler, residual, spread)
        if spread is None or (upsampler, "begun") in self._kept:
            return spread
        # The first frame of a clip stands for itself and not for as many as the others.
        self._keep((upsampler, "begun"), spread[:, :, :0])
        return spread[:, :, upsampler.stride[0] - 1 :]

    def _pixels(self, hidden: Tensor, last: bool) -> Tensor | None:
        decoder, scale = self._decoder, None
        if decoder.time_embedder is not None:
            embedded = _embedded(decoder, self._temb, hidden)[:, :, None, None, None]
            table = decoder.scale_shift_table[None, ..., None, None, None]
            scale = (embedded.unflatten(1, (2, -1)) + table).unbind(1)
        hidden = decoder.conv_act(_normed(decoder.norm_out, hidden, scale))
        found = self._convolved(decoder.conv_out, hidden, last)
        if found is None:
            return None
        rows = (decoder.patch_size_t, decoder.patch_size, decoder.patch_size)
        # Columns of a patch come before its rows.
        patches = found.unflatten(1, (-1, *rows)).transpose(3, 4)
        return _spread(patches.flatten(1, 4), rows)

    def _convolved(self, conv: Any, hidden: Tensor, last: bool) -> Tensor | None:
        """The frames that a convolution over time can compute so far; None if there are none."""
        size = conv.kernel_size[0]
        before = size - 1 if conv.is_causal else (size - 1) // 2
        after = size - 1 - before
        past = self._kept.get(conv)
        pieces = [hidden[:, :, :1].repeat(1, 1, before, 1, 1) if past is None else past, hidden]
        if last:
            pieces.append(hidden[:, :, -1:].repeat(1, 1, after, 1, 1))
        padded = torch.cat(pieces, dim=2)
        frames = padded.shape[2]
        self._keep(conv, padded[:, :, max(0, frames - (size - 1)) :])
        found: Tensor | None = conv.conv(padded) if frames >= size else None
        return found

    def _added(self, key: Hashable, hidden: Tensor, found: Tensor | None) -> Tensor | None:
        """Adds residual frames that lag behind to their frames of `hidden`; keeps the others."""
        if key in self._kept:
            hidden = torch.cat([self._kept[key], hidden], dim=2)
        frames = 0 if found is None else found.shape[2]
        self._keep(key, hidden[:, :, frames:])
        return None if found is None else found + hidden[:, :, :frames]

    def _keep(self, key: Hashable, frames: Tensor) -> None:
        """Copies frames for the next part, so that the tensor they are a view of is freed."""
        self._kept[key] = frames.clone()


def needs_parts(decoder: Any, latents: Tensor, part_values: int = PART_VALUES) -> bool:
    """Whether a block of the decoder gives more than `part_values` for a clip.

    Args:
        decoder: diffusers' `LTXVideoDecoder3d`.
        latents: Latents of the clip.
        part_values: See `PART_VALUES`.
    """
    values = latents.shape[0] * math.prod(latents.shape[2:])
    most = 0
    for block in decoder.up_blocks:
        values *= math.prod(block.upsamplers[0].stride) if block.upsamplers else 1
        most = max(most, values * block.resnets[-1].conv2.out_channels)
    return most > part_values


def _normed(norm: Any, hidden: Tensor, scale: tuple[Tensor, Tensor] | None) -> Tensor:
    """Norm over the channels; `scale` holds a shift, and a factor less 1."""
    normed: Tensor = norm(hidden.movedim(1, -1)).movedim(-1, 1)
    return normed if scale is None else normed * (1 + scale[1]) + scale[0]


def _embedded(block: Any, temb: Tensor | None, hidden: Tensor) -> Tensor:
    assert temb is not None
    embedded: Tensor = block.time_embedder(
        timestep=temb.flatten(),
        resolution=None,
        aspect_ratio=None,
        batch_size=hidden.size(0),
        hidden_dtype=hidden.dtype,
    )
    return embedded.view(hidden.size(0), -1)


def _spread(hidden: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Channels to frames, rows and columns: `[B, C·t·h·w, F, H, W]` to `[B, C, F·t, H·h, W·w]`."""
    parts = hidden.unflatten(1, (-1, *stride))
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
