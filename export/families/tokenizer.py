"""The `tokenizer.json` of a public checkpoint, made from its other files where it is missing.

Code that a checkpoint brings (`auto_map`) is never run: the class is one of the library's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.families.library_components import MissingLibraryError
from reelserve.pipeline.checkpoint_files import (
    CheckpointFileError,
    one_line,
    read_json_object,
    read_text_file,
    require_content,
)
from reelserve.pipeline.padding import pad_token_of

COMPONENT = "tokenizer"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
MODEL_FILE = "spiece.model"
MODEL_CLASSES = ("T5Tokenizer", "T5TokenizerFast")
"""Classes of transformers that make a tokenizer from a `spiece.model`."""


def tokenizer_json(checkpoint: Checkpoint) -> bytes:
    """Content of the checkpoint's `tokenizer.json`.

    Raises:
        CheckpointFileError: If it is no tokenizer, cannot be made by the class that the index
            names, or pads with another token than the server does.
        FileNotFoundError: If the component is missing.
        MissingLibraryError: If it must be made and a library for that is not installed.
    """
    _, class_name = checkpoint.component(COMPONENT)
    folder = checkpoint.folder / COMPONENT
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: component 'tokenizer' is missing from the checkpoint")
    path = folder / TOKENIZER_FILE
    content = read_text_file(path) if path.is_file() else _made(checkpoint, folder, class_name)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:
        raise CheckpointFileError(f"{path}: no tokenizer: {one_line(error)}") from None
    _require_padding(folder, tokenizer)
    return content


def _made(checkpoint: Checkpoint, folder: Path, class_name: str) -> bytes:
    """Makes the file from a SentencePiece model, by the class that the index names."""
    model = folder / MODEL_FILE
    if not model.is_file():
        raise FileNotFoundError(f"{folder}: has neither {TOKENIZER_FILE} nor {MODEL_FILE}")
    require_content(model)
    if class_name not in MODEL_CLASSES:
        raise CheckpointFileError(
            f"{checkpoint.folder / INDEX_FILE}: component 'tokenizer' is of class {class_name}; a "
            f"{MODEL_FILE} without {TOKENIZER_FILE} is read by {' or '.join(MODEL_CLASSES)}"
        )
    try:
        import sentencepiece  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingLibraryError(
            f"{folder} has no {TOKENIZER_FILE} and what would make one is not installed; it comes "
            f"with `pip install 'reelserve[families]'`: {error}"
        ) from None
    try:
        made: Any = getattr(transformers, class_name).from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        text: str = made.backend_tokenizer.to_str()
    except Exception as error:
        raise CheckpointFileError(
            f"{folder}: transformers.{class_name} cannot be made from it: {one_line(error)}"
        ) from None
    return text.encode()


def _require_padding(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuses a tokenizer whose padding is not what the server would take for it."""
    try:
        token, _ = pad_token_of(tokenizer.token_to_id)
    except ValueError as error:
        raise CheckpointFileError(f"{folder}: {error}") from None
    path = folder / CONFIG_FILE
    wanted = read_json_object(path).get("pad_token", token) if path.is_file() else token
    if isinstance(wanted, dict):
        wanted = wanted.get("content")
    if wanted != token:
        raise CheckpointFileError(f"{path}: pad_token is {wanted!r}; it must be {token!r}")
