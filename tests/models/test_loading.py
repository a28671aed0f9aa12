import json

import pytest
import torch

from reelserve.models.loading import CONFIG_FILE, load_component, save_component
from reelserve.models.video_vae import VideoVAE, VideoVAEConfig
from reelserve.training.recogniser import Recogniser

SMALL = VideoVAEConfig(
    latent_channels=4,
    channels=(6, 8, 10),
    encoder_blocks=(1, 1, 1),
    decoder_blocks=(1, 1, 1),
    end_channels=(4, 4),
)


def test_load_component_gives_back_what_was_saved(tmp_path):
    module = VideoVAE(SMALL)
    save_component(module, tmp_path)
    loaded = load_component(tmp_path, VideoVAE)
    assert loaded.config == SMALL
    assert not loaded.training
    for saved, found in zip(module.parameters(), loaded.parameters(), strict=True):
        assert found.dtype == torch.float32
        assert torch.equal(saved.half().float(), found)


def test_load_component_raises_when_the_folder_is_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_component(tmp_path, VideoVAE)


def test_load_component_raises_when_the_class_is_another(tmp_path):
    save_component(VideoVAE(SMALL), tmp_path)
    with pytest.raises(ValueError, match="holds class VideoVAE, expected Recogniser"):
        load_component(tmp_path, Recogniser)


def test_load_component_raises_when_a_setting_is_unknown(tmp_path):
    save_component(VideoVAE(SMALL), tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**config, "bogus": 1}))
    with pytest.raises(ValueError, match="bogus"):
        load_component(tmp_path, VideoVAE)
