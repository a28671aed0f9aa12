import numpy as np
import pytest

from reelserve.server.prompts import PromptTokenizer, process_prompt
from reelserve.tools.tiny_checkpoints import WORDS
from tests.server.tiny_repository import SPEC, tiny_tokenizer

LENGTH = SPEC.limits.max_prompt_tokens


@pytest.fixture
def tokenizer(tmp_path) -> PromptTokenizer:
    tiny_tokenizer().save(str(tmp_path / "tokenizer.json"))
    return PromptTokenizer(tmp_path / "tokenizer.json", LENGTH)


def test_encode_pads_both_prompts_to_the_limit(tokenizer):
    ids, mask = tokenizer.encode("a red star", "")

    assert ids.shape == mask.shape == (2, LENGTH)
    assert ids.dtype == mask.dtype == np.int64
    # [CLS] a red star [SEP], and [CLS] [SEP]; words follow the four special tokens.
    words = [WORDS.index(word) + 4 for word in ("a", "red", "star")]
    assert ids[0, :5].tolist() == [2, *words, 3]
    assert ids[1, :2].tolist() == [2, 3]
    assert mask.sum(axis=1).tolist() == [5, 2]
    assert not ids[mask == 0].any()


def test_encode_refuses_instead_of_cutting_when_a_prompt_is_long(tokenizer):
    # The tokenizer file itself would cut after 8 tokens.
    assert tokenizer.encode("red " * (LENGTH - 2), "")[1][0].all()
    with pytest.raises(ValueError, match=f"PROMPT holds {LENGTH + 1} tokens; the limit is"):
        tokenizer.encode("red " * (LENGTH - 1), "")
    with pytest.raises(ValueError, match=f"NEGATIVE_PROMPT holds {LENGTH + 1} tokens"):
        tokenizer.encode("red", "red " * (LENGTH - 1))


def test_encode_refuses_when_nothing_of_the_prompt_is_left(tokenizer):
    with pytest.raises(ValueError, match=r"PROMPT is .* at least 1 visible character"):
        tokenizer.encode("\x01", "")


def test_prompt_tokenizer_says_what_to_do_when_the_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="export the checkpoint first"):
        PromptTokenizer(tmp_path / "tokenizer.json", LENGTH)


def test_process_prompt_gives_every_output_of_the_stage(tokenizer):
    from reelserve.pipeline.contract import STAGES

    outputs = process_prompt({"PROMPT": np.array([b"a star"], object)}, SPEC.limits, tokenizer)
    dtypes = {"INT64": np.int64, "INT32": np.int32, "FP32": np.float32, "FP64": np.float64}

    specs = STAGES["prompt_processor"].outputs
    assert list(outputs) == [spec.name for spec in specs]
    for spec in specs:
        assert outputs[spec.name].dtype == dtypes[spec.dtype], spec.name
        assert outputs[spec.name].ndim == len(spec.dims), spec.name
    assert 0 <= outputs["SEED"][0] < 2**32
    assert outputs["PRIORITY_RANK"][0] == 0
