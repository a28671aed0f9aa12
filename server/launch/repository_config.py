"""The Triton configs of a repository, as the launcher reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from reelserve.server.launch.repository_check import RepositoryError
from reelserve.server.parameters import Parameters


def model_config(repository: Path, model: str, config_name: str = "") -> Any:
    """The config that serves a model.

    Args:
        repository: Folder with one folder a model.
        model: Name of the model.
        config_name: Which of those in `configs/` is taken where the model has it; else, and where
            this is empty, `config.pbtxt` is.

    Raises:
        RepositoryError: If it cannot be read.
    """
    folder = repository / model
    chosen = folder / "configs" / f"{config_name}.pbtxt"
    path = chosen if config_name and chosen.is_file() else folder / "config.pbtxt"
    try:
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise RepositoryError(f"{path} cannot be read: {error}") from None


def parameters_of(config: Any) -> Parameters:
    """The `parameters` of a config."""
    values = {k: {"string_value": v.string_value} for k, v in config.parameters.items()}
    return Parameters({"parameters": values})
