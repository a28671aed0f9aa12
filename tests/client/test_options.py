"""The options of `generate` and `stream`: signatures, help, values."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from mypy import api as mypy

from reelserve.client import (
    AsyncClient,
    Client,
    GenerateOptions,
    InvalidArgumentError,
    generate_command,
)
from reelserve.client._options import Priority, clip_request
from reelserve.pipeline.request import MAX_SEED, PRIORITIES, resolve_request
from tests.server.tiny_repository import SPEC

ROOT = Path(__file__).parents[2]
METHODS = [Client.generate, Client.stream, AsyncClient.generate, AsyncClient.stream]
LIMITS = json.loads((ROOT / "checkpoints/bundled/model_index.json").read_text())["limits"]
SNIPPET = """
import numpy as np
from reelserve.client import Client, AsyncClient, GenerateOptions, Video
client = Client("localhost:1", timeout_s=np.float64(5), max_retries=np.int64(1))
video: Video = client.generate(
    "a", seed=np.int64(1), num_frames=np.uint8(16), guidance_scale=np.float32(2), fps=8, timeout_s=3
)
options: GenerateOptions = {"seed": np.int32(3), "priority": "batch"}
for event in client.stream("a", **options):
    if event.kind == "clip":
        print(event.video)
client.generate("a", seed="1")  # wrong
client.generate("a", steps=4)  # wrong
client.generate()  # wrong
client.stream("a", priority="high")  # wrong
if event.kind == "clips":  # wrong
    pass
async def draw() -> Video:
    return await AsyncClient().generate("a", seed=np.int64(1))
"""


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_signature_and_help_show_every_option(method):
    parameters = inspect.signature(method).parameters
    assert list(parameters) == ["self", "prompt", *GenerateOptions.__annotations__]
    assert all(parameters[name].default is None for name in GenerateOptions.__annotations__)
    for name in parameters:
        assert name == "self" or f"\n    {name}: " in inspect.getdoc(method)


def test_options_have_the_same_types_as_parameters_and_dictionary():
    parameters = inspect.signature(clip_request).parameters
    for name, kind in GenerateOptions.__annotations__.items():
        assert kind.__forward_arg__ == parameters[name].annotation


@pytest.mark.parametrize("name", ["num_inference_steps", "guidance_scale", "num_frames", "fps"])
def test_help_tells_limits_and_default_of_the_bundled_checkpoint(name):
    help_text = " ".join(inspect.getdoc(Client.generate).split())
    (told,) = re.findall(rf" {name}: (.*?) if left out", help_text)
    limit = LIMITS[name]
    assert f"{limit['low']:g} to {limit['high']:g}" in told
    assert re.search(rf"\b{limit['default']:g}$", told)


def test_methods_of_the_async_client_are_coroutine_functions():
    assert inspect.iscoroutinefunction(AsyncClient.generate)
    assert not inspect.iscoroutinefunction(Client.generate)


def test_options_take_numpy_scalars(fake_triton):
    with Client(fake_triton.url, timeout_s=np.float32(50), max_retries=np.int64(1)) as client:
        client.generate(
            "a",
            seed=np.uint64(7),
            num_frames=np.int8(16),
            guidance_scale=np.float64(2.5),
            timeout_s=np.int32(40),
            max_retries=np.int8(0),
        )
    assert fake_triton.received() == {
        "PROMPT": b"a",
        "SEED": 7,
        "NUM_FRAMES": 16,
        "GUIDANCE_SCALE": 2.5,
    }
    assert fake_triton.requests[0].parameters["timeout"].int64_param == 40_000_000


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), -1, 0, 1e15, "5", True, [5], np.float64("nan")], ids=repr
)
def test_client_and_generate_raise_when_timeout_s_is_wrong(fake_triton, value):
    with pytest.raises(InvalidArgumentError, match=r"timeout_s is .*above 0 and at most 1e\+09"):
        Client(timeout_s=value)
    with Client(fake_triton.url) as client:
        for method in (client.generate, client.stream):
            with pytest.raises(InvalidArgumentError, match="timeout_s is"):
                method("a", timeout_s=value)
    with pytest.raises(InvalidArgumentError, match="timeout_s is"):
        asyncio.run(AsyncClient(fake_triton.url).generate("a", timeout_s=value))
    assert not fake_triton.requests


@pytest.mark.parametrize("seed", [-1, -(2**63)])
def test_client_and_server_refuse_a_seed_in_the_same_words(fake_triton, seed):
    tensors = {"PROMPT": np.array([b"a"], object), "SEED": np.array([seed], np.int64)}
    with pytest.raises(ValueError) as server:
        resolve_request(tensors, SPEC.limits, lambda: 0)
    with Client(fake_triton.url) as client, pytest.raises(InvalidArgumentError) as caught:
        client.generate("a circle", seed=seed)
    assert (
        str(caught.value) == str(server.value) == f"SEED is {seed}; the limits are 0 to {MAX_SEED}"
    )


def test_help_tells_the_limits_of_a_seed_and_the_priorities(capsys):
    with pytest.raises(SystemExit):
        generate_command.run(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"0 to {MAX_SEED}" in shown and "{" + ",".join(PRIORITIES) + "}" in shown
    assert MAX_SEED == 2**63 - 1 and "0 to 2⁶³ − 1" in Client.generate.__doc__
    assert get_args(Priority) == PRIORITIES


def test_generate_takes_the_longest_timeout(fake_triton):
    with Client(fake_triton.url, timeout_s=1e9) as client:
        assert client.generate("a").info.seed == 7
        assert len(list(client.stream("a"))) == 1


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((None,), {}, "PROMPT is None; it must be a string"),
        ((b"a",), {}, "PROMPT is b'a'; it must be a string"),
        (("a",), {"guidance_scale": True}, "GUIDANCE_SCALE is True; it must be a number"),
        (("a",), {"guidance_scale": 1j}, "GUIDANCE_SCALE is 1j; it must be a number"),
        (("a",), {"seed": np.float64(3)}, "SEED is 3.0; it must be a whole number"),
        (("a",), {"priority": 1}, "PRIORITY is 1; it must be a string"),
        (("a",), {"negative_prompt": ["x" * 200]}, "…; it must be a string"),
    ],
)
def test_generate_raises_when_a_value_has_another_type(fake_triton, arguments, options, message):
    with Client(fake_triton.url) as client, pytest.raises(InvalidArgumentError) as caught:
        client.generate(*arguments, **options)
    assert message in str(caught.value)


def test_generate_sends_a_number_that_fp32_cannot_hold_as_infinity(fake_triton):
    with Client(fake_triton.url) as client:
        for value in (1e300, 10**400):
            client.generate("a", guidance_scale=value)
            assert fake_triton.received()["GUIDANCE_SCALE"] == np.inf


def test_type_checkers_know_the_options(tmp_path):
    """NumPy's scalars fit; what is wrong is found, and nothing else."""
    program = tmp_path / "program.py"
    program.write_text(SNIPPET)
    cache = ROOT / "build" / "mypy_cache"
    settings = ("--strict", "--config-file", str(ROOT / "pyproject.toml"))
    shown, errors, _ = mypy.run([str(program), *settings, "--cache-dir", str(cache)])
    assert errors == ""
    wrong = [n for n, line in enumerate(SNIPPET.splitlines(), 1) if line.endswith("# wrong")]
    found = {int(n) for n in re.findall(r"program\.py:(\d+): error", shown)}
    assert found == set(wrong), shown
