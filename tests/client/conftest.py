"""A server in this process that speaks Triton's protocol and answers as a test tells it to."""

from __future__ import annotations

import contextlib
import io
import json
import threading
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import av
import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from reelserve.pipeline import contract

INFO = {
    "seed": 7,
    "num_inference_steps": 8,
    "guidance_scale": 2.5,
    "num_frames": 80,
    "fps": 8,
    "height": 256,
    "width": 256,
    "checkpoint": "bundled",
    "engine": "onnxruntime",
    "versions": {"numpy": "1.26.4"},
    "seconds": {"prompt_processor": 0.01, "video_diffusion": 4.0, "total": 4.01},
}
MP4 = b"\x00\x00\x00\x20ftypisom"


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers `ModelInfer`; fields say how.

    Args:
        status: Aborts with it where given.
        details: Message that goes with `status`.
        error: Told in a stream's response instead of the clip, where given.
        outputs: Tensor to content of the answer.
        refusals: Messages of refusals with UNAVAILABLE, each for one request, before all else.
        hold: Waits for this event before it answers.
        events: Outputs of a stream's responses before the last one.
        requests: Received so far.
        metadata: Headers of the last call.
        config_parameters: Parameters in the model's configuration.
        cancelled: Set when a caller went away.
        taking: Whether it says that it takes requests.
    """

    status: grpc.StatusCode | None = None
    details: str = ""
    error: str = ""
    ready: bool = True
    outputs: dict[str, bytes] = field(
        default_factory=lambda: {"VIDEO": MP4, "INFO": json.dumps(INFO).encode()}
    )
    refusals: list[str] = field(default_factory=list)
    hold: threading.Event | None = None
    events: list[dict[str, bytes]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    config_parameters: dict[str, str] = field(default_factory=dict)
    requests: list[service_pb2.ModelInferRequest] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    statistics: list[service_pb2.ModelStatistics] = field(default_factory=list)
    url: str = ""
    taking: bool = True

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        self._refuse(context)
        if self.hold is not None:
            context.add_callback(self.cancelled.set)
            self.hold.wait(30)
        if self.status is not None:
            context.abort(self.status, self.details)
        response = service_pb2.ModelInferResponse(model_name=request.model_name)
        _fill(response, self.outputs)
        return response

    def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        request = next(requests)
        self.requests.append(request)
        self.metadata = dict(context.invocation_metadata())
        if self.refusals:
            text = f"UNAVAILABLE: {self.refusals.pop(0)}"
            yield service_pb2.ModelStreamInferResponse(error_message=text)
            return
        context.add_callback(self.cancelled.set)
        for outputs in self.events:
            yield stream_response(request, outputs)
        if self.hold is not None:
            self.hold.wait(30)
        if self.status is not None:
            context.abort(self.status, self.details)
        if self.error:
            yield service_pb2.ModelStreamInferResponse(error_message=self.error)
            return
        yield stream_response(request, {"EVENT": event("clip", "video_encoder"), **self.outputs})
        # Triton ends a decoupled request with a response that holds nothing.
        yield stream_response(request, {})

    def ServerLive(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=self.taking)

    def ModelReady(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=self.ready)

    def ModelStatistics(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.metadata = dict(context.invocation_metadata())
        return service_pb2.ModelStatisticsResponse(model_stats=self.statistics)

    def ModelConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        response = service_pb2.ModelConfigResponse()
        for name, text in self.config_parameters.items():
            response.config.parameters[name].string_value = text
        return response

    def _refuse(self, context: grpc.ServicerContext) -> None:
        if self.refusals:
            context.abort(grpc.StatusCode.UNAVAILABLE, self.refusals.pop(0))

    def received(self, index: int = -1) -> dict[str, Any]:
        """Field to value of a request."""
        request = self.requests[index]
        values = {}
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            if tensor.datatype == "BYTES":
                array = deserialize_bytes_tensor(raw)
            else:
                dtypes = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
                array = np.frombuffer(raw, dtypes[tensor.datatype])
            assert list(tensor.shape) == [1], tensor.name
            values[tensor.name] = array.reshape(-1)[0]
        assert set(values) <= {spec.name for spec in contract.REQUEST_INPUTS}
        return values


def event(kind: str, stage: str, **fields: Any) -> bytes:
    """What EVENT holds."""
    blank = {"seconds": 1.5, "remaining_s": 2.5, "step": None, "steps": None}
    return json.dumps({"kind": kind, "stage": stage, **blank, **fields}).encode()


def _fill(response: Any, outputs: dict[str, bytes]) -> None:
    for name, content in outputs.items():
        response.outputs.add(name=name, datatype="BYTES", shape=[1])
        tensor = serialize_byte_tensor(np.array([content], np.object_))
        response.raw_output_contents.append(tensor.item())


def stream_response(request: Any, outputs: dict[str, bytes]) -> Any:
    response = service_pb2.ModelStreamInferResponse()
    response.infer_response.model_name = request.model_name
    _fill(response.infer_response, outputs)
    return response


@pytest.fixture
def info() -> dict[str, Any]:
    """A parsed INFO."""
    return dict(INFO)


@contextlib.contextmanager
def serving(fake: FakeTriton, where: str = "127.0.0.1:0", credentials: Any = None) -> Iterator[Any]:
    """The gRPC server of a fake; `url` of the fake is then where it listens."""
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    if credentials is None:
        port = server.add_insecure_port(where)
    else:
        port = server.add_secure_port(where, credentials)
    fake.url = f"{where.rpartition(':')[0]}:{port}"
    server.start()
    try:
        yield server
    finally:
        if fake.hold is not None:
            fake.hold.set()
        server.stop(grace=None).wait()


@pytest.fixture
def fake_triton() -> Iterator[FakeTriton]:
    """A running fake; `url` is where it listens."""
    fake = FakeTriton()
    with serving(fake):
        yield fake


@pytest.fixture
def make_mp4():
    """Builds an MP4 whose frame `n` is grey of value `10 n`, 32×32 pixels."""

    def make(num_frames: int) -> bytes:
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=8, options={"crf": "0"})
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for number in range(num_frames):
                grey = np.full((32, 32, 3), 10 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode())
        return file.getvalue()

    return make
