"""A model repository with the real configs and Python stages, and tiny graphs of random weights.

Every graph honours its contract and every output depends on every input, so what goes wrong in
the wiring shows in the frames; a clip takes a fraction of a second.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from reelserve.pipeline.checkpoint import (
    CheckpointSpec,
    FloatRange,
    IntRange,
    LatentSpec,
    RequestLimits,
)
from reelserve.pipeline.contract import STAGES
from reelserve.pipeline.scheduler import FlowMatchSpec
from reelserve.runtimes.export_lock import ArtefactFile, ExportLock, LockedStage
from reelserve.runtimes.repository_files import files_of
from reelserve.tools.tiny_checkpoints import WORDS

REPOSITORY = Path(__file__).parents[2] / "model_repository"
PYTHON_STAGES = ("prompt_processor", "video_diffusion", "video_encoder")
EMBED = 12
SPEC = CheckpointSpec(
    name="tiny",
    engine="onnxruntime",
    scheduler=FlowMatchSpec(),
    latents=LatentSpec(
        channels=16,
        temporal_compression=4,
        spatial_compression=32,
        window_frames=8,
        window_overlap=4,
    ),
    limits=RequestLimits(
        max_prompt_characters=100,
        max_prompt_tokens=16,
        num_inference_steps=IntRange(1, 1000, 4),
        guidance_scale=FloatRange(1.0, 20.0, 2.5),
        num_frames=IntRange(16, 64, 16, multiple_of=4),
        fps=IntRange(1, 60, 8),
        height=IntRange(64, 128, 64, multiple_of=32),
        width=IntRange(64, 128, 64, multiple_of=32),
    ),
    vocabulary={"things": ("circle", "square", "star"), "motions": ("left", "spin")},
)


def write_tiny_repository(folder: Path) -> Path:
    """Copies the repository's configs and code into `folder` and adds the tiny graphs."""
    shutil.copytree(
        REPOSITORY,
        folder,
        ignore=shutil.ignore_patterns("*.onnx", "*.onnx.data", "*.json", "__pycache__"),
    )
    for stage in PYTHON_STAGES:
        SPEC.save(folder / stage / "1")
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "prompt_processor" / "1" / "tokenizer.json"))
    graphs = {
        "text_encoder": text_encoder(tokenizer.get_vocab_size()),
        "denoiser": denoiser(),
        "vae_decoder": vae_decoder(),
        "frame_consistency": frame_consistency(),
        "upsampler": upsampler(),
    }
    for stage, graph in graphs.items():
        onnx.save(graph, folder / stage / "1" / "model.onnx")
    write_lock(folder)
    return folder


def write_lock(folder: Path, **changes: object) -> None:
    """Locks the repository's files as they are.

    Args:
        folder: The repository.
        changes: Fields of the lock.
    """
    graphs = {name: f"{name}/1/model.onnx" for name, stage in STAGES.items() if stage.engine}
    lock_of(folder, graphs, sorted(files_of(folder) - {*graphs.values()}), **changes).save(folder)


def lock_of(
    folder: Path, graphs: Mapping[str, str], others: Iterable[str], **changes: object
) -> ExportLock:
    """The lock of a repository.

    Args:
        folder: The repository.
        graphs: File of each engine stage.
        others: Files that are served beside them.
        changes: Fields of the lock.
    """
    lock = ExportLock(
        checkpoint="tiny",
        checkpoint_sha256="0",
        family="bundled",
        engine="onnxruntime",
        config_name="",
        precision="fp32",
        architecture="",
        versions={},
        bound_versions={},
        stages={
            name: LockedStage("0", (ArtefactFile.of(folder / graph),))
            for name, graph in graphs.items()
        },
        served=tuple(ArtefactFile.of(folder / name, name) for name in others),
    )
    return replace(lock, **changes)


