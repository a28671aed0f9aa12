"""Trains the reader of the text encoder on captions that are drawn on the fly.

Run as `python -m reelserve.training.words.train_text_encoder`. Captions are drawn, worded and
tokenised by worker processes; the frozen features are computed beside the training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from reelserve.models.loading import load_component, save_component
from reelserve.models.sentence_tokenizer import NUM_SLOTS
from reelserve.models.text_encoder import TextEncoder, TextEncoderConfig, tokenize
from reelserve.pipeline.atomic_file import write_file
from reelserve.training.arguments import settings_from, training_parser
from reelserve.training.muon import StackedMuon
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scene.labels import Labels
from reelserve.training.scene.vocabulary import SCENE_ATTRIBUTES, object_attributes
from reelserve.training.words.captions import draw_captioned, write_caption
from reelserve.training.words.labels import draw_plan
from reelserve.training.words.measure import measure_reading, most_likely
from reelserve.training.words.noise import other_words

CHUNK = 4096
"""Captions that a worker draws at once, then sorts by length into batches."""


@dataclass(frozen=True)
class ReaderSettings:
    """Settings of the run."""

    seed: int = 20
    steps: int = 60_000
    max_seconds: float = 600.0
    batch_size: int = 1024
    width: int = 256
    num_blocks: int = 4
    muon_learning_rate: float = 2.0e-3
    adamw_learning_rate: float = 1.0e-3
    weight_decay: float = 0.01
    feature_dropout: float = 0.1
    warmup_steps: int = 100
    decay_share: float = 0.5


class CaptionBatches(IterableDataset[tuple[Tensor, ...]]):
    """Endless batches of token ids, mask, object labels and scene labels.

    Args:
        batch_size: Captions of a batch, which have about the same length.
        seed: With the worker's number it seeds the captions.
    """

    def __init__(self, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        worker = get_worker_info()
        rng = Random(f"{self.seed} {worker.id if worker else 0}")
        while True:
            texts, labels = draw_captioned(rng, CHUNK)
            ids, mask = tokenize(texts)
            # The longest text of a batch is all that it is padded to.
            order = mask.sum(1).argsort()
            batches = list(order.split(self.batch_size))
            rng.shuffle(batches)
            for rows in batches:
                length = int(mask[rows].sum(1).max())
                yield (
                    ids[rows, :length].int(),
                    mask[rows, :length].bool(),
                    labels.objects[rows].short(),
                    labels.scene[rows].short(),
                )


def endless_batches(settings: ReaderSettings, seed: int, workers: int) -> Iterator[list[Tensor]]:
    """Batches from worker processes."""
    # A worker has one core, and forks after the tokenizer was used.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # What is loaded now is not loaded once by each of them.
    tokenize([write_caption(Random(0), draw_plan(Random(0)))])
    other_words()
    loader = DataLoader(
        CaptionBatches(settings.batch_size, seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        worker_init_fn=lambda _: torch.set_num_threads(1),
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)


def make_reader_optimizers(
    module: nn.Module, settings: ReaderSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside blocks, AdamW for everything else."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        inside = name.startswith("blocks.") and parameter.ndim == 2
        (matrices if inside else others).append(parameter)
    return [
        StackedMuon(matrices, lr=settings.muon_learning_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(
            others, lr=settings.adamw_learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]


def label_loss(objects: Tensor, scene: Tensor, labels: Labels) -> Tensor:
    """Mean cross-entropy of a text: summed over all attributes of objects and scene."""
    config_sizes = [len(values) for values in object_attributes().values()]
    scene_sizes = [len(values) for values in SCENE_ATTRIBUTES.values()]
    loss = objects.new_zeros(())
    for part, wanted in zip(
        objects.float().split(config_sizes, -1), labels.objects.unbind(-1), strict=True
    ):
        loss = loss + F.cross_entropy(part.flatten(0, 1), wanted.flatten()) * part.shape[1]
    for part, wanted in zip(
        scene.float().split(scene_sizes, -1), labels.scene.unbind(-1), strict=True
    ):
        loss = loss + F.cross_entropy(part, wanted)
    return loss


def train_reader(
    run: Run,
    encoder: TextEncoder,
    batches: Iterator[list[Tensor]],
    settings: ReaderSettings,
    device: str,
) -> None:
    """Takes every step that is left of the run."""
    for _ in run.steps():
        torch.manual_seed(run.batch_seed())
        ids, mask, *values = (tensor.to(device, non_blocking=True) for tensor in next(batches))
        labels = Labels(values[0].long(), values[1].long())
        words, keep = ids[:, NUM_SLOTS:].long(), mask[:, NUM_SLOTS:]
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            with torch.no_grad():
                features = F.dropout(encoder.features(words, keep), settings.feature_dropout)
            objects, scene = encoder.reader(features, keep)
        run.update(label_loss(objects, scene, labels))


@torch.no_grad()
def read_texts(encoder: TextEncoder, texts: Sequence[str], batch_size: int = 256) -> Labels:
    """Labels that the encoder reads in texts."""
    device = encoder.reader.slots.device
    ids, mask = (tensor.to(device) for tensor in tokenize(texts))
    parts = [
        encoder.logits(*batch)
        for batch in zip(ids.split(batch_size), mask.split(batch_size), strict=True)
    ]
    objects, scene = (torch.cat(found).float().cpu() for found in zip(*parts, strict=True))
    return most_likely(objects, scene)


def new_encoder(settings: ReaderSettings) -> TextEncoder:
    """An untrained encoder of this project's vocabulary."""
    config = TextEncoderConfig(
        object_values={name: list(values) for name, values in object_attributes().items()},
        scene_values={name: list(values) for name, values in SCENE_ATTRIBUTES.items()},
        width=settings.width,
        num_heads=settings.width // 64,
        num_blocks=settings.num_blocks,
    )
    return TextEncoder(config)


def main() -> None:
    """Trains, measures, and saves the averaged weights to the checkpoint's `text_encoder/`."""
    names = ("steps", "batch_size", "width", "num_blocks", "seed", "max_seconds")
    names += ("muon_learning_rate", "adamw_learning_rate")
    parser = training_parser(__doc__, ReaderSettings, "text_encoder", names)
    cores = os.cpu_count() or 2
    parser.add_argument("--workers", type=int, default=min(24, max(1, cores - 2)))
    parser.add_argument("--measure", type=int, default=2000, metavar="CAPTIONS")
    args = parser.parse_args()
    settings = settings_from(args, ReaderSettings)
    torch.manual_seed(settings.seed)
    encoder = load_component(args.init, TextEncoder) if args.init else new_encoder(settings)
    encoder.train()
    batches = endless_batches(settings, settings.seed, args.workers)
    encoder.to(args.device)
    run = Run(
        args.run_folder,
        encoder.reader,
        make_reader_optimizers(encoder.reader, settings),
        Schedule(settings.steps, settings.warmup_steps, settings.decay_share, settings.max_seconds),
        ema_decay=0.999,
        seed=settings.seed,
    )
    train_reader(run, encoder, batches, settings, args.device)
    run.use_average()
    save_component(encoder, args.out)
    encoder.eval()
    scores, wrong = measure_reading(lambda texts: read_texts(encoder, texts), args.measure)
    scores = {name: round(score, 4) for name, score in scores.items()}
    write_settings(args.out, settings, init=args.init, **run.summary(), scores=scores)
    text = json.dumps(wrong, indent=1, ensure_ascii=False) + "\n"
    write_file(args.run_folder / "wrong.json", text)
    print(json.dumps(scores, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
