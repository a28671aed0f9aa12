import torch

from reelserve.models.sentence_features import FEATURE_DIM
from reelserve.training.words.compare_features import OurFeatures, train_and_measure
from reelserve.training.words.train_text_encoder import ReaderSettings


def test_our_features_come_with_a_mask():
    features, mask = OurFeatures()(["a red fox", "snow"])
    assert features.shape == (*mask.shape, FEATURE_DIM)
    assert mask.dtype == torch.bool
    assert mask[0].all() and not mask[1].all()


def test_train_and_measure_gives_a_score_of_every_set(tmp_path):
    settings = ReaderSettings(steps=1, batch_size=4, width=64, num_blocks=1)
    scores = train_and_measure(OurFeatures(), settings, tmp_path, 4)
    assert {"held_out_styles", "languages", "unknown_word", "hand_written"} <= scores.keys()
    assert all(0 <= score <= 1 for score in scores.values())
