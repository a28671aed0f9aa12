"""Text encoder: reads a sentence into what it names, from frozen multilingual features.

`TextEncoder` = `SentenceFeatures` of every piece of the text and a small trained transformer, the
reader. It looks at the pieces from four slots, one for each of three objects and one for the
scene, and gives for every attribute the probabilities of its values. Those are the prompt
embeddings that the denoiser reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from tokenizers import Tokenizer
from torch import Tensor, nn

from reelserve.models.sentence_features import FEATURE_DIM, SentenceFeatures
from reelserve.models.sentence_tokenizer import NUM_MARKS, NUM_SLOTS, load_tokenizer

MAX_TOKENS = 64
"""`L`: slots, marks and pieces of a text; longer texts are cut."""
SHARPNESS = 4.0
"""Logits are multiplied by it, so that the denoiser sees few doubts."""
NUM_OBJECTS = NUM_SLOTS - 1
POINT_DIM = 128
"""Width of the space in which words lie near the things that they name."""


@dataclass(frozen=True)
class TextEncoderConfig:
    """Sizes and vocabulary.

    Args:
        object_values: Values of each attribute of an object, by attribute, in label order; the
            first attribute is the thing itself.
        scene_values: Likewise of the scene.
        width: Channels of the reader; divisible by `num_heads`.
        num_heads: Attention heads.
        num_blocks: Transformer blocks.
        num_slots: Slots; as many as the tokenizer puts before the words.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    object_values: Mapping[str, Sequence[str]]
    scene_values: Mapping[str, Sequence[str]]
    width: int = 256
    num_heads: int = 4
    num_blocks: int = 4
    num_slots: int = NUM_SLOTS

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise ValueError(f"width {self.width} does not split into {self.num_heads} heads")
        if self.num_slots != NUM_SLOTS:
            raise ValueError(f"num_slots is {self.num_slots}; the tokenizer has {NUM_SLOTS}")
        if not self.object_sizes or not self.scene_sizes:
            raise ValueError("objects and scene need at least one attribute each")

    @property
    def object_sizes(self) -> list[int]:
        """Number of values of each attribute of an object."""
        return [len(values) for values in self.object_values.values()]

    @property
    def scene_sizes(self) -> list[int]:
        """Number of values of each attribute of the scene."""
        return [len(values) for values in self.scene_values.values()]

    @property
    def embed_dim(self) -> int:
        """`E`: values of all attributes, those of an object before those of the scene."""
        return sum(self.object_sizes) + sum(self.scene_sizes)


