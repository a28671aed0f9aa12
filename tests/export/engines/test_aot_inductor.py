"""AOTInductor packages: for the CPU here, for the GPU where there is one."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reelserve.export.engines import EngineError, aot_inductor, get_engine
from reelserve.export.engines.aot_inductor import AotInductorEngine
from reelserve.export.engines.stage_graph import graph_spec
from reelserve.export.parity import ENGINE_STAGES
from reelserve.export.parity_limits import MAX_LEVEL_ERROR, MAX_RELATIVE_ERROR, MIN_GRAPH_PSNR_DB
from reelserve.export.stages import DimRange, ExportStage
from reelserve.runtimes.aoti_package import Package, weights_path
from reelserve.runtimes.export_lock import ExportLock
from tests.export.kept_graphs import kept_build, own_fingerprint

pytestmark = pytest.mark.compile

ENGINE = AotInductorEngine()


class Decoder(nn.Module):
    """LATENTS `[B, 4, F, 3, 5]` to FRAMES of the same size, by all that a weight can be."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)
        self.tied = self.first
        self.register_buffer("shift", torch.arange(5.0)[:, None])
        self.constant = torch.tensor([0.5, 0.25, 2.0, 1.0])

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = latents.permute(0, 2, 3, 4, 1).to(self.first.weight.dtype)
        x = self.tied(torch.tanh(self.first(x)) * self.constant.to(x)) + self.shift.to(x)
        levels = torch.sigmoid(self.last(x)).float() * torch.tensor([255.0, 200.0, 100.0]).to(x)
        return levels.round().to(torch.uint8)


def decoder(precision="fp32") -> ExportStage:
    target = ENGINE.target(precision)
    return ExportStage(
        "vae_decoder",
        target.place(Decoder()),
        (torch.randn(2, 4, 3, 3, 5, device=target.device),),
        {"LATENTS": {2: "frames", 3: "height"}},
        {"frames": DimRange(2, 7, 4), "height": DimRange(3, 3, 3)},
    )


def agrees(stage: ExportStage, path: Path, levels: int) -> None:
    """A batch, at the smallest, usual and largest size."""
    for frames in (2, 4, 7):
        (latents,) = stage.inputs_at(3, {"frames": frames})
        found = ENGINE.run(path, {"LATENTS": latents.cpu().numpy()})[0]
        with torch.no_grad():
            expected = stage.module(latents).cpu().numpy()
        assert found.shape == (3, frames, 3, 5, 3)
        assert np.abs(found.astype(int) - expected).max() <= levels


def test_export_passes_parity(compiled):
    repository, result = compiled
    assert tuple(result.records) == ENGINE_STAGES
    assert result.frames_psnr_db >= MIN_GRAPH_PSNR_DB
    for stage in ENGINE_STAGES:
        assert [file.name for file in result.records[stage].files] == ["model.pt2"]
    lock = ExportLock.load(repository.folder)
    assert (lock.engine, lock.config_name) == ("pytorch", "pytorch")
    assert lock.architecture == ENGINE.architecture()
    assert "torch" in lock.bound_versions


