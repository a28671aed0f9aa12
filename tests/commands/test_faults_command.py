from __future__ import annotations

import io
from concurrent.futures import Future

from rich.console import Console

from reelserve.client import InternalError
from reelserve.commands import faults_command
from reelserve.commands.faults_command import Fault, all_faults, fault_table
from reelserve.pipeline.contract import STAGES


def ended(result: bytes | Exception) -> Future[bytes]:
    future: Future[bytes] = Future()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_outcomes_tell_clips_errors_and_what_got_lost(monkeypatch):
    monkeypatch.setattr(faults_command, "ANSWER_TIMEOUT_S", 0.05)
    futures = [ended(b"mp4"), ended(b"bad"), ended(InternalError("upsampler")), Future()]

    seen, lost = faults_command._outcomes(futures, b"mp4")

    assert seen == "1 × InternalError, 1 × clip, 1 × nothing, 1 × other clip"
    assert lost == 1


def test_every_stage_is_killed():
    assert len(all_faults()) > len(STAGES)


def test_fault_table_shows_what_was_seen():
    out = io.StringIO()
    faults = [Fault("kill", "an error", "3 × clip", 2.5, 0), Fault("end", "ends", "ended", None, 1)]
    Console(file=out, width=100).print(fault_table(faults))

    assert "3 × clip" in out.getvalue() and "2.5" in out.getvalue() and "–" in out.getvalue()
