"""The systemd unit, read by systemd's own tools."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reelserve.server.launch.command import parse_options
from reelserve.server.launch.triton_process import KILL_AFTER_S

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "reelserve.service"
MAX_EXPOSURE = 2.0
"""Of 10, by `systemd-analyze security`."""


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


@pytest.fixture
def unit(tmp_path):
    """The unit, with a program that is there."""
    text = UNIT.read_text()
    assert "\nExecStart=/opt/reelserve/bin/reelserve serve " in text
    here = tmp_path / UNIT.name
    here.write_text(text.replace("/opt/reelserve/bin/reelserve", shutil.which("true")))
    return here


def test_systemd_understands_every_line(unit):
    done = analyze("verify", str(unit))
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr


def test_a_line_that_systemd_does_not_know_is_found(unit):
    unit.write_text(unit.read_text().replace("NoNewPrivileges=", "NoNewPrivilege="))
    assert "NoNewPrivilege" in analyze("verify", str(unit)).stderr


def exposure(unit):
    done = analyze("security", "--offline=true", "--no-pager", str(unit))
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    return float(found[1])


def test_sandbox_leaves_little_exposed(unit):
    bare = unit.with_name("bare.service")
    bare.write_text("[Service]\nExecStart=/bin/true\n")
    assert exposure(unit) <= MAX_EXPOSURE < 9 < exposure(bare)


def test_it_waits_longer_for_the_end_than_a_drain_takes():
    options, _, _ = parse_options([])
    stop_s = int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)[1])
    assert stop_s >= options.drain_timeout_s + KILL_AFTER_S