def tiny_tokenizer() -> Tokenizer:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    tokenizer = Tokenizer(
        models.WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As real tokenizer files do: the stage must not cut a long prompt in silence.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    return tokenizer


def text_encoder(vocabulary_size: int) -> onnx.ModelProto:
    """`[B, 2, L]` ids → `[B, 2, L, E]`."""
    return _model(
        inputs=[
            _tensor("INPUT_IDS", TensorProto.INT64, ["B", 2, "L"]),
            _tensor("ATTENTION_MASK", TensorProto.INT64, ["B", 2, "L"]),
        ],
        outputs=[_tensor("PROMPT_EMBEDS", TensorProto.FLOAT, ["B", 2, "L", EMBED])],
        weights={
            "table": _random(1, vocabulary_size, EMBED),
            "last": np.array([-1], np.int64),
        },
        nodes=[
            helper.make_node("Gather", ["table", "INPUT_IDS"], ["embeds"]),
            helper.make_node("Cast", ["ATTENTION_MASK"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
            helper.make_node("Mul", ["embeds", "mask_column"], ["PROMPT_EMBEDS"]),
        ],
    )


def denoiser() -> onnx.ModelProto:
    """Channels mixed by a matrix, shifted by the timestep and the mean of the text."""
    channels = SPEC.latents.channels
    latents = ["B", channels, "F", "H", "W"]
    return _model(
        inputs=[
            _tensor("LATENTS", TensorProto.FLOAT, latents),
            _tensor("TIMESTEP", TensorProto.FLOAT, ["B", 1]),
            _tensor("PROMPT_EMBEDS", TensorProto.FLOAT, ["B", "L", EMBED]),
            _tensor("ATTENTION_MASK", TensorProto.INT64, ["B", "L"]),
        ],
        outputs=[_tensor("VELOCITY", TensorProto.FLOAT, latents)],
        weights={
            "mix": _random(2, channels, channels),
            "text_weights": _random(3, EMBED, channels),
            "thousand": np.array(1000, np.float32),
            "last": np.array([-1], np.int64),
            "tokens": np.array([1], np.int64),
            "to_channels": np.array([-1, channels, 1, 1, 1], np.int64),
            "to_rows": np.array([-1, 1, 1, 1, 1], np.int64),
        },
        nodes=[
            helper.make_node("Transpose", ["LATENTS"], ["rows"], perm=[0, 2, 3, 4, 1]),
            helper.make_node("MatMul", ["rows", "mix"], ["mixed"]),
            helper.make_node("Transpose", ["mixed"], ["mixed_latents"], perm=[0, 4, 1, 2, 3]),
            helper.make_node("Cast", ["ATTENTION_MASK"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
            helper.make_node("Mul", ["PROMPT_EMBEDS", "mask_column"], ["text"]),
            helper.make_node("ReduceMean", ["text", "tokens"], ["text_mean"], keepdims=0),
            helper.make_node("MatMul", ["text_mean", "text_weights"], ["text_shift"]),
            helper.make_node("Reshape", ["text_shift", "to_channels"], ["text_latents"]),
            helper.make_node("Div", ["TIMESTEP", "thousand"], ["sigma"]),
            helper.make_node("Reshape", ["sigma", "to_rows"], ["sigma_latents"]),
            helper.make_node("Add", ["mixed_latents", "text_latents"], ["sum_text"]),
            helper.make_node("Add", ["sum_text", "sigma_latents"], ["sum"]),
            helper.make_node("Tanh", ["sum"], ["VELOCITY"]),
        ],
    )


def vae_decoder() -> onnx.ModelProto:
    """Every latent pixel becomes 4 frames of 8×8 pixels."""
    channels, frames, pixels = SPEC.latents.channels, 4, 8
    return _model(
        inputs=[_tensor("LATENTS", TensorProto.FLOAT, ["B", channels, "F", "H", "W"])],
        outputs=[_tensor("FRAMES", TensorProto.UINT8, ["B", "T", "Y", "X", 3])],
        weights={
            "decode": _random(4, channels, frames * pixels * pixels * 3),
            "scale": np.array(255, np.float32),
            "head": np.array([0], np.int64),
            "size_start": np.array([2], np.int64),
            "size_end": np.array([5], np.int64),
            "batch_end": np.array([1], np.int64),
            "factors": np.array([frames, pixels, pixels], np.int64),
            "split": np.array([frames, pixels, pixels, 3], np.int64),
            "three": np.array([3], np.int64),
        },
        nodes=[
            helper.make_node("Transpose", ["LATENTS"], ["rows"], perm=[0, 2, 3, 4, 1]),
            helper.make_node("MatMul", ["rows", "decode"], ["decoded"]),
            helper.make_node("Sigmoid", ["decoded"], ["unit"]),
            helper.make_node("Mul", ["unit", "scale"], ["scaled"]),
            helper.make_node("Shape", ["LATENTS"], ["shape"]),
            helper.make_node("Slice", ["shape", "size_start", "size_end"], ["size"]),
            helper.make_node("Slice", ["shape", "head", "batch_end"], ["batch"]),
            helper.make_node("Concat", ["batch", "size", "split"], ["blocks_shape"], axis=0),
            helper.make_node("Reshape", ["scaled", "blocks_shape"], ["blocks"]),
            helper.make_node("Transpose", ["blocks"], ["woven"], perm=[0, 1, 4, 2, 5, 3, 6, 7]),
            helper.make_node("Mul", ["size", "factors"], ["frames_size"]),
            helper.make_node("Concat", ["batch", "frames_size", "three"], ["frames_shape"], axis=0),
            helper.make_node("Reshape", ["woven", "frames_shape"], ["frames"]),
            helper.make_node("Cast", ["frames"], ["FRAMES"], to=TensorProto.UINT8),
        ],
    )


def frame_consistency() -> onnx.ModelProto:
    """Changes nothing."""
    shape = ["B", "F", "H", "W", 3]
    return _model(
        inputs=[_tensor("FRAMES", TensorProto.UINT8, shape)],
        outputs=[_tensor("CONSISTENT_FRAMES", TensorProto.UINT8, shape)],
        weights={},
        nodes=[helper.make_node("Identity", ["FRAMES"], ["CONSISTENT_FRAMES"])],
    )


def upsampler() -> onnx.ModelProto:
    """Repeats every pixel 4×4 times."""
    return _model(
        inputs=[_tensor("FRAMES", TensorProto.UINT8, ["B", "F", "H", "W", 3])],
        outputs=[_tensor("UPSAMPLED_FRAMES", TensorProto.UINT8, ["B", "F", "Y", "X", 3])],
        weights={
            "inner": np.array([3, 5], np.int64),
            "repeats": np.array([1, 1, 1, 4, 1, 4, 1], np.int64),
            "factors": np.array([1, 1, 4, 4, 1], np.int64),
        },
        nodes=[
            helper.make_node("Unsqueeze", ["FRAMES", "inner"], ["cells"]),
            helper.make_node("Tile", ["cells", "repeats"], ["tiled"]),
            helper.make_node("Shape", ["FRAMES"], ["shape"]),
            helper.make_node("Mul", ["shape", "factors"], ["target"]),
            helper.make_node("Reshape", ["tiled", "target"], ["UPSAMPLED_FRAMES"]),
        ],
    )


def _random(seed: int, *shape: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])
    return values.astype(np.float32)


def _tensor(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _model(
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    nodes: list[onnx.NodeProto],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model
