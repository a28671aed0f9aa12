import json
from dataclasses import replace

import numpy as np
import onnx
import psutil
import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as protos

from reelserve.runtimes.graph_spec import METADATA_KEY, GraphInput, GraphSpec
from reelserve.server.engines.onnx_session import OnnxSession
from reelserve.server.engines.session_settings import SessionSettings

INPUTS = {
    "LATENTS": np.random.default_rng(0).standard_normal((3, 16, 4, 2, 2), np.float32),
    "TIMESTEP": np.array([[1000], [500], [1]], np.float32),
    "PROMPT_EMBEDS": np.ones((3, 16, 12), np.float32),
    "ATTENTION_MASK": np.ones((3, 16), np.int64),
}


@pytest.fixture
def denoiser(tiny_repository):
    return stage(tiny_repository / "denoiser")


def stage(folder):
    """The graph of a stage, and its config as Triton hands it to a stage."""
    config = text_format.Parse((folder / "config.pbtxt").read_text(), protos.ModelConfig())
    text = json_format.MessageToJson(
        config, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return folder / "1" / "model.onnx", json.loads(text)


def session(graph, config, **changes) -> OnnxSession:
    settings = replace(SessionSettings.from_config(config, "CPU", 0), **changes)
    return OnnxSession(graph, config, settings)


def test_onnx_session_runs_the_graph(denoiser):
    outputs = session(*denoiser).run(INPUTS)

    assert list(outputs) == ["VELOCITY"]
    assert outputs["VELOCITY"].shape == INPUTS["LATENTS"].shape
    assert outputs["VELOCITY"].dtype == np.float32


def test_onnx_session_refuses_inputs_that_no_request_makes(denoiser, tmp_path):
    """Whoever calls a stage by itself would leave it with the memory of what they sent."""
    graph, config = denoiser
    model = onnx.load(graph)
    low, high = (1, 16, 4, 2, 2), (1, 16, 8, 2, 2)
    spec = GraphSpec((GraphInput("LATENTS", "FP32", low, high, low),), ())
    model.metadata_props.add(key=METADATA_KEY, value=spec.to_json())
    onnx.save(model, tmp_path / "model.onnx")
    limited = session(tmp_path / "model.onnx", config)

    for frames in (1, 8):
        latents = np.zeros((3, 16, frames, 2, 2), np.float32)
        limited.run({**INPUTS, "LATENTS": latents})
    with pytest.raises(
        ValueError, match=r"LATENTS has shape .*; its dimension 2 must be at most 8"
    ):
        limited.run({**INPUTS, "LATENTS": np.zeros((3, 16, 2000, 2, 2), np.float32)})


@pytest.mark.parametrize(
    "changes",
    [
        {"intra_op_threads": 1},
        {"parallel": True, "inter_op_threads": 2},
        {"mem_arena": False, "mem_pattern": False},
        {"arena_shrinkage": "cpu:0"},
        {"graph_level": "ORT_DISABLE_ALL"},
    ],
    ids=str,
)
def test_onnx_session_computes_the_same_when_tuned(denoiser, changes):
    plain = session(*denoiser).run(INPUTS)["VELOCITY"]

    np.testing.assert_allclose(session(*denoiser, **changes).run(INPUTS)["VELOCITY"], plain, 1e-5)


def test_onnx_session_gives_back_the_memory_of_a_large_clip(tiny_repository):
    decoder, process = session(*stage(tiny_repository / "vae_decoder")), psutil.Process()
    before = process.memory_info().rss
    frames = decoder.run({"LATENTS": np.zeros((1, 16, 4, 128, 128), np.float32)})["FRAMES"]

    # An arena would keep more than 200 MB.
    assert process.memory_info().rss - before - frames.nbytes < 50 * 2**20


def edit(side, tensor, **changes):
    def apply(config):
        for spec in config[side]:
            if spec["name"] == tensor:
                spec.update(changes)

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edit("output", "VELOCITY", name="SPEED"),
            r"output SPEED is in the config but not in the graph, which has \['VELOCITY'\]",
        ),
        (
            edit("input", "TIMESTEP", name="TIME"),
            "input TIME is in the config but not in the graph, .*; input TIMESTEP is in the graph "
            "but not in the config",
        ),
        (
            edit("input", "ATTENTION_MASK", data_type="TYPE_INT32"),
            r"input ATTENTION_MASK is TYPE_INT32 in the config and INT64 in the graph",
        ),
        (
            edit("input", "LATENTS", dims=["-1", "-1", "-1"]),
            r"input LATENTS has dims \[-1, -1, -1, -1\] in the config and 5 dimensions in the "
            "graph, the batch dimension first",
        ),
        (
            edit("output", "VELOCITY", dims=["8", "-1", "-1", "-1"]),
            r"output VELOCITY has dims \[-1, 8, -1, -1, -1\] in the config; the graph takes "
            "16 to 16 in dimension 1",
        ),
        (
            lambda config: config.update(max_batch_size=0),
            r"input TIMESTEP has dims \[1\] in the config and 2 dimensions in the graph",
        ),
    ],
    ids=["output name", "input name", "dtype", "rank", "fixed dimension", "no batching"],
)
def test_onnx_session_names_the_mismatch_when_config_and_graph_differ(denoiser, change, message):
    graph, config = denoiser
    change(config)

    with pytest.raises(ValueError, match=message):
        session(graph, config)


def test_onnx_session_refuses_when_the_graph_has_a_fixed_batch(denoiser, tmp_path):
    path, config = denoiser
    graph = onnx.load(path)
    graph.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(graph, tmp_path / "fixed.onnx")

    with pytest.raises(ValueError, match="TIMESTEP takes 2 to 2 rows in the graph"):
        session(tmp_path / "fixed.onnx", config)


def test_onnx_session_refuses_to_warm_up_when_the_graph_tells_no_shapes(denoiser):
    with pytest.raises(ValueError, match="warm_up is 1, and the graph does not tell its usual"):
        session(*denoiser, warm_up=True)


def test_onnx_session_says_what_to_do_when_there_is_no_graph(denoiser, tmp_path):
    with pytest.raises(FileNotFoundError, match="export the checkpoint first"):
        session(tmp_path / "model.onnx", denoiser[1])


def test_onnx_session_says_what_to_do_when_the_provider_is_not_installed(denoiser):
    with pytest.raises(ValueError, match=r"this onnxruntime has no AbsentProvider"):
        session(*denoiser, provider="AbsentProvider")
