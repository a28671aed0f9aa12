from itertools import islice
from pathlib import Path

import torch

from reelserve.models.loading import load_component, save_component
from reelserve.models.text_encoder import TextEncoder
from reelserve.training.run import Run, Schedule
from reelserve.training.scene.labels import Labels
from reelserve.training.words.train_text_encoder import (
    CaptionBatches,
    ReaderSettings,
    endless_batches,
    label_loss,
    make_reader_optimizers,
    new_encoder,
    read_texts,
    train_reader,
)

TINY = ReaderSettings(batch_size=16, width=64, num_blocks=1, steps=3, max_seconds=60.0)


def test_caption_batches_are_as_long_as_their_longest_text():
    for ids, mask, objects, scene in islice(iter(CaptionBatches(16, 0)), 3):
        assert ids.shape == mask.shape
        assert len(ids) == len(objects) == len(scene) == 16
        assert mask.sum(1).max() == ids.shape[1]


def test_train_reader_learns_and_is_saved(tmp_path: Path):
    torch.manual_seed(0)
    encoder = new_encoder(TINY)
    run = Run(
        tmp_path / "run",
        encoder.reader,
        make_reader_optimizers(encoder.reader, TINY),
        Schedule(TINY.steps, 1, 0.5, TINY.max_seconds),
        ema_decay=0.9,
        seed=0,
    )
    before = {name: value.clone() for name, value in encoder.reader.named_parameters()}
    train_reader(run, encoder, endless_batches(TINY, 0, 0), TINY, "cpu")
    assert run.step == TINY.steps
    changed = [not torch.equal(before[n], p) for n, p in encoder.reader.named_parameters()]
    assert all(changed)
    save_component(encoder, tmp_path / "out")
    loaded = load_component(tmp_path / "out", TextEncoder)
    assert len(read_texts(loaded, ["a red fox", "snow"])) == 2


def test_label_loss_is_small_when_labels_are_met():
    _, _, objects, scene = next(iter(CaptionBatches(4, 1)))
    labels = Labels(objects.long(), scene.long())
    rows = 30 * labels.rows()
    config = new_encoder(TINY).config
    split = sum(config.object_sizes)
    met = label_loss(rows[:, :3, :split], rows[:, 3, split:], labels)
    missed = label_loss(-rows[:, :3, :split], -rows[:, 3, split:], labels)
    assert met < 0.01 < 10 < missed
