from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

from reelserve.client import InternalError
from reelserve.tools.faults import load
from reelserve.tools.faults.fault import Fault, all_among, counted, recovers, write_fault
from reelserve.tools.faults.load import outcomes


def fault(name: str, seen: str) -> Fault:
    return Fault(name, "an error", seen, 1.5, 0, True)


def ended(result: bytes | Exception) -> Future[bytes]:
    future: Future[bytes] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_outcomes_tell_clips_errors_and_what_got_lost(monkeypatch):
    monkeypatch.setattr(load, "ANSWER_TIMEOUT_S", 0.05)
    futures = [ended(b"mp4"), ended(b"bad"), ended(InternalError("upsampler")), Future()]

    seen = outcomes(futures, b"mp4")

    assert counted(seen) == "1 × InternalError, 1 × clip, 1 × nothing, 1 × other clip"
    assert not all_among(seen, ("clip", "InternalError"))
    assert all_among(outcomes(futures[:2], b""), ("clip",))


def test_nothing_seen_is_not_as_expected():
    assert not all_among({}, ("clip",))


@pytest.mark.parametrize(("seconds", "enough"), [(9.9, True), (10.1, False), (None, False)])
def test_recovery_is_bounded(seconds, enough):
    assert recovers(seconds) is enough


def test_write_fault_replaces_the_row_of_the_same_fault(tmp_path):
    path = tmp_path / "results" / "faults.json"
    for row in (fault("kill", "1 × clip"), fault("end", "ended"), fault("kill", "2 × clip")):
        write_fault(path, row, {"commit": "0123"})

    rows = json.loads(path.read_text())
    assert [(row["fault"], row["seen"]) for row in rows] == [("kill", "2 × clip"), ("end", "ended")]
    assert {"expected", "recovered_s", "lost", "as_expected", "commit"} <= {*rows[0]}
