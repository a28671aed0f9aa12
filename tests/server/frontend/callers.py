"""Callers of a front end before fake Tritons, by real gRPC."""

import asyncio
from contextlib import asynccontextmanager

import grpc
import numpy as np
from tritonclient.grpc import service_pb2_grpc

from reelserve.server.frontend.messages import infer_message
from tests.server.frontend.fakes import Rig


class Caller:
    """A stub of Triton's service."""

    def __init__(self, front_end, rig):
        self.rig, self.front_end, self.ports = rig, front_end, front_end.ports
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{front_end.ports.grpc}")
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def stream(self, *requests, **options):
        """A stream that the caller does not end."""
        stopped = asyncio.Event()

        async def sent():
            for request in requests:
                yield request
            await stopped.wait()

        return self.stub.ModelStreamInfer(sent(), **options), stopped


@asynccontextmanager
async def serving(folder, doors=None, connections=None, **options):
    rig = Rig(folder, **options)
    async with rig.serving(doors, connections) as front_end:
        caller = Caller(front_end, rig)
        try:
            yield caller
        finally:
            await caller.channel.close()


def request(request_id="", *, progress=False, heartbeat=False, **fields):
    kinds = {"seed": np.int64, "num_frames": np.int32, "num_inference_steps": np.int32}
    values = {"prompt": b"a red star", **fields}
    tensors = {k.upper(): np.array([v], kinds.get(k, object)) for k, v in values.items()}
    message = infer_message("text_to_video", tensors, request_id)
    for name, wanted in (("progress", progress), ("heartbeat", heartbeat)):
        if wanted:
            message.parameters[name].bool_param = True
    return message


def status(error):
    return error.value.code(), error.value.details()
