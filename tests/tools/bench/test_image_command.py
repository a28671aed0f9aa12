from __future__ import annotations

import pytest

from reelserve.client.cli import FAILURE, USAGE
from reelserve.tools.bench import image_command
from reelserve.tools.bench.image.containers import PodmanError, run_tool, shm_size
from reelserve.tools.bench.image.unit import Unit


@pytest.mark.parametrize("option", [["--no-build"], []], ids=["run", "build"])
def test_bench_image_says_so_when_there_is_no_podman(
    option, tiny_repository, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    output = tmp_path / "image.json"
    arguments = ["--model-repository", str(tiny_repository), "--output", str(output)]
    assert image_command.run([*arguments, *option]) == FAILURE
    assert capsys.readouterr().err.strip().count("\n") <= 1 and not output.exists()


def test_bench_image_exits_with_usage_when_a_count_is_wrong():
    with pytest.raises(SystemExit) as stopped:
        image_command.run(["--rounds=0"])
    assert stopped.value.code == USAGE


def test_a_tool_that_fails_is_an_error_that_names_it_and_says_what_it_said():
    with pytest.raises(PodmanError, match=r"^sh -c .*: it broke$"):
        run_tool(["sh", "-c", "echo it broke >&2; exit 3"])
    with pytest.raises(PodmanError, match="timed out"):
        run_tool(["sleep", "60"], timeout_s=0.1)


def test_shared_memory_is_what_a_check_of_the_server_tells(tiny_repository):
    assert (
        shm_size(tiny_repository).startswith("--shm-size=") and shm_size(tiny_repository)[-1] == "m"
    )


def test_mounts_are_read_from_the_kernels_lines(monkeypatch):
    root = "36 35 98:0 / / ro,nosuid - ext4 /dev/root rw"
    proc = "41 36 0:5 / /proc rw - proc proc rw,hidepid=invisible"
    lines = f"{root}\n{proc}"
    monkeypatch.setattr(Unit, "property", lambda self, name: "7")
    monkeypatch.setattr("reelserve.tools.bench.image.unit.run_podman", lambda *command: lines)
    mounts = Unit("one", 1, 2, 3).mounts()
    assert mounts == {"/": "ro,nosuid,rw", "/proc": "rw,rw,hidepid=invisible"}
