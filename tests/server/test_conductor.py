"""The conductor with stages that answer as a test tells them to."""

import json
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from reelserve.server.board import Board
from reelserve.server.clip_run import STAGE_ORDER
from reelserve.server.conductor import Conductor, ConductorSettings
from reelserve.server.errors import CancelledError, StageError, UnavailableError

TIMEOUT_S = 20
FIELDS = {"NUM_FRAMES": 16, "HEIGHT": 64, "WIDTH": 64, "NUM_INFERENCE_STEPS": 4}


@dataclass
class Stages:
    """Every stage gives what the next ones take; `gates` hold a stage until a test opens it."""

    gates: dict[str, threading.Event] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def call_for(self, key, *, in_place=True):
        def call(stage, inputs):
            self.calls.append(stage.name)
            if stage.name in self.gates:
                assert self.gates[stage.name].wait(TIMEOUT_S)
            if stage.name in self.errors:
                raise self.errors[stage.name]
            return {spec.name: self._output(stage, spec) for spec in stage.outputs}

        return call

    def _output(self, stage, spec):
        if spec.name == "INFO":
            return np.array([[json.dumps({"num_frames": 16, "fps": 8}).encode()]], object)
        if spec.name == "VIDEO":
            return np.array([[b"mp4"]], object)
        array = np.full([1] * len(spec.dims), FIELDS.get(spec.name, 0))
        if spec.name.endswith("FRAMES") and stage.engine:
            array = np.zeros((4, 8, 8, 3), np.uint8)
        return array[None] if stage.batched else array


@dataclass
class Client:
    """Somebody who waits."""

    model: str = "text_to_video_stream"
    quiet_s: float = 1.0
    deadline: float | None = None
    wants_preview: bool = True
    left: bool = False
    messages: list[dict] = field(default_factory=list)
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def gone(self):
        return self.left

    def send(self, outputs, *, last):
        self.messages.append(outputs)
        if last:
            self.ended.set()

    def fail(self, error):
        self.error = error
        self.ended.set()

    def events(self, kind):
        events = [json.loads(message["EVENT"][0]) for message in self.messages]
        return [event for event in events if event["kind"] == kind]


