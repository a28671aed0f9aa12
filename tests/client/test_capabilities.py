from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import pytest

from reelserve.client import AsyncClient, Capabilities, Client, InternalError
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import CAPABILITIES

LIMITS = {
    "max_prompt_characters": 100,
    "max_prompt_tokens": 16,
    "guidance_scale": {"low": 1.0, "high": 20.0, "default": 2.5},
    **{
        name: {"low": 1, "high": 9, "default": 4, "multiple_of": 2, "offset": 1}
        for name in ("num_inference_steps", "num_frames", "fps", "height", "width")
    },
}
TOLD = {"checkpoint": "bundled", "engine": "onnxruntime", "limits": LIMITS}


def test_capabilities_are_read_and_what_a_newer_server_adds_is_ignored(fake_triton):
    newer = {**TOLD, "gpus": 2, "limits": {**LIMITS, "loops": {"low": 0}}}
    fake_triton.config_parameters = {"other": "1", CAPABILITIES: json.dumps(newer)}
    with Client(fake_triton.url) as client:
        told = client.capabilities()
    assert (told.checkpoint, told.engine) == ("bundled", "onnxruntime")
    assert asdict(told.limits) == LIMITS
    assert (told.limits.num_frames.high, told.limits.guidance_scale.default) == (9, 2.5)


def test_async_capabilities_are_the_same(fake_triton):
    fake_triton.config_parameters = {CAPABILITIES: json.dumps(TOLD)}

    async def ask() -> str:
        async with AsyncClient(fake_triton.url) as client:
            return (await client.capabilities()).checkpoint

    assert asyncio.run(ask()) == "bundled"


def test_vocabulary_is_read_by_both_clients_and_empty_where_none_is_told(fake_triton):
    words = {"things": ["rabbit", "star"], "motions": ["hop"]}
    fake_triton.config_parameters = {CAPABILITIES: json.dumps({**TOLD, "vocabulary": words})}

    async def ask() -> Capabilities:
        async with AsyncClient(fake_triton.url) as client:
            return await client.capabilities()

    with Client(fake_triton.url) as client:
        told = client.capabilities()
        assert told.vocabulary == {"things": ("rabbit", "star"), "motions": ("hop",)}
        assert asyncio.run(ask()) == told
        fake_triton.config_parameters = {CAPABILITIES: json.dumps(TOLD)}
        assert client.capabilities().vocabulary == {}


def test_capabilities_raises_when_the_server_is_triton_alone(fake_triton):
    with Client(fake_triton.url) as client, pytest.raises(InternalError, match="reelserve serve"):
        client.capabilities()


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({**TOLD, "limits": {}}),
        json.dumps({**TOLD, "vocabulary": ["a"]}),
    ],
)
def test_capabilities_raises_when_they_cannot_be_read(fake_triton, text):
    fake_triton.config_parameters = {CAPABILITIES: text}
    with Client(fake_triton.url) as client, pytest.raises(InternalError, match="cannot be read"):
        client.capabilities()


@pytest.mark.server
def test_capabilities_are_those_of_the_served_checkpoint(tiny_server, tiny_repository):
    spec = CheckpointSpec.load(tiny_repository / "prompt_processor" / "1")
    with Client(tiny_server.grpc_url) as client:
        told = client.capabilities()
    assert (told.checkpoint, told.engine, told.limits) == (spec.name, spec.engine, spec.limits)
    assert told.vocabulary == spec.vocabulary and told.vocabulary["things"]
