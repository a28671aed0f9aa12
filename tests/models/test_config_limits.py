from pathlib import Path

import pytest

from reelserve.models.config_limits import check_sizes
from reelserve.models.denoiser import SIZE_10B
from reelserve.pipeline.checkpoint_files import CheckpointFileError

PATH = Path("transformer/config.json")
LARGEST_KNOWN = (
    {"num_layers": 24, "d_model": 1024, "d_ff": 65536, "num_heads": 128, "d_kv": 128},
    {"num_layers": 60, "num_attention_heads": 48, "attention_head_dim": 128, "ffn_dim": 15360},
    {"vocab_size": 256384, "d_model": 4096, "num_layers": 24, "tie_word_embeddings": False},
    {"num_blocks": SIZE_10B.num_blocks, "width": SIZE_10B.width, "text_dim": SIZE_10B.text_dim},
)
"""T5-11B, Hunyuan-like, UMT5-XXL, our 10B."""


@pytest.mark.parametrize("config", LARGEST_KNOWN)
def test_check_sizes_takes_the_largest_known_models(config) -> None:
    check_sizes(PATH, config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"num_blocks": 10**6}, "num_blocks is 1000000; the limit is 256"),
        ({"num_hidden_layers": 257}, "num_hidden_layers is 257; the limit is 256"),
        ({"decoder_blocks": [1, 10**6]}, "decoder_blocks is 1000000; the limit is 256"),
        ({"width": 200_000}, "width is 200000; the limit is 65536"),
        ({"vocab_size": 2**20 + 1}, "vocab_size is 1048577; the limit is 1048576"),
        ({"channels": [4] * 257}, "channels has 257 entries; the limit is 256"),
        (
            {"num_attention_heads": 200, "attention_head_dim": 200},
            "num_attention_heads · attention_head_dim is 40000; the limit is 16384",
        ),
    ],
)
def test_check_sizes_names_key_and_limit(config, message: str) -> None:
    with pytest.raises(CheckpointFileError, match=f"^{PATH}: {message}$"):
        check_sizes(PATH, config)
