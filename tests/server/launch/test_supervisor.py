"""A Triton that is looked after, by a fake of its processes."""

import asyncio
from types import SimpleNamespace

import pytest

from reelserve.server.frontend.admission import TritonLoad
from reelserve.server.frontend.call_errors import CallError
from reelserve.server.launch import supervisor as supervisor_module
from reelserve.server.launch.supervisor import MAX_RESTARTS, RESTARTS_WITHIN_S, Supervisor
from reelserve.server.launch.triton_process import ServerError
from tests.server.frontend.fakes import FakeUpstream, Rig, asynchronous, until


class Triton:
    """Processes that die, hang and start as a test says."""

    def __init__(self):
        self.starts, self.stops, self.refuses = 0, [], 0
        self.reason = self.hang = None
        self.channel = "a channel"

    async def start(self):
        self.starts += 1
        if self.refuses:
            self.refuses -= 1
            raise ServerError("no memory")
        self.reason = self.hang = None

    async def stop(self, kill_after_s=20):
        self.stops.append(kill_after_s)
        self.reason = "Triton does not run"

    def lost(self):
        return self.reason

    async def hung(self, after_s):
        assert after_s == 7.0
        return self.hang

    def errors(self):
        return "its own words"


class Upstream(FakeUpstream):
    def connect(self, channel):
        self.load.ready = True

    def disconnect(self):
        self.load.ready = False
        for _, future in self.calls:
            if not future.done():
                future.set_exception(self.starting())


class Kept:
    """A supervisor that keeps a fake Triton running; seconds of its waits."""

    def __init__(self, folder, monkeypatch):
        self.rig, self.waits = Rig(folder), []
        self.triton, self.upstream = Triton(), Upstream(ready=False)
        self.rig.service.upstreams[0] = self.upstream
        self.rig.service._admission._loads[0] = self.upstream.load
        self.supervisor = Supervisor(self.triton, self.upstream, self.rig.service, 7.0)

        async def sleep(seconds):
            if seconds != supervisor_module.WATCH_S:
                self.waits.append(seconds)
            await asyncio.sleep(0.001)

        monkeypatch.setattr(supervisor_module, "asyncio", SimpleNamespace(sleep=sleep))

    async def start(self):
        await self.supervisor.start()
        self.task = asyncio.create_task(self.supervisor.keep_running())

    async def lose(self, reason="Triton ended with status -11"):
        starts = self.triton.starts
        self.triton.reason = reason
        await until(lambda: self.triton.starts > starts or self.task.done())
        await until(lambda: self.upstream.load.ready or self.task.done())

    async def end(self):
        self.task.cancel()
        await asyncio.wait({self.task})


@pytest.fixture
def kept(tmp_path, monkeypatch):
    return Kept(tmp_path, monkeypatch)


@asynchronous
async def test_supervisor_starts_again_what_has_died(kept, caplog):
    await kept.start()
    assert kept.upstream.load.ready
    await kept.lose()

    assert kept.triton.starts == 2 and kept.triton.stops == [0], "what is left is killed"
    assert kept.waits == [0.0], "the first time at once"
    assert kept.rig.metric("triton_restarts_total") == 1
    assert caplog.messages == [
        "triton: Triton ended with status -11; it is started again",
        "triton is ready again",
    ]
    await kept.end()


@asynchronous
async def test_supervisor_starts_again_what_hangs(kept):
    await kept.start()
    kept.triton.hang = "the process of denoiser has been stopped for 7 s"
    await until(lambda: kept.triton.starts == 2 and kept.upstream.load.ready)
    await kept.end()


@asynchronous
async def test_supervisor_starts_again_when_an_abandoned_clip_does_not_end(kept, monkeypatch):
    monkeypatch.setattr(supervisor_module, "ABANDONED_S", -1.0)
    await kept.start()
    await until(lambda: kept.triton.starts >= 2)
    await kept.end()


@asynchronous
async def test_clips_in_flight_fail_when_their_triton_is_started_again(kept):
    await kept.start()
    task = await drawing(kept)
    await kept.lose()

    with pytest.raises(CallError, match="retry after 5 s"):
        await task
    assert kept.rig.in_flight == 0
    await kept.end()


async def drawing(kept):
    task = kept.rig.ask()
    await until(lambda: kept.upstream.calls)
    return task


@asynchronous
async def test_supervisor_waits_longer_every_time_and_gives_up(kept):
    await kept.start()
    for _ in range(MAX_RESTARTS + 1):
        await kept.lose("the process of denoiser has died")
    await until(kept.task.done)

    assert kept.waits == [0.0, 1.0, 2.0, 4.0, 8.0]
    words = f"triton was started again {MAX_RESTARTS} times within {RESTARTS_WITHIN_S:g} s and "
    with pytest.raises(ServerError, match=words) as caught:
        kept.task.result()
    assert "given up: the process of denoiser has died\nits own words" in str(caught.value)
    assert not kept.upstream.load.ready


@asynchronous
async def test_supervisor_does_not_give_up_while_another_triton_serves(kept):
    kept.rig.service._admission._loads.append(TritonLoad("another", ready=True))
    await kept.start()
    for _ in range(MAX_RESTARTS + 3):
        await kept.lose()

    assert not kept.task.done() and kept.upstream.load.ready
    assert kept.waits[MAX_RESTARTS:] == [16.0, 32.0, 60.0]
    await kept.end()


@asynchronous
async def test_supervisor_tries_again_when_a_start_fails(kept, caplog):
    await kept.start()
    kept.triton.refuses = 2
    await kept.lose()
    await until(lambda: kept.upstream.load.ready)

    assert kept.triton.starts == 4 and kept.waits == [0.0, 1.0, 2.0]
    assert caplog.messages.count("triton: no memory") == 2
    assert kept.rig.metric("triton_restarts_total") == 1, "those that served"
    await kept.end()


@asynchronous
async def test_restarts_of_long_ago_do_not_count(kept, monkeypatch):
    await kept.start()
    for _ in range(MAX_RESTARTS):
        await kept.lose()
    monkeypatch.setattr(supervisor_module, "RESTARTS_WITHIN_S", 0.0)
    await kept.lose()

    assert not kept.task.done() and kept.waits[-1] == 0.0
    await kept.end()


@asynchronous
async def test_start_says_why_when_triton_does_not_start(kept):
    kept.triton.refuses = 1
    with pytest.raises(ServerError, match="no memory"):
        await kept.supervisor.start()
    assert not kept.upstream.load.ready


@asynchronous
async def test_stop_ends_triton_in_its_own_time(kept):
    await kept.start()
    await kept.end()
    await kept.supervisor.stop()

    assert kept.triton.stops == [20] and not kept.upstream.load.ready
