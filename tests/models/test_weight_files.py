"""Where weights are found, and which are refused by their names and headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reelserve.models.weight_files import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    find_weights,
    require_fit,
    require_values,
    tensor_shapes,
)
from reelserve.pipeline.checkpoint_files import CheckpointFileError

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_shards(folder: Path, index: str = "model.safetensors.index.json", **files: str) -> Path:
    """Two shards of a key each, and an index of them; `files` is what the index says instead."""
    save_file({"a": torch.zeros(2, 3)}, folder / FIRST)
    save_file({"b": torch.zeros(4)}, folder / SECOND)
    path = folder / index
    path.write_text(json.dumps({"weight_map": {"a": FIRST, "b": SECOND, **files}}))
    return path


@pytest.mark.parametrize("stem", [DIFFUSERS_STEM, TRANSFORMERS_STEM])
def test_find_weights_takes_the_plain_file_or_the_variant(tmp_path: Path, stem: str) -> None:
    for end in ("safetensors", "fp16.safetensors"):
        save_file({"a": torch.zeros(2)}, tmp_path / f"{stem}.{end}")
    assert [path.name for path in find_weights(tmp_path, stem).files] == [f"{stem}.safetensors"]
    found = find_weights(tmp_path, stem, "fp16")
    assert ([path.name for path in found.files], found.variant) == (
        [f"{stem}.fp16.safetensors"],
        "fp16",
    )
    assert find_weights(tmp_path, stem, "bf16").variant == ""


@pytest.mark.parametrize(
    ("variant", "index"),
    [("", "model.safetensors.index.json"), ("fp16", "model.safetensors.index.fp16.json")],
)
def test_find_weights_reads_an_index(tmp_path: Path, variant: str, index: str) -> None:
    path = write_shards(tmp_path, index)
    found = find_weights(tmp_path, TRANSFORMERS_STEM, variant)
    assert [file.name for file in found.files] == [FIRST, SECOND]
    assert (found.main, found.all_files[-1], found.variant) == (path, path, variant)
    assert tensor_shapes(found) == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "", "a\\b", 5])
def test_find_weights_refuses_an_index_that_leads_out_of_the_folder(tmp_path: Path, name) -> None:
    folder = tmp_path / "text_encoder"
    folder.mkdir()
    save_file({"a": torch.zeros(2)}, tmp_path / "secret.safetensors")
    path = write_shards(folder, b=name)
    with pytest.raises(CheckpointFileError) as refused:
        find_weights(folder, TRANSFORMERS_STEM)
    said = f"{path}: weight_map['b'] is {name!r}; it must name a file in {folder}"
    assert str(refused.value) == said


def test_find_weights_names_the_shard_that_is_missing(tmp_path: Path) -> None:
    write_shards(tmp_path)
    (tmp_path / SECOND).unlink()
    with pytest.raises(CheckpointFileError, match=rf"\['b'\] names {SECOND}, and .* is missing"):
        find_weights(tmp_path, TRANSFORMERS_STEM)


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_find_weights_refuses_an_index_of_nothing(tmp_path: Path, weight_map: object) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointFileError, match="must hold an object 'weight_map'"):
        find_weights(tmp_path, TRANSFORMERS_STEM)


def test_find_weights_refuses_shards_that_are_no_safetensors(tmp_path: Path) -> None:
    write_shards(tmp_path, b="code.bin")
    (tmp_path / "code.bin").write_bytes(b"!")
    with pytest.raises(CheckpointFileError, match=r"is 'code\.bin'; it must be a safetensors file"):
        find_weights(tmp_path, TRANSFORMERS_STEM)


def test_find_weights_refuses_a_key_in_two_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    save_file({"a": torch.zeros(2, 3)}, tmp_path / SECOND)
    with pytest.raises(CheckpointFileError, match="a stand in another shard, too"):
        find_weights(tmp_path, TRANSFORMERS_STEM)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (None, r"has no model\.safetensors; fetch it$"),
        ("pytorch_model.bin", r"pytorch_model\.bin is a pickle, .* save it by `save_pretrained`$"),
        ("model.fp16.safetensors", "it holds the variant fp16: `--variant fp16`$"),
        ("model.fp16-00001-of-00002.safetensors", "it holds the variant fp16: `--variant fp16`$"),
    ],
)
def test_find_weights_says_what_is_there_instead(tmp_path: Path, file, message: str) -> None:
    if file:
        (tmp_path / file).touch()
    with pytest.raises(CheckpointFileError, match=message):
        find_weights(tmp_path, TRANSFORMERS_STEM)


def test_require_fit_shows_the_first_keys_and_counts_the_rest(tmp_path: Path) -> None:
    require_fit(tmp_path)
    with pytest.raises(CheckpointFileError, match=r"5 missing: 0, 1, 2 and 2 more; 1 unexp.*: x$"):
        require_fit(tmp_path, missing=list("43210"), unexpected={"x"})


def test_require_values_names_what_was_not_loaded_and_what_is_no_number(tmp_path: Path) -> None:
    fine = ("fine", torch.ones(2)), ("ids", torch.ones(2, dtype=torch.int64))
    require_values(tmp_path, fine)
    with pytest.raises(CheckpointFileError, match=r"1 weights not loaded: away$"):
        require_values(tmp_path, [*fine, ("away", torch.ones(2, device="meta"))])
    with pytest.raises(CheckpointFileError, match=r"2 weights hold NaN or infinity: high, nan$"):
        tensors = {"nan": float("nan"), "high": float("inf")}
        require_values(tmp_path, [*fine, *((k, torch.tensor([0, v])) for k, v in tensors.items())])
