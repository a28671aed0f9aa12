from __future__ import annotations

import subprocess

from reelserve.pipeline import provenance


def test_commit_is_unknown_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == "unknown"


def test_commit_says_dirty_when_a_tracked_file_has_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a")
    for command in (
        "init -q",
        "add file",
        "-c user.name=a -c user.email=a@b commit -qm message",
        "-c user.name=a -c user.email=a@b tag -a v1 -m message",
    ):
        subprocess.run(["git", *command.split()], check=True)
    clean = provenance.commit()
    (tmp_path / "untracked").write_text("b")
    assert provenance.commit() == clean
    assert len(clean) == 40
    (tmp_path / "file").write_text("b")
    assert provenance.commit() == f"{clean}-dirty"


def test_provenance_names_the_processor():
    assert provenance.provenance()["cpu"]
    assert provenance.provenance()["cores"] >= 1
