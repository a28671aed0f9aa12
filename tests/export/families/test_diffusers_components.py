"""What the families of public checkpoints share: loading, schedules, limits, tokenizers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from reelserve.export.families.diffusers_components import (
    MissingLibraryError,
    flow_match_spec,
    limits_with,
    load_library_component,
    tokenizer_json,
)
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.registry import limits_of
from reelserve.pipeline.checkpoint import IntRange
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec

LTX_LIMITS = limits_of("ltx")


def write_index(folder: Path, **components: tuple[str, str]) -> Checkpoint:
    index = {"_class_name": "LTXPipeline", **components}
    (folder / "model_index.json").write_text(json.dumps(index))
    return Checkpoint.open(folder)


def test_load_component_names_what_it_found_when_the_class_is_another(tmp_path: Path) -> None:
    checkpoint = write_index(tmp_path, vae=("diffusers", "AutoencoderKLWan"))
    with pytest.raises(ValueError, match=r"'vae' is diffusers\.AutoencoderKLWan; this family nee"):
        load_library_component(checkpoint, "vae", "diffusers", "AutoencoderKLLTXVideo")


def test_load_component_says_what_to_install_when_the_library_is_missing(
    tmp_path: Path,
) -> None:
    checkpoint = write_index(tmp_path, vae=("nowhere", "AutoencoderKL"))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(MissingLibraryError, match=r"pip install nowhere"):
        load_library_component(checkpoint, "vae", "nowhere", "AutoencoderKL")


def test_limits_with_changes_only_what_is_named() -> None:
    limits = limits_with(LTX_LIMITS, {"num_frames": {"high": 65, "default": 33}})
    assert limits.num_frames == IntRange(9, 65, 33, multiple_of=8, offset=1)
    assert limits.height == LTX_LIMITS.height


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"frames": {"high": 9}}, "there is no limit 'frames'"),
        ({"num_frames": {"highest": 9}}, "num_frames"),
        ({"num_frames": {"low": 10, "high": 10, "default": 10}}, "num_frames is 10"),
        ({"height": {"default": 100}}, "height is 100"),
    ],
)
def test_limits_with_names_the_field_when_the_profile_is_wrong(
    profile: dict[str, dict[str, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        limits_with(LTX_LIMITS, profile)


def test_flow_match_spec_takes_the_dynamic_shift() -> None:
    spec = flow_match_spec(
        {
            "use_dynamic_shifting": True,
            "base_image_seq_len": 1024,
            "max_image_seq_len": 4096,
            "base_shift": 0.95,
            "max_shift": 2.05,
            "shift_terminal": 0.1,
        }
    )
    assert spec == FlowMatchSpec(1.0, DynamicShift(1024, 4096, 0.95, 2.05), 0.1)


@pytest.mark.parametrize("setting", [{"use_karras_sigmas": True}, {"stochastic_sampling": True}])
def test_flow_match_spec_refuses_what_ours_does_not_do(setting: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        flow_match_spec(setting)


def test_tokenizer_json_is_made_from_a_sentencepiece_model(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="needs reelserve[families]")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(["a red star moves at sea", "hearts bounce on plain ground"] * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(folder / "spiece"),
        vocab_size=30,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}')
    tokenizer = Tokenizer.from_str(tokenizer_json(write_index(tmp_path)).decode())

    pieces = sentencepiece.SentencePieceProcessor(str(folder / "spiece.model"))
    assert tokenizer.encode("a red star").ids == [*pieces.encode("a red star"), 1]


def test_tokenizer_json_names_the_folder_when_it_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="component 'tokenizer' is missing"):
        tokenizer_json(write_index(tmp_path))
