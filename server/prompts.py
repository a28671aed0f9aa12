"""Turns the prompts of a request into token ids."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reelserve.pipeline.checkpoint import RequestLimits
from reelserve.pipeline.padding import pad_token_of
from reelserve.pipeline.request import (
    PRIORITIES,
    VideoRequest,
    check_token_count,
    resolve_request,
)

FILE_NAME = "tokenizer.json"
RANDOM_SEEDS = 2**32
"""Seeds drawn for requests without one; short enough to copy by hand."""


class PromptTokenizer:
    """Tokenizes as the text encoder was trained, padded to one length.

    Args:
        file: The `tokenizer.json` of the checkpoint.
        max_tokens: `L`, special tokens included.

    Raises:
        FileNotFoundError: If `file` does not exist.
        ValueError: If its vocabulary has no padding token.
    """

    def __init__(self, file: Path, max_tokens: int) -> None:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; export the checkpoint first")
        self._tokenizer = Tokenizer.from_file(str(file))
        # The file may carry the lengths of its own training: a long prompt must be refused here
        # and not be cut in silence.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        try:
            _, self._pad_id = pad_token_of(self._tokenizer.token_to_id)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        self._max_tokens = max_tokens
        self._special_tokens = len(self._tokenizer.encode("").ids)

    def encode(
        self, prompt: str, negative_prompt: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tokenizes both prompts.

        Returns:
            Token ids and attention mask, both `[2, L]`: row 0 the prompt, row 1 the negative
            prompt; the mask is 1 on tokens and 0 on padding.

        Raises:
            ValueError: If one is longer than the limit, or PROMPT holds nothing to read.
        """
        ids = np.full((2, self._max_tokens), self._pad_id, np.int64)
        mask = np.zeros((2, self._max_tokens), np.int64)
        texts = (("PROMPT", prompt), ("NEGATIVE_PROMPT", negative_prompt))
        for row, (field, text) in enumerate(texts):
            tokens = self._tokenizer.encode(text).ids
            check_token_count(field, len(tokens), self._max_tokens)
            if field == "PROMPT" and len(tokens) == self._special_tokens:
                # Characters that the tokenizer drops, for example control characters.
                raise ValueError(
                    f"{field} is {text[:20]!r}; it must hold at least 1 visible character"
                )
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask


def check_request(
    inputs: Mapping[str, NDArray[Any]], limits: RequestLimits, tokenizer: PromptTokenizer
) -> tuple[VideoRequest, NDArray[np.int64], NDArray[np.int64]]:
    """Checks a public request, before any work.

    Args:
        inputs: Inputs of `text_to_video`, by name.
        limits: Request limits of the served checkpoint.
        tokenizer: Tokenizer of its text encoder.

    Returns:
        The request with its defaults; token ids and mask, both `[2, L]`.

    Raises:
        ValueError: If a field is out of range.
    """
    request = resolve_request(inputs, limits, lambda: secrets.randbelow(RANDOM_SEEDS))
    return request, *tokenizer.encode(request.prompt, request.negative_prompt)


def process_prompt(
    inputs: Mapping[str, NDArray[Any]], limits: RequestLimits, tokenizer: PromptTokenizer
) -> dict[str, NDArray[Any]]:
    """Checks a public request and prepares it for the other stages; arguments of `check_request`.

    Returns:
        Outputs of the `prompt_processor` stage by name, first dimension 1.

    Raises:
        ValueError: If a field is out of range.
    """
    request, ids, mask = check_request(inputs, limits, tokenizer)
    return {
        "INPUT_IDS": ids[None],
        "ATTENTION_MASK": mask[None],
        "SEED": np.array([[request.seed]], np.int64),
        "NUM_INFERENCE_STEPS": np.array([[request.num_inference_steps]], np.int32),
        "GUIDANCE_SCALE": np.array([[request.guidance_scale]], np.float32),
        "NUM_FRAMES": np.array([[request.num_frames]], np.int32),
        "FPS": np.array([[request.fps]], np.int32),
        "HEIGHT": np.array([[request.height]], np.int32),
        "WIDTH": np.array([[request.width]], np.int32),
        "PRIORITY_RANK": np.array([[PRIORITIES.index(request.priority)]], np.int32),
    }
