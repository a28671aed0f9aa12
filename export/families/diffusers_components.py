"""Parts that families of public checkpoints share: T5, stages that do nothing."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.library_components import (
    STEMS,
    check_library_component,
    component_settings,
    load_library_component,
)
from reelserve.export.stages import ExportStage, StageSource, Target
from reelserve.models.config_limits import MAX_SIZE, MAX_VOCABULARY
from reelserve.pipeline.checkpoint_files import CheckpointFileError

TEXT_ROWS = 2


T5 = ("transformers", "T5EncoderModel")
T5_DEFAULTS: dict[str, Any] = {"model_type": "t5", "vocab_size": 32128, "d_model": 512}
"""What transformers' class takes for settings that a config leaves out; a test compares them."""


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


def check_t5(checkpoint: Checkpoint, tokenizer: bytes) -> None:
    """Refuses a T5 encoder whose weights do not fit, or that has fewer rows than tokens.

    Args:
        checkpoint: The opened folder.
        tokenizer: Content of `tokenizer.json`.

    Raises:
        CheckpointFileError: If it cannot be loaded or cannot encode every token.
    """
    check_library_component(checkpoint, "text_encoder", *T5)
    settings = component_settings(checkpoint, "text_encoder", T5_DEFAULTS)
    rows = settings.integer("vocab_size", MAX_VOCABULARY)
    largest = max(Tokenizer.from_buffer(tokenizer).get_vocab().values())
    if largest >= rows:
        raise CheckpointFileError(
            f"{settings.path}: vocab_size is {rows}; the tokenizer has the id {largest}"
        )


def t5_width(checkpoint: Checkpoint) -> int:
    """`E` of a checkpoint's T5 encoder."""
    settings = component_settings(checkpoint, "text_encoder", T5_DEFAULTS)
    settings.only("model_type", "t5")
    return settings.integer("d_model", MAX_SIZE)


def t5_source(checkpoint: Checkpoint, tokens: int, *, masked: bool) -> StageSource:
    """Source of `t5_stage`; no limit of a request shapes it but the number of tokens."""
    settings = repr((checkpoint.component("text_encoder"), tokens, masked))
    files = checkpoint.component_files("text_encoder", STEMS[T5[0]])
    return StageSource(files, settings, T5[0])


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
