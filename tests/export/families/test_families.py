import json
from pathlib import Path

import pytest

from reelserve.export.families import family_of
from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.pipeline.checkpoint import CheckpointSpec


def edit_index(checkpoint: Path, **entries: object) -> Checkpoint:
    path = checkpoint / INDEX_FILE
    index = {**json.loads(path.read_text()), **entries}
    path.write_text(json.dumps({name: value for name, value in index.items() if value is not None}))
    return Checkpoint.open(checkpoint)


def test_open_fails_when_folder_has_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model_index\.json: no such file"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "JSON object")])
def test_open_fails_when_index_is_no_object(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / INDEX_FILE).write_text(text)
    with pytest.raises(ValueError, match=message):
        Checkpoint.open(tmp_path)


def test_family_of_fails_when_class_is_unknown(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, _class_name="OtherPipeline")
    message = "unknown pipeline class 'OtherPipeline'; known are BundledTextToVideoPipeline"
    with pytest.raises(ValueError, match=message):
        family_of(checkpoint)


@pytest.mark.parametrize("entry", ["_class_name", "text_encoder", "latents", "limits"])
def test_family_fails_when_index_lacks_an_entry(own_checkpoint: Path, entry: str) -> None:
    checkpoint = edit_index(own_checkpoint, **{entry: None})
    with pytest.raises(ValueError, match=f"entry '{entry}' is missing"):
        family_of(checkpoint).source("text_encoder")


def test_build_fails_when_component_has_another_class(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, transformer=["diffusers", "LatteTransformer3DModel"])
    message = "unknown class diffusers.LatteTransformer3DModel; known is reelserve.models.denoiser"
    with pytest.raises(ValueError, match=message):
        family_of(checkpoint).build("denoiser")


def test_build_fails_when_component_is_in_no_package(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, upsampler=["diffusers", "Upsampler"])
    with pytest.raises(ValueError, match="'upsampler' must come from 'package:…'"):
        family_of(checkpoint).build("upsampler")


def test_build_fails_when_component_is_no_pair(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, vae="VideoVAE")
    with pytest.raises(ValueError, match="'vae' must be a pair of strings"):
        family_of(checkpoint).build("vae_decoder")


def test_spec_fails_when_a_limit_is_missing(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, limits={"max_prompt_tokens": 64})
    with pytest.raises(ValueError, match="max_prompt_characters"):
        family_of(checkpoint).spec("onnxruntime")


def test_spec_survives_a_round_trip(own_checkpoint: Path, tmp_path: Path) -> None:
    spec = family_of(Checkpoint.open(own_checkpoint)).spec("onnxruntime")
    spec.save(tmp_path)
    assert CheckpointSpec.load(tmp_path) == spec
