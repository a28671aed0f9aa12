from __future__ import annotations

import pytest

from tests.installed_tool import UNAVAILABLE, InstalledTool
from tests.tool_output import ToolError


def tool(fill):
    return InstalledTool("tool", "make it", fill, "program")


def refuse(folder):
    raise ToolError("the registry is away")


def test_install_starts_from_an_empty_folder_and_check_finds_the_tool(tmp_path):
    folder = tmp_path / "build" / "tool"
    one = tool(lambda place: (place / "program").write_text("x"))
    with pytest.raises(ToolError, match="not installed, which `make it` does"):
        one.check(folder)
    one.install(folder)
    (folder / "old").write_text("x")
    one.install(folder)
    one.check(folder)
    assert [file.name for file in folder.iterdir()] == ["program"]


def test_reason_stays_where_it_cannot_be_had_and_goes_when_it_can(tmp_path):
    with pytest.raises(ToolError, match="the registry is away"):
        tool(refuse).install(tmp_path)
    with pytest.raises(ToolError, match="the registry is away"):
        tool(refuse).check(tmp_path)
    tool(lambda place: (place / "program").write_text("x")).install(tmp_path)
    assert not (tmp_path / UNAVAILABLE).exists()


def test_main_says_in_a_line_what_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tool", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^No tool, so its tests are skipped: the registry is"):
        tool(refuse).main()
