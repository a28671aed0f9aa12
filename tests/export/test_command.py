import json
from pathlib import Path

import pytest

from reelserve.export import command
from reelserve.export.exporter import Exporter, ExportResult


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
    assert "0.62 M" in shown


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
