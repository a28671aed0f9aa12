import json
from pathlib import Path

import pytest

from reelserve.export import command
from reelserve.export.exporter import Exporter, ExportResult
from reelserve.models.denoiser import SpaceTimeDenoiser
from reelserve.models.loading import load_component


@pytest.fixture
def without_export(monkeypatch: pytest.MonkeyPatch, exported) -> ExportResult:
    """The command with an export that is already done."""
    _, result = exported
    monkeypatch.setattr(Exporter, "run", lambda self, force: result)
    return result


def test_run_prints_every_stage(
    without_export: ExportResult, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(["--checkpoint", str(tiny_checkpoint)]) == command.EXIT_OK
    shown = capsys.readouterr().out
    for stage in without_export.records:
        assert stage in shown
    denoiser = load_component(tiny_checkpoint / "transformer", SpaceTimeDenoiser)
    weights = sum(parameter.numel() for parameter in denoiser.parameters())
    assert f"{weights / 1e6:.2f} M" in shown


def test_run_writes_the_report_when_asked(
    without_export: ExportResult, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    report = tmp_path / "results" / "parity.json"
    command.run(["--checkpoint", str(tiny_checkpoint), "--parity-report", str(report)])
    written = json.loads(report.read_text())
    assert written["frames_psnr_db"] == without_export.frames_psnr_db
    assert set(written["stages"]) == set(without_export.records)
    assert {"commit", "cpu", "date", "versions"} <= set(written)


def test_run_says_why_when_export_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--checkpoint", str(tmp_path)]) == command.EXIT_FAILED
    shown = capsys.readouterr().err
    assert "export failed:" in shown
    assert "model_index.json: no such file" in shown
    assert "Traceback" not in shown


def refusal(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> str:
    """What the command says when it refuses; nothing is written then."""
    repository = folder / "repository"
    argv = ["--model-repository", str(repository), *arguments]
    assert command.run(argv) == command.EXIT_FAILED
    shown = capsys.readouterr().err
    assert "Traceback" not in shown and not repository.exists()
    return " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--num-frames", "30"), "num_frames is 30; it must be a multiple of 4 from 30 to 30"),
        (
            ("--num-frames", "-4"),
            "num_frames: low is -4; it must be a whole number from 1 ",
        ),
        (("--height", "100"), "height is 100; this checkpoint takes positive multiples of 32"),
        (("--precision", "bf16"), "precision is bf16; engine onnxruntime has fp32, fp16"),
        (("--engine", "onnxruntime-gpu"), "this onnxruntime has no CUDAExecutionProvider"),
        (("--profile", "none.json"), "none.json"),
    ],
)
def test_run_refuses_what_cannot_be_exported(
    tiny_checkpoint: Path, tmp_path: Path, capsys, arguments, message
) -> None:
    shown = refusal(capsys, tmp_path, "--checkpoint", str(tiny_checkpoint), *arguments)
    assert message in shown


def test_run_refuses_a_profile_between_whose_limits_latents_do_not_fit(
    tiny_checkpoint: Path, tmp_path: Path, capsys
) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"height": {"low": 256, "high": 512}}))
    shown = refusal(
        capsys, tmp_path, "--checkpoint", str(tiny_checkpoint), "--profile", str(profile)
    )
    assert "height has multiple_of 1; it must be a multiple of 32" in shown


def test_run_names_the_profile_that_is_wrong(tiny_checkpoint: Path, tmp_path: Path, capsys) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"fps": 30}')
    arguments = ("--checkpoint", str(tiny_checkpoint), "--profile", str(profile))
    shown = refusal(capsys, tmp_path, *arguments)
    assert f"export failed: {profile}: fps is 30; it must be an object" in shown


def test_run_refuses_an_unknown_class(own_checkpoint: Path, tmp_path: Path, capsys) -> None:
    index = own_checkpoint / "model_index.json"
    index.write_text(index.read_text().replace("BundledTextToVideoPipeline", "OtherPipeline"))
    shown = refusal(capsys, tmp_path, "--checkpoint", str(own_checkpoint))
    assert "unknown pipeline class 'OtherPipeline'; known are" in shown


@pytest.mark.parametrize("jobs", ["0", "two", "-1"])
def test_run_refuses_jobs_that_are_no_number_above_0(jobs: str, capsys) -> None:
    with pytest.raises(SystemExit):
        command.run([f"--jobs={jobs}"])
    assert f"jobs is {jobs}; it must be at least 1" in capsys.readouterr().err


def test_run_says_how_to_go_on_when_it_is_interrupted(
    tiny_checkpoint: Path, monkeypatch, capsys
) -> None:
    def run(self, force: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Exporter, "run", run)
    assert command.run(["--checkpoint", str(tiny_checkpoint)]) == command.EXIT_FAILED
    assert "the same command goes on with the stage that is not done" in " ".join(
        capsys.readouterr().err.split()
    )


def test_verify_says_what_is_not_as_exported(exported, capsys) -> None:
    repository, _ = exported
    argv = ["--verify", "--model-repository", str(repository.folder)]
    assert command.run(argv) == command.EXIT_OK
    assert "files as exported" in capsys.readouterr().out

    added = repository.folder / "denoiser" / "1" / "model.py"
    added.write_text("import os")
    try:
        assert command.run(argv) == command.EXIT_FAILED
        shown = " ".join(capsys.readouterr().err.split())
        assert f"not as exported: {added} was added after the export" in shown
    finally:
        added.unlink()


def test_verify_says_that_nothing_was_exported(tmp_path: Path, capsys) -> None:
    argv = ["--verify", "--model-repository", str(tmp_path)]
    assert command.run(argv) == command.EXIT_FAILED
    assert "there is no finished export" in " ".join(capsys.readouterr().err.split())


def test_run_refuses_a_broken_checkpoint_in_one_line(own_checkpoint: Path, tmp_path: Path, capsys):
    weights = own_checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    shown = refusal(capsys, tmp_path, "--checkpoint", str(own_checkpoint))
    assert f"export failed: {weights}: no whole safetensors file" in shown


def test_run_refuses_a_variant_that_is_not_there(tiny_checkpoint: Path, tmp_path: Path, capsys):
    arguments = ("--checkpoint", str(tiny_checkpoint), "--variant", "fp16")
    assert "variant is 'fp16'; no component has weights" in refusal(capsys, tmp_path, *arguments)
