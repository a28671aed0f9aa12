from __future__ import annotations

import io

import pytest
from rich.console import Console

from reelserve.client.cli import FAILURE, OK, USAGE, main
from reelserve.tools.faults import command as faults_command
from reelserve.tools.faults.command import fault_table
from reelserve.tools.faults.fault import Fault, Trial, read_faults


@pytest.fixture
def trials(monkeypatch):
    """Three faults that break nothing."""

    def trial(name: str, *, good: bool = True) -> Trial:
        return Trial(name, lambda _: Fault(f"the {name}", "clips", "clips", None, 0, good))

    found = [trial("kill"), trial("full-disk", good=False), trial("soak")]
    monkeypatch.setattr(faults_command, "all_trials", lambda arguments: found)


@pytest.mark.parametrize(
    ("options", "faults", "status"),
    [
        ([], ["the kill", "the full-disk"], FAILURE),
        (["--soak"], ["the kill", "the full-disk", "the soak"], FAILURE),
        (["--only", "kill", "soak"], ["the kill", "the soak"], OK),
    ],
)
def test_faults_writes_what_was_tried(trials, tmp_path, options, faults, status):
    output = tmp_path / "faults.json"
    assert main(["faults", "--output", str(output), *options]) == status
    assert list(read_faults(output)) == faults


def test_faults_looks_at_its_output_before_anything_is_tried(trials, tmp_path, capsys):
    with pytest.raises(SystemExit, match=str(USAGE)):
        main(["faults", "--output", str(tmp_path)])
    assert "is a folder; it must be a file" in capsys.readouterr().err


def test_faults_names_an_unknown_one(trials, tmp_path, capsys):
    assert main(["faults", "--output", str(tmp_path / "f"), "--only", "rain"]) == USAGE
    assert "no fault rain; there are kill, full-disk, soak" in capsys.readouterr().err


def test_fault_table_shows_what_was_seen():
    out = io.StringIO()
    faults = [
        Fault("kill", "an error", "3 × clip", 2.5, 0, True),
        Fault("end", "ends", "ended", None, 1, False),
    ]
    Console(file=out, width=100).print(fault_table(faults))

    for text in ("3 × clip", "2.5", "–", "yes", "no"):
        assert text in out.getvalue()