@pytest.mark.parametrize("stage", ["denoiser", "vae_decoder", "frame_consistency", "upsampler"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_package_takes_the_ends_of_its_ranges(compiled, compiled_family, stage, end):
    repository, _ = compiled
    built = compiled_family.build(stage, ENGINE.target("fp32"))
    sizes = {name: getattr(range_, end) for name, range_ in built.ranges.items()}
    inputs = built.inputs_at(1, sizes)
    names = [spec.name for spec in built.contract.inputs]
    arrays = {name: x.cpu().numpy() for name, x in zip(names, inputs, strict=True)}
    found = ENGINE.run(repository.version_folder(stage) / "model.pt2", arrays)[0]
    with torch.no_grad():
        expected = built.module(*inputs).cpu().numpy()
    atol = (
        MAX_LEVEL_ERROR["fp32"]
        if found.dtype == np.uint8
        else MAX_RELATIVE_ERROR * np.abs(expected).max()
    )
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0, atol=atol)


def test_package_refuses_when_a_size_is_out_of_range(compiled):
    repository, _ = compiled
    path = repository.version_folder("vae_decoder") / "model.pt2"
    with pytest.raises(ValueError, match="its dimension 2 must be 4 to 6"):
        ENGINE.run(path, {"LATENTS": np.zeros((1, 16, 7, 4, 4), np.float32)})


def test_graph_spec_fixes_what_has_one_size():
    (latents,) = graph_spec(decoder()).inputs
    assert (latents.low, latents.high) == ((1, 4, 2, 3, 5), (1, 4, 7, 3, 5))
    assert latents.usual == (1, 4, 4, 3, 5)


def test_weights_stand_beside_a_large_package_in_bf16(tmp_path, monkeypatch):
    stage, path = decoder("bf16"), tmp_path / "model.pt2"
    monkeypatch.setattr(aot_inductor, "EMBED_LIMIT_BYTES", 0)
    kept_build(tmp_path, own_fingerprint(__file__), "bf16", lambda: ENGINE.build(stage, path))
    assert {file.name for file in tmp_path.iterdir()} == {"model.pt2", "model.safetensors"}
    agrees(stage, path, levels=4)

    ENGINE.release()
    beside = weights_path(path)
    beside.rename(tmp_path / "elsewhere")
    with pytest.raises(
        ValueError, match=r"has no weights inside and no model\.safetensors beside it"
    ):
        Package(path, torch.device(ENGINE.target("fp32").device))


def test_release_forgets_the_package(compiled):
    repository, _ = compiled
    path = repository.version_folder("vae_decoder") / "model.pt2"
    ENGINE.run(path, {"LATENTS": np.zeros((1, 16, 4, 4, 4), np.float32)})
    assert ENGINE._loaded is not None
    # To another process goes the engine alone.
    assert pickle.loads(pickle.dumps(ENGINE))._loaded is None
    ENGINE.release()
    assert ENGINE._loaded is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes fp16")
def test_engine_refuses_fp16_without_a_gpu():
    with pytest.raises(EngineError, match="precision is fp16; on a CPU the engine pytorch builds"):
        get_engine("pytorch").check("fp16")


STATIC_COMPILER = """#!/bin/sh
for argument in "$@"; do
    # Nothing is linked.
    case "$argument" in -c) exec g++ "$@" ;; esac
done
exec g++ "$@" -static-libstdc++
"""
BUILD_AND_RUN = """
import sys
from pathlib import Path
from torch._inductor import config
from tests.export.engines import test_aot_inductor as tests
from tests.export.engines.test_aot_inductor import ENGINE, agrees, decoder
from tests.export.kept_graphs import kept_build, own_fingerprint
from tests.export.scalar_code import scalar_code
stage, path = decoder(), Path(sys.argv[1])
fingerprint = own_fingerprint(tests.__file__)
# For one package: precompiled headers cost more than they save, and so does the search for vector
# instructions that scalar code has not.
single = {"aot_inductor.precompile_headers": False, "cpp.vec_isa_ok": False}
with scalar_code(), config.patch(single):
    kept_build(path.parent, fingerprint, "static", lambda: ENGINE.build(stage, path))
agrees(stage, path, levels=1)
"""


def test_package_runs_when_its_compiler_linked_the_cpp_library_into_it(tmp_path: Path) -> None:
    found = subprocess.run(["g++", "-print-file-name=libstdc++.a"], capture_output=True, text=True)
    if not Path(found.stdout.strip()).is_absolute():
        pytest.skip("this C++ compiler has no static library")
    compiler, path = tmp_path / "static-g++", tmp_path / "package" / "model.pt2"
    path.parent.mkdir()
    compiler.write_text(STATIC_COMPILER)
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    # A process of its own: what crashes must not take the tests with it.
    done = subprocess.run(
        [sys.executable, "-c", BUILD_AND_RUN, str(path)],
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(path) as package:
        (code,) = (package.read(name) for name in package.namelist() if name.endswith(".so"))
    assert b"libstdc++.so" not in code


def test_stages_that_compute_the_same_are_built_in_folders_of_their_own(tmp_path, monkeypatch):
    """Built at once they would take each other's metadata: the compiler names files by the code."""
    packed: list[Path] = []

    def compiled(*arguments, options) -> list[str]:
        file = Path(options["aot_inductor.output_path"]) / "named_by_the_code.cpp"
        file.touch()
        return [str(file)]

    def package(path: str, files: list[str]) -> None:
        packed.extend(map(Path, files))
        assert packed[-1].exists()

    monkeypatch.setattr(torch._inductor, "aot_compile", compiled)
    monkeypatch.setattr(aot_inductor, "package_aoti", package)
    for name in ("one", "other"):
        ENGINE.build(decoder(), tmp_path / f"{name}.pt2")
    assert len(set(packed)) == 2
    assert not any(file.exists() for file in packed)