class ReaderBlock(nn.Module):
    """Pre-norm transformer block over slots and pieces."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `[B, L, width]` with `mask` `[B, 1, 1, L]`, true where attention may look."""
        b, length, width = x.shape
        qkv = self.qkv(self.norm_attention(x)).reshape(b, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(found.transpose(1, 2).reshape(b, length, width))
        return x + self.contract(F.gelu(self.expand(self.norm_mlp(x))))


class Reader(nn.Module):
    """Features of pieces to logits of every attribute of three objects and the scene.

    Args:
        config: Sizes and vocabulary.
        feature_dim: Channels of the features.
    """

    def __init__(self, config: TextEncoderConfig, feature_dim: int = FEATURE_DIM) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = nn.Linear(feature_dim, width)
        self.slots = nn.Parameter(torch.randn(NUM_SLOTS, width) * 0.5)
        self.positions = nn.Parameter(torch.randn(MAX_TOKENS - NUM_SLOTS, width) * 0.02)
        self.blocks = nn.ModuleList(
            ReaderBlock(width, config.num_heads) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.object_head = nn.Linear(width, sum(config.object_sizes))
        self.scene_head = nn.Linear(width, sum(config.scene_sizes))
        # Words that were never trained on come near to the thing whose words have like features:
        # the way from features to points has no nonlinearity that could bend them away.
        self.look = nn.Linear(width, width)
        self.seen = nn.Linear(width, width)
        self.to_points = nn.Linear(feature_dim, POINT_DIM)
        self.points = nn.Parameter(torch.randn(config.object_sizes[0], POINT_DIM))
        self.nearness = nn.Parameter(torch.tensor([8.0]))

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Reads.

        Args:
            features: `[B, P, feature_dim]`, of marks and pieces.
            mask: `[B, P]`, bool; true for marks and pieces.

        Returns:
            Logits of the objects, `[B, 3, sum of object sizes]`, and of the scene,
            `[B, sum of scene sizes]`.
        """
        b, pieces, _ = features.shape
        words = self.embed(features) + self.positions[:pieces]
        x = torch.cat((self.slots.expand(b, -1, -1), words), 1)
        allowed = torch.cat((mask.new_ones(b, NUM_SLOTS), mask), 1)[:, None, None]
        for block in self.blocks:
            x = block(x, allowed)
        x = self.norm(x)
        objects = x[:, :NUM_OBJECTS]
        logits = self.object_head(objects)
        things = self.config.object_sizes[0]
        near = self._near_things(objects, x[:, NUM_SLOTS:], features, mask)
        logits = torch.cat((logits[..., :things] + near, logits[..., things:]), -1)
        return logits, self.scene_head(x[:, NUM_OBJECTS])

    def _near_things(
        self, objects: Tensor, words: Tensor, features: Tensor, mask: Tensor
    ) -> Tensor:
        """Nearness of the words that each object looks at to every thing, `[B, 3, things]`."""
        scores = self.look(objects) @ self.seen(words).transpose(1, 2) * words.shape[-1] ** -0.5
        weights = scores.masked_fill(~mask[:, None], -1e4).softmax(-1)
        points = F.normalize(self.to_points(weights @ features), dim=-1)
        return self.nearness * points @ F.normalize(self.points, dim=-1).T


class TextEncoder(nn.Module):
    """Token ids to the probabilities of every attribute that a text may name."""

    config_class = TextEncoderConfig

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.features = SentenceFeatures()
        self.reader = Reader(config)

    @property
    def embed_dim(self) -> int:
        """`E`, width of a row of what `forward` gives."""
        return self.config.embed_dim

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of objects and scene, see `Reader.forward`.

        Args:
            input_ids: `[B, L]`, int64, as the tokenizer gives them: slots, marks and pieces.
            attention_mask: `[B, L]`, int64; 1 for a token, 0 for padding.
        """
        ids, mask = input_ids[:, NUM_SLOTS:], attention_mask[:, NUM_SLOTS:] != 0
        features = self.features(ids, mask).to(self.reader.embed.weight.dtype)
        objects, scene = self.reader(features, mask)
        return objects, scene

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Reads token ids.

        Args:
            input_ids: `[B, L]`, int64, as the tokenizer gives them.
            attention_mask: `[B, L]`, int64; 1 for a token, 0 for padding.

        Returns:
            `[B, L, E]`, fp32. Rows 0 to 2 are the objects and row 3 is the scene; each holds, for
            every attribute that is of its kind, the sharpened probabilities of its values, and 0
            elsewhere. All other rows are 0, and so are those of a text without words.
        """
        objects, scene = self.logits(input_ids, attention_mask)
        objects = _probabilities(objects, self.config.object_sizes)
        scene = _probabilities(scene[:, None], self.config.scene_sizes)
        rows = torch.cat(
            (
                F.pad(objects, (0, scene.shape[-1])),
                F.pad(scene, (objects.shape[-1], 0)),
            ),
            1,
        )
        has_words = attention_mask[:, NUM_SLOTS:].sum(1) > NUM_MARKS
        rows = rows * has_words[:, None, None].to(rows.dtype)
        return F.pad(rows, (0, 0, 0, input_ids.shape[1] - NUM_SLOTS))


def _probabilities(logits: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sharpened softmax of each attribute's part, `[B, R, sum of sizes]`, fp32."""
    parts = (SHARPNESS * logits.float()).split(list(sizes), -1)
    return torch.cat([part.softmax(-1) for part in parts], -1)


@cache
def _tokenizer(max_tokens: int) -> Tokenizer:
    """The tokenizer, which takes a second to make."""
    return load_tokenizer(max_tokens)


def tokenize(texts: Sequence[str], max_tokens: int = MAX_TOKENS) -> tuple[Tensor, Tensor]:
    """Token ids and mask of many texts, both `[N, L]`, int64."""
    encodings = _tokenizer(max_tokens).encode_batch(list(texts))
    ids = torch.tensor([e.ids for e in encodings], dtype=torch.int64).view(-1, max_tokens)
    mask = torch.tensor([e.attention_mask for e in encodings], dtype=torch.int64)
    return ids, mask.view_as(ids)


@torch.no_grad()
def encode_texts(
    encoder: TextEncoder,
    texts: Sequence[str],
    max_tokens: int = MAX_TOKENS,
    *,
    batch_size: int = 256,
) -> tuple[Tensor, Tensor]:
    """Rows of many texts; the empty text gives the unconditional ones, which are 0.

    Args:
        encoder: Reads the texts, on its device.
        texts: `N` captions.
        max_tokens: `L`; shorter texts are padded, longer ones cut.
        batch_size: Texts per forward pass.

    Returns:
        Embeddings `[N, L, E]`, fp32, and mask `[N, L]`, bool, true for a token.
    """
    device = encoder.reader.slots.device
    ids, mask = (tensor.to(device) for tensor in tokenize(texts, max_tokens))
    batches = zip(ids.split(batch_size), mask.split(batch_size), strict=True)
    return torch.cat([encoder(*batch) for batch in batches]), mask.bool()
