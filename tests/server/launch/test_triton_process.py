"""A Triton whose binary is a script that does what a test says."""

import logging
import time
from pathlib import Path

import pytest

from reelserve.server.frontend.upstream import Secret
from reelserve.server.launch.installation import Installation
from reelserve.server.launch.process_output import ProcessOutput
from reelserve.server.launch.stage_processes import has_ended
from reelserve.server.launch.triton_process import ServerError, TritonOptions, TritonProcess
from tests.server.frontend.fakes import asynchronous


def triton(folder: Path, does: str, log: list[str] | None = None) -> TritonProcess:
    """A Triton that does something; `log` gets what it writes."""
    taken = [] if log is None else log
    binary = folder / "tritonserver"
    binary.write_text(f"#!/bin/sh\necho $$ >> {folder}/starts\n{does}\n")
    binary.chmod(0o755)
    options = TritonOptions(
        installation=Installation(binary, {}, ()),
        repository=folder,
        config_name="",
        secret=Secret(),
        region_prefix="reelserve_",
        socket_folder=folder,
        run_dir=folder,
        environment={},
        ready_timeout_s=1.0,
    )
    return TritonProcess(options, lambda: ProcessOutput(taken.append))


def starts(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "starts").read_text().split()]


@pytest.mark.parametrize(
    ("does", "count"),
    [
        ("kill -ABRT $$", 2),
        ("echo boost::interprocess::lock_exception; exit 1", 2),
        ("echo error: creating server; exit 1", 1),
    ],
    ids=["crash", "crash of a stage", "refusal"],
)
@asynchronous
async def test_start_is_tried_again_when_the_reason_may_be_gone(tmp_path, caplog, does, count):
    caplog.set_level(logging.WARNING)
    with pytest.raises(ServerError, match="before it was ready"):
        await triton(tmp_path, does).start()

    assert len(starts(tmp_path)) == count
    assert caplog.text.count("it is started once more") == count - 1


@asynchronous
async def test_last_words_of_a_crash_are_in_the_error_and_in_the_log(tmp_path):
    log = []
    process = triton(tmp_path, "echo error: no room; kill -ABRT $$", log)
    with pytest.raises(ServerError, match="\\nno room"):
        await process.start()

    assert log == ["error: no room"] * 2, "of both starts"


@asynchronous
async def test_stop_kills_what_does_not_end_in_time(tmp_path):
    process = triton(tmp_path, "trap '' TERM; while true; do sleep 0.1; done")
    with pytest.raises(ServerError, match="was not ready within 1 s"):
        await process._start_once()
    pid = process.pid
    began = time.monotonic()
    await process.stop(kill_after_s=0.3)

    assert time.monotonic() - began >= 0.3, "it was asked first"
    assert has_ended(pid) and process.pid == 0
