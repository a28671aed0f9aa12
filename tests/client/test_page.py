"""The examples of docs/client.md run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reelserve import client
from reelserve.client import cli
from reelserve.client import generate_command as command

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")
PROGRAMS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.server
def test_examples_run_one_after_the_other(tiny_server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    programs = PROGRAMS.findall(PAGE)
    (needs_files,) = [text for text in programs if "me.pem" in text]
    for program in programs:
        if program is not needs_files:
            exec(program.replace("localhost:8001", tiny_server.grpc_url), names)
    files = {"clip.mp4", "clip.webm", "clip.gif", "clip.png"}
    # A clip of tiny graphs may be there before its first picture.
    assert {path.name for path in tmp_path.iterdir()} - {"first.png"} == files
    assert "NUM_FRAMES is 7" in capsys.readouterr().out


def test_page_names_every_error_and_function_of_the_package():
    internal = {"AsyncStream", "Capabilities", "Event", "GenerateOptions", "StageStatistics"}
    left_out = internal | {"Stream", "VideoInfo"}
    for name in set(client.__all__) - left_out:
        assert re.search(rf"\b{name}\b", PAGE), name


def test_page_names_options_of_the_command_that_exist():
    table = PAGE[PAGE.index("| option | variable |") :]
    known = command._parser()._option_string_actions
    for option in re.findall(r"--[a-z][a-z-]+", table):
        assert option in known
    assert {cli.OK, cli.FAILURE, cli.USAGE, cli.INTERRUPTED} == {0, 1, 2, 130}
