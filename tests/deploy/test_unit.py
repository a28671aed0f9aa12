"""The systemd unit, run by a systemd that is process 1 of a container."""

from __future__ import annotations

import pytest

from reelserve.tools.bench.image.unit import UNIT, booted
from reelserve.tools.bench.image_command import measure_unit
from tests.deploy.podman import IMAGE, ROOT
from tests.deploy.test_image import CLIP, PROMPT, SLOW_CLIP

pytestmark = [pytest.mark.server, pytest.mark.deploy]


@pytest.fixture(scope="module")
def unit(image, tiny_repository):
    with booted(IMAGE, tiny_repository, ROOT) as one:
        yield one


@pytest.fixture(scope="module")
def started(unit):
    """The unit, whose start was watched: what systemd and the server's probe said together."""
    unit.systemctl("start", "--no-block", UNIT)
    said = []

    def is_over():
        said.append((unit.property("ActiveState"), unit.is_ready()))
        return said[-1][0] not in ("inactive", "activating")

    unit.wait_until(is_over)
    return unit, said


def test_unit_is_active_when_clips_are_accepted_and_not_before(started):
    _, said = started
    assert ("activating", False) in said and said[-1] == ("active", True)
    assert ("active", False) not in said


def test_server_is_in_the_sandbox_that_the_unit_describes(started):
    unit, _ = started
    status, mounts = unit.status(), unit.mounts()
    assert int(status["CapBnd"], 16) == 0 and "0" not in status["Uid"].split()
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    read_only = ("/", "/dev", "/srv/reelserve", "/proc/sys", "/sys/fs/cgroup", "/home")
    assert all("ro" in mounts[place].split(",") for place in read_only)
    assert "hidepid=invisible" in mounts["/proc"]
    # What systemd cannot do here it says, and goes on without.
    assert "ignoring" not in unit.log()


def test_unit_is_back_after_a_kill_and_draws_clips_to_their_end_at_a_stop(started):
    unit, _ = started
    found = measure_unit(unit, PROMPT, CLIP, SLOW_CLIP)
    assert found["drawn"] == found["in_flight"] > 1 and found["exit_status"] == 0
    assert unit.property("ActiveState") == "inactive"