class Counts:
    """A recorder that remembers."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        return lambda *values: self.calls.append((name, *values))

    def of(self, name):
        return [values for kind, *values in self.calls if kind == name]


class Service:
    """A conductor and what it works with."""

    def __init__(self, folder, limit=2, share_answers_s=0):
        self.stages, self.counts, self.board = Stages(), Counts(), Board(folder / "board")
        settings = ConductorSettings(limit, share_answers_s)
        self.conductor = Conductor(
            self.stages.call_for, self.board, settings, self.counts, max_threads=16
        )

    def ask(self, client=None, **fields):
        client = client or Client()
        request = {"PROMPT": np.array([b"a star"], object), **fields}
        self.conductor.accept(request, client)
        return client

    def hold(self, stage):
        self.stages.gates[stage] = threading.Event()
        return self.stages.gates[stage]


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path)
    yield service
    for gate in service.stages.gates.values():
        gate.set()
    service.conductor.close()


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def in_flight(service):
    return service.counts.of("in_flight")[-1][0]


def test_conductor_calls_every_stage_and_answers_with_the_clip(service):
    client = service.ask()

    assert client.ended.wait(TIMEOUT_S) and client.error is None
    assert service.stages.calls == list(STAGE_ORDER)
    last = client.messages[-1]
    assert last["VIDEO"][0] == b"mp4"
    assert list(json.loads(last["INFO"][0])["seconds"]) == [*STAGE_ORDER, "total"]
    assert in_flight(service) == 0


def test_conductor_tells_stages_steps_and_a_preview_in_order(service):
    gate = service.hold("video_diffusion")
    client = service.ask()
    wait_until(lambda: "video_diffusion" in service.stages.calls)
    (key,) = service.conductor._jobs
    for step in (1, 2):
        service.board.report(key, step, 4)
        wait_until(lambda step=step: len(client.events("step")) == step)
    service.board.leave_preview(key, np.zeros((16, 4, 2, 2), np.float32))
    wait_until(lambda: client.events("preview"))
    gate.set()
    assert client.ended.wait(TIMEOUT_S)

    steps = [(event["step"], event["steps"]) for event in client.events("step")]
    assert steps == [(1, 4), (2, 4)]
    preview = next(message["PREVIEW"][0] for message in client.messages if "PREVIEW" in message)
    assert preview.startswith(b"\x89PNG")
    kinds = [json.loads(message["EVENT"][0])["kind"] for message in client.messages]
    assert kinds.index("stage") < kinds.index("step") < kinds.index("preview")
    assert kinds[-1] == "clip"


def test_conductor_says_that_it_waits_when_nothing_is_new(service):
    gate = service.hold("upsampler")
    client = service.ask(Client(quiet_s=0.1))
    wait_until(lambda: len(client.events("waiting")) >= 2)
    gate.set()

    assert client.ended.wait(TIMEOUT_S)
    assert client.events("waiting")[0]["stage"] in STAGE_ORDER


def test_conductor_frees_the_place_and_skips_stages_when_the_client_leaves(service):
    gate = service.hold("vae_decoder")
    client = service.ask()
    wait_until(lambda: "vae_decoder" in service.stages.calls)
    (key,) = service.conductor._jobs
    client.left = True
    assert client.ended.wait(TIMEOUT_S)

    assert isinstance(client.error, CancelledError)
    assert in_flight(service) == 0, "the place must not wait for the stage"
    assert service.board.is_cancelled(key)
    gate.set()
    wait_until(lambda: not service.board.is_cancelled(key))
    assert "upsampler" not in service.stages.calls
    assert service.counts.of("cancelled") == [["text_to_video_stream", "vae_decoder"]]


def test_conductor_cancels_when_the_deadline_passes(service):
    service.hold("video_diffusion")
    client = service.ask(Client(deadline=time.monotonic() + 0.2))

    assert client.ended.wait(TIMEOUT_S)
    assert str(client.error) == "the deadline of the request has passed"


def test_conductor_refuses_over_the_limit_and_says_when_to_try_again(service):
    service.hold("video_diffusion")
    first, second = service.ask(), service.ask()
    with pytest.raises(UnavailableError, match=r"^2 requests are in flight.*; retry after 5 s$"):
        service.ask()

    assert service.counts.of("refused") == [["text_to_video_stream", "capacity"]]
    service.stages.gates["video_diffusion"].set()
    assert first.ended.wait(TIMEOUT_S) and second.ended.wait(TIMEOUT_S)
    assert service.ask().ended.wait(TIMEOUT_S)


def test_conductor_refuses_at_once_when_the_deadline_cannot_be_met(service):
    service.hold("upsampler")
    first = service.ask()
    wait_until(lambda: "upsampler" in service.stages.calls)
    # So that the first clip has taken more than a moment.
    time.sleep(0.3)
    service.stages.gates["upsampler"].set()
    assert first.ended.wait(TIMEOUT_S)
    client = service.ask(Client(deadline=time.monotonic() + 0.1))

    assert client.ended.wait(TIMEOUT_S)
    assert isinstance(client.error, UnavailableError)
    assert "the deadline leaves 0." in str(client.error)
    assert service.stages.calls.count("text_encoder") == 1


@pytest.mark.parametrize("error", [ValueError("SEED is -1"), StageError("upsampler: no memory")])
def test_conductor_fails_one_request_when_a_stage_fails(service, error):
    service.stages.errors["prompt_processor"] = error
    failed = service.ask()
    assert failed.ended.wait(TIMEOUT_S)
    del service.stages.errors["prompt_processor"]

    assert failed.error is error
    assert service.ask().ended.wait(TIMEOUT_S)
    outcomes = [outcome for _, outcome, *_ in service.counts.of("ended")]
    assert outcomes == ["invalid" if isinstance(error, ValueError) else "failed", "ok"]


def test_conductor_draws_equal_requests_once_when_answers_are_shared(tmp_path):
    service = Service(tmp_path, limit=4, share_answers_s=60)
    gate = service.hold("video_diffusion")
    seed = {"SEED": np.array([7])}
    clients = [service.ask(**seed) for _ in range(3)]
    other = service.ask(SEED=np.array([8]))
    gate.set()
    assert all(client.ended.wait(TIMEOUT_S) for client in [*clients, other])
    late = service.ask(**seed)

    assert late.ended.wait(TIMEOUT_S)
    assert {client.messages[-1]["VIDEO"][0] for client in [*clients, late]} == {b"mp4"}
    assert service.stages.calls.count("video_diffusion") == 2
    assert service.counts.of("shared") == [["joined"], ["joined"], ["cached"]]
    service.conductor.close()


def test_conductor_lets_another_request_draw_when_the_first_one_leaves(tmp_path):
    service = Service(tmp_path, limit=4, share_answers_s=60)
    gate = service.hold("video_diffusion")
    first, second = (service.ask(SEED=np.array([7])) for _ in range(2))
    first.left = True
    assert first.ended.wait(TIMEOUT_S)
    gate.set()

    assert second.ended.wait(TIMEOUT_S) and second.error is None
    assert second.messages[-1]["VIDEO"][0] == b"mp4"
    service.conductor.close()


def test_conductor_answers_what_is_in_flight_when_it_closes(service):
    service.hold("video_diffusion")
    client = service.ask()
    wait_until(lambda: "video_diffusion" in service.stages.calls)
    closing = threading.Thread(target=service.conductor.close)
    closing.start()

    assert client.ended.wait(TIMEOUT_S)
    assert str(client.error) == "the server is shutting down"
    service.stages.gates["video_diffusion"].set()
    closing.join(TIMEOUT_S)


def test_client_is_told_when_the_conductor_itself_fails(tmp_path, monkeypatch):
    service = Service(tmp_path, limit=1)
    service.hold("upsampler")
    monkeypatch.setattr(service.board, "read", lambda key: 1 / 0)

    client = service.ask()
    assert client.ended.wait(TIMEOUT_S)
    assert isinstance(client.error, ZeroDivisionError)
    assert service.counts.of("ended")[-1][1] == "failed"
    service.stages.gates["upsampler"].set()
    monkeypatch.undo()
    assert service.ask().ended.wait(TIMEOUT_S)
    service.conductor.close()
