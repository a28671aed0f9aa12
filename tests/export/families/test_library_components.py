"""Weights and configs of public components that are not just what they must be."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from reelserve.export.families import family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.library_components import (
    MissingLibraryError,
    component_settings,
)
from reelserve.export.stages import Target
from reelserve.pipeline.checkpoint_files import CheckpointFileError
from reelserve.tools.tiny_checkpoints import LTX_PROFILE

T5_WEIGHTS = "text_encoder/model.safetensors"
LTX_WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
STAGES = {"text_encoder": T5_WEIGHTS, "denoiser": LTX_WEIGHTS, "vae_decoder": VAE_WEIGHTS}


def ltx(folder: Path, variant: str = ""):
    return family_of(Checkpoint.open(folder, variant), LTX_PROFILE)


def rewrite(path: Path, change) -> None:
    """Saves changed weights under the same name."""
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def without_one(weights: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in weights.items() if name != key}


@pytest.mark.parametrize("stage", STAGES)
def test_check_takes_what_was_saved(tiny_ltx, stage):
    ltx(tiny_ltx).check(stage)


def test_check_refuses_a_text_encoder_whose_keys_have_a_prefix(own_ltx):
    rewrite(own_ltx / T5_WEIGHTS, lambda all_: {f"text_model.{k}": v for k, v in all_.items()})
    message = r"model\.safetensors: the weights do not fit config\.json: 22 missing: .* 19 more; "
    with pytest.raises(CheckpointFileError, match=message + r"21 unexpected: text_model\."):
        ltx(own_ltx).check("text_encoder")


def test_check_refuses_a_text_encoder_without_one_weight(own_ltx):
    key = "encoder.block.0.layer.0.SelfAttention.q.weight"
    rewrite(own_ltx / T5_WEIGHTS, lambda all_: without_one(all_, key))
    with pytest.raises(CheckpointFileError, match=rf"model\.safetensors: .*: 1 missing: {key}$"):
        ltx(own_ltx).check("text_encoder")
    with pytest.raises(CheckpointFileError, match=rf"model\.safetensors: .*: 1 missing: {key}$"):
        ltx(own_ltx).build("text_encoder")


@pytest.mark.parametrize("stage", STAGES)
def test_check_refuses_weights_that_are_missing_left_over_or_of_another_shape(own_ltx, stage):
    path = own_ltx / STAGES[stage]
    first, second, *_ = sorted(key for key, value in load_file(path).items() if value.dim() > 1)

    def changed(weights):
        kept = without_one(weights, first)
        return {**kept, second: torch.zeros(3, 5), "to_gate_compress.weight": torch.zeros(2)}

    rewrite(path, changed)
    with pytest.raises(CheckpointFileError) as refused:
        ltx(own_ltx).check(stage)
    said = str(refused.value)
    assert f"1 missing: {first}" in said and "1 unexpected: to_gate_compress.weight" in said
    assert f"1 of another shape: {second} [3, 5] instead of [" in said
    assert str(path) in said and "\n" not in said


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_check_and_build_refuse_weights_that_are_no_numbers(own_ltx, stage, value):
    path = own_ltx / STAGES[stage]
    key = max(load_file(path), key=lambda name: (name.startswith("decoder."), name))

    def broken(weights):
        weights[key].view(-1)[0] = value
        return weights

    rewrite(path, broken)
    for refuses in (ltx(own_ltx).check, ltx(own_ltx).build):
        with pytest.raises(CheckpointFileError, match=f"{path}: . weights hold NaN or inf.*{key}"):
            refuses(stage)


def test_build_refuses_weights_that_overflow_in_its_precision(own_ltx):
    rewrite(
        own_ltx / LTX_WEIGHTS, lambda all_: {**all_, "proj_in.bias": all_["proj_in.bias"] + 1e6}
    )
    ltx(own_ltx).check("denoiser")
    ltx(own_ltx).build("denoiser")
    with pytest.raises(CheckpointFileError, match=r"1 weights hold NaN or infinity: proj_in\.bias"):
        ltx(own_ltx).build("denoiser", Target("fp16"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "is a pointer of Git LFS and not the file; `git lfs pull` fetches it",
        ),
        (b"\xff" * 8 + b"{}", "no whole safetensors file: .*; fetch it again"),
        ((2**20).to_bytes(8, "little") + b"{}", "no whole safetensors file: "),
        (
            (73).to_bytes(8, "little")
            + b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}\n'
            + bytes(4),
            "no whole safetensors file: ",
        ),
    ],
    ids=["empty", "lfs", "header", "short", "absurd"],
)
def test_source_refuses_weights_that_are_no_file_of_weights(own_ltx, stage, content, message):
    path = own_ltx / STAGES[stage]
    path.write_bytes(content)
    with pytest.raises(CheckpointFileError, match=f"{path}: {message}"):
        ltx(own_ltx).source(stage)


@pytest.mark.parametrize("stage", STAGES)
def test_source_refuses_weights_that_are_cut_off(own_ltx, stage):
    path = own_ltx / STAGES[stage]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointFileError, match=f"{path}: no whole safetensors file"):
        ltx(own_ltx).source(stage)


@pytest.mark.parametrize("component", ["text_encoder", "transformer", "vae", "scheduler"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"a": NaN}', "NaN is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("\ud800", "not valid JSON"),
    ],
)
def test_spec_names_the_config_that_cannot_be_read(own_ltx, component, content, message):
    name = "scheduler_config.json" if component == "scheduler" else "config.json"
    path = own_ltx / component / name
    path.write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(CheckpointFileError, match=f"{path}: .*{message}"):
        ltx(own_ltx).spec()


@pytest.mark.parametrize(
    ("component", "name", "value", "message"),
    [
        ("text_encoder", "num_layers", 10**6, "num_layers is 1000000; the limit is 256"),
        ("text_encoder", "d_model", 200_000, "d_model is 200000; the limit is 65536"),
        ("text_encoder", "d_kv", 60_000, r"num_heads · d_kv is 240000; the limit is 16384"),
        ("text_encoder", "vocab_size", 10**9, "vocab_size is 1000000000; the limit is 1048576"),
        ("transformer", "num_layers", 10**6, "num_layers is 1000000; the limit is 256"),
        ("transformer", "in_channels", 200_000, "in_channels is 200000; the limit is 65536"),
        ("transformer", "patch_size", 2, "patch_size is 2; it must be 1"),
        ("transformer", "patch_size_t", 2, "patch_size_t is 2; it must be 1"),
        ("transformer", "in_channels", 16, "in_channels is 16; it must be 8"),
        ("transformer", "caption_channels", 16, "caption_channels is 16; it must be 32"),
        ("vae", "layers_per_block", [10**6], "layers_per_block is 1000000; the limit is 256"),
        ("vae", "block_out_channels", [8] * 10**4, "block_out_channels has 10000 entries; the"),
        ("vae", "spatio_temporal_scaling", True, "scaling is True; it must be a list of bool"),
        ("vae", "scaling_factor", None, "scaling_factor is None; it must be a number above 0"),
        ("vae", "patch_size", "4", "patch_size is '4'; it must be a whole number from 1 to 64"),
        (
            "text_encoder",
            "attn_implementation",
            "someone/kernel",
            "attn_implementation is 'someone/kernel'; code that a checkpoint names is not fetc",
        ),
        ("text_encoder", "model_type", "umt5", "model_type is 'umt5'; it must be 't5'"),
        (
            "transformer",
            "quantization_config",
            {"quant_method": "bitsandbytes"},
            r"quantization_config is set \(quant_method 'bitsandbytes'\); export takes the wei",
        ),
    ],
)
def test_spec_names_setting_and_limit(own_ltx, change, component, name, value, message):
    path = own_ltx / component / "config.json"
    change(path, **{name: value})
    with pytest.raises(CheckpointFileError, match=f"{path}: .*{message}"):
        family = ltx(own_ltx)
        family.spec()
        family.check("denoiser")


def test_check_refuses_a_config_of_another_class_than_the_index_says(own_ltx, change):
    change(own_ltx / "vae" / "config.json", _class_name="AutoencoderKLWan")
    with pytest.raises(CheckpointFileError, match="_class_name is 'AutoencoderKLWan'; the index"):
        ltx(own_ltx).check("vae_decoder")


def test_check_refuses_an_adapter_that_names_a_base_model(own_ltx):
    (own_ltx / "text_encoder" / "adapter_config.json").write_text('{"base_model": "elsewhere"}')
    with pytest.raises(CheckpointFileError, match="the component is an adapter; merge it"):
        ltx(own_ltx).check("text_encoder")


def test_check_says_in_one_line_what_the_library_says(own_ltx, change):
    change(own_ltx / "vae" / "config.json", down_block_types=["Unknown"] * 4)
    with pytest.raises(CheckpointFileError, match="KLLTXVideo cannot be made from it") as said:
        ltx(own_ltx).check("vae_decoder")
    assert "\n" not in str(said.value)


def test_check_refuses_a_tokenizer_with_more_tokens_than_the_encoder(own_ltx, change):
    change(own_ltx / "text_encoder" / "config.json", vocab_size=5)
    weights = own_ltx / T5_WEIGHTS
    rewrite(weights, lambda all_: {k: v[:5] if "shared" in k else v for k, v in all_.items()})
    with pytest.raises(CheckpointFileError, match="vocab_size is 5; the tokenizer has the id 17"):
        ltx(own_ltx).check("text_encoder")


def test_missing_settings_are_those_of_diffusers(own_ltx, change):
    expected = ltx(own_ltx).spec()
    change(own_ltx / "vae" / "config.json", "patch_size_t", "spatio_temporal_scaling")
    change(own_ltx / "transformer" / "config.json", "patch_size", "patch_size_t")
    assert ltx(own_ltx).spec() == expected


@pytest.mark.parametrize("stage", STAGES)
def test_variant_is_taken_where_a_component_has_it(own_ltx, tiny_ltx, stage):
    path = own_ltx / STAGES[stage]
    half = path.with_name(path.name.replace(".safetensors", ".fp16.safetensors"))
    path.rename(half)
    with pytest.raises(CheckpointFileError, match=r"it holds the variant fp16: `--variant fp16`"):
        ltx(own_ltx).source(stage)
    for name in STAGES:
        files = {file.name for file in ltx(own_ltx, "fp16").source(name).files}
        assert (half.name in files) == (name == stage)
    family = ltx(own_ltx, "fp16")
    family.check(stage)
    family.build(stage)


def test_open_refuses_a_variant_that_no_component_has(own_ltx):
    with pytest.raises(CheckpointFileError, match=r"variant is 'fp8'; .* named \*\.fp8\.safetens"):
        Checkpoint.open(own_ltx, "fp8")


def test_source_refuses_pickles(own_ltx):
    (own_ltx / T5_WEIGHTS).unlink()
    torch.save({}, own_ltx / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(CheckpointFileError, match=r"pytorch_model\.bin is a pickle, which may"):
        ltx(own_ltx).source("text_encoder")


def test_check_refuses_a_component_of_another_class(own_ltx, change):
    change(own_ltx / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    with pytest.raises(CheckpointFileError, match=r"'vae' is diffusers\.AutoencoderKL; this fam"):
        ltx(own_ltx).check("vae_decoder")


def test_check_says_what_to_install_when_the_library_is_missing(own_ltx, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'reelserve\[families\]'"):
        ltx(own_ltx).check("vae_decoder")


def test_component_settings_fails_when_the_component_is_missing(own_ltx):
    shutil.rmtree(own_ltx / "vae")
    with pytest.raises(FileNotFoundError, match="component 'vae' is missing from the checkpoint"):
        component_settings(Checkpoint.open(own_ltx), "vae")
