"""Each fault in its short form, on servers of tiny graphs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from reelserve.client import _silence
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.tritons import ServeOptions
from reelserve.tools.faults import damages as damages_module
from reelserve.tools.faults import deaths as deaths_module
from reelserve.tools.faults import fault as fault_module
from reelserve.tools.faults import fuzz as fuzz_module
from reelserve.tools.faults import links as links_module
from reelserve.tools.faults import neighbours as neighbours_module
from reelserve.tools.faults import overload as overload_module
from reelserve.tools.faults import soak as soak_module
from reelserve.tools.faults import storms as storms_module
from reelserve.tools.faults.damages import damages
from reelserve.tools.faults.deaths import deaths
from reelserve.tools.faults.drain import drains
from reelserve.tools.faults.fuzz import fuzz
from reelserve.tools.faults.links import links
from reelserve.tools.faults.neighbours import neighbours
from reelserve.tools.faults.overload import overloads
from reelserve.tools.faults.soak import soak
from reelserve.tools.faults.storms import storms

pytestmark = pytest.mark.server
TRIALS = {
    trial.name: trial
    for trials in (
        *(deaths(), drains(), damages(), storms(deadlines=1_500, cancels=1_500)),
        *(overloads(), neighbours(), links(6.0), [fuzz(600), soak(0.05)]),
    )
    for trial in trials
}
ALONE = ("hang", "kill-server", "restart", "sigterm", "sigterm-twice", "corrupt-graph")
"""Trials that end a server, or need it fresh or with other options."""
COMPARED = {
    "raise": damages_module,
    "deadlines": storms_module,
    "two-servers": neighbours_module,
}
"""Trials whose first server comes to no harm: a clip of it is compared."""
TOGETHER = {
    "kill-denoiser": deaths_module,
    "kill-video_encoder": deaths_module,
    "kill-triton": deaths_module,
    "silent-client": damages_module,
    "full-disk": damages_module,
    "cancels": storms_module,
    "overload-50": overload_module,
    "links": links_module,
    "fuzz": fuzz_module,
    "soak": soak_module,
}
"""Trials that a server outlives, with the modules that start one for them: here they break the same
one, one after the other."""


@pytest.fixture(scope="module")
def kept_server(tiny_repository) -> Iterator[Server]:
    with Server(ServeOptions(tiny_repository)) as server:
        yield server


@pytest.fixture
def first_kept(kept_server, monkeypatch):
    """The first server that a trial starts is the kept one."""

    def keep(module) -> None:
        servers = itertools.chain([nullcontext(kept_server)], itertools.repeat(None))

        def started(options: ServeOptions):
            return next(servers) or Server(options)

        monkeypatch.setattr(module, "Server", started)

    return keep


@pytest.fixture
def brief(monkeypatch):
    """Short waits, and wide bounds of speed and memory.

    What is slow or large here says nothing: that is for `reelserve faults` to measure.
    """
    monkeypatch.setattr(fault_module, "MAX_RECOVERY_S", 60.0)
    for module in (fuzz_module, soak_module):
        monkeypatch.setattr(module, "MAX_GROWTH", 10.0)
    monkeypatch.setattr(links_module, "PING_S", 1)
    monkeypatch.setattr(_silence, "ASK_AFTER_S", 1.0)
    monkeypatch.setattr("reelserve.client._client.ANSWER_WITHIN_S", 2.0)


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", ALONE)
def test_fault_is_seen_as_expected(tiny_repository, name):
    fault = TRIALS[name].run(tiny_repository)

    assert fault.as_expected and fault.lost == 0, fault.seen


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", COMPARED)
def test_fault_is_seen_beside_a_clip_of_another_server(tiny_repository, first_kept, name):
    first_kept(COMPARED[name])

    fault = TRIALS[name].run(tiny_repository)

    assert fault.as_expected and fault.lost == 0, fault.seen


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("name", TOGETHER)
def test_faults_are_outlived_by_one_server(tiny_repository, kept_server, monkeypatch, name):
    def started(options: ServeOptions) -> nullcontext[Server]:
        assert options == kept_server.options
        return nullcontext(kept_server)

    monkeypatch.setattr(TOGETHER[name], "Server", started)

    fault = TRIALS[name].run(tiny_repository)

    assert fault.as_expected and fault.lost == 0, fault.seen


def test_a_fault_that_is_not_there_is_not_as_expected(tiny_repository, first_kept, monkeypatch):
    """A graph that never raises: the request gets its clip, and the trial says so."""
    first_kept(damages_module)
    monkeypatch.setattr(damages_module, "raise_at", lambda graph, timestep: None)

    fault = TRIALS["raise"].run(tiny_repository)

    assert not fault.as_expected
    assert fault.seen.startswith("that request: 1 × clip")
