from pathlib import Path

import numpy as np
import pytest
import torch

from reelserve.models.loading import load_component, save_component
from reelserve.models.text_encoder import (
    MAX_TOKENS,
    TextEncoder,
    TextEncoderConfig,
    encode_texts,
    tokenize,
)

CONFIG = TextEncoderConfig(
    object_values={"thing": ["", "something", "cat", "dog"], "colour": ["", "red"]},
    scene_values={"setting": ["", "sea", "room"]},
    width=32,
    num_heads=2,
    num_blocks=2,
)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(CONFIG).eval()


def test_text_encoder_gives_probabilities_of_objects_and_scene(encoder):
    rows, mask = encode_texts(encoder, ["a red cat"])
    assert rows.shape == (1, MAX_TOKENS, CONFIG.embed_dim) == (1, MAX_TOKENS, 9)
    assert mask.dtype == torch.bool
    objects, scene = rows[0, :3], rows[0, 3]
    torch.testing.assert_close(objects[:, :4].sum(-1), torch.ones(3))
    torch.testing.assert_close(objects[:, 4:6].sum(-1), torch.ones(3))
    torch.testing.assert_close(scene[6:].sum(), torch.tensor(1.0))
    assert not objects[:, 6:].any() and not scene[:6].any() and not rows[0, 4:].any()


def test_text_encoder_gives_zeros_when_text_is_empty(encoder):
    rows, _ = encode_texts(encoder, ["", "  "])
    assert not rows.any()


def test_encode_texts_agrees_when_texts_come_in_other_batches(encoder):
    texts = ["a red circle", "a tiny blue star orbits slowly", "snow"]
    together, _ = encode_texts(encoder, texts)
    apart, _ = encode_texts(encoder, texts, batch_size=1)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


@torch.no_grad()
def test_text_encoder_ignores_padding(encoder):
    ids, mask = tokenize(["two rabbits"])
    changed = torch.where(mask == 1, ids, 77)
    torch.testing.assert_close(encoder(ids, mask), encoder(changed, mask))


@torch.no_grad()
def test_text_encoder_reads_shorter_rows_alike(encoder):
    ids, mask = tokenize(["two rabbits"])
    short = encoder(ids[:, :16], mask[:, :16])
    torch.testing.assert_close(short, encoder(ids, mask)[:, :16])


def test_text_encoder_is_the_same_when_saved_and_loaded(encoder, tmp_path: Path):
    save_component(encoder, tmp_path, torch.float32)
    loaded = load_component(tmp_path, TextEncoder)
    assert loaded.config.embed_dim == CONFIG.embed_dim
    for text in ("a red cat", "zwei Hunde"):
        expected, _ = encode_texts(encoder, [text])
        found, _ = encode_texts(loaded, [text])
        torch.testing.assert_close(found, expected)
    # The frozen weights come from their package.
    size = (tmp_path / "diffusion_pytorch_model.safetensors").stat().st_size
    assert size < 2**20


def test_text_encoder_config_fails_when_width_does_not_split():
    with pytest.raises(ValueError, match="width 30 does not split into 4 heads"):
        TextEncoderConfig({"thing": ["", "cat"]}, {"setting": [""]}, width=30)


def test_text_encoder_has_a_graph_for_batches_of_any_size(encoder):
    batch = torch.export.Dim("batch")
    example = tokenize(["a cat", "a dog"])
    graph = torch.export.export(encoder, example, dynamic_shapes=({0: batch}, {0: batch}))
    ids, mask = tokenize(["a cat", "", "two red dogs"])
    found = graph.module()(ids, mask)
    np.testing.assert_allclose(found.detach(), encoder(ids, mask).detach(), atol=1e-5)
