"""Every tensor that crosses a stage boundary: name, dtype and dimensions, stated once.

The `config.pbtxt` files are tested against `STAGES`; the client, the server's Python stages
and the exporter import these names. Dimension letters: `B` batch, `C` latent channels, `F`
frames (latent frames for latents), `H W` rows and columns, `L` tokens, `E` embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

PUBLIC_MODEL = "text_to_video"
"""What clients ask: the ensemble of the stages."""

ANY = -1
"""A dimension fixed by the request or the checkpoint, not by the contract."""


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a stage.

    Args:
        name: Triton tensor name; an engine's graph uses the same one.
        dtype: Triton data type without the `TYPE_` prefix, for example `FP32`.
        dims: Dimensions without the batch dimension where the stage batches; `ANY` is free.
        optional: Whether a request may leave it out.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class StageContract:
    """Inputs and outputs of one stage, a model of the repository.

    Args:
        name: Folder in `model_repository/`.
        inputs: In the order of `config.pbtxt`.
        outputs: In the order of `config.pbtxt`.
        batched: Whether Triton adds a leading batch dimension (`max_batch_size` > 0). The Python
            stages take one clip a request and have that dimension, 1, written out.
        engine: Whether it is an exported graph without code of its own.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool
    engine: bool


PROMPT = TensorSpec("PROMPT", "STRING", (ANY,), optional=True)
"""Optional to Triton only: without it `prompt_processor` answers that PROMPT is missing, where
Triton's own check counts inputs and names none."""
NEGATIVE_PROMPT = TensorSpec("NEGATIVE_PROMPT", "STRING", (ANY,), optional=True)
SEED = TensorSpec("SEED", "INT64", (ANY,), optional=True)
NUM_INFERENCE_STEPS = TensorSpec("NUM_INFERENCE_STEPS", "INT32", (ANY,), optional=True)
GUIDANCE_SCALE = TensorSpec("GUIDANCE_SCALE", "FP32", (ANY,), optional=True)
NUM_FRAMES = TensorSpec("NUM_FRAMES", "INT32", (ANY,), optional=True)
FPS = TensorSpec("FPS", "INT32", (ANY,), optional=True)
HEIGHT = TensorSpec("HEIGHT", "INT32", (ANY,), optional=True)
WIDTH = TensorSpec("WIDTH", "INT32", (ANY,), optional=True)
PRIORITY = TensorSpec("PRIORITY", "STRING", (ANY,), optional=True)

REQUEST_INPUTS = (
    PROMPT,
    NEGATIVE_PROMPT,
    SEED,
    NUM_INFERENCE_STEPS,
    GUIDANCE_SCALE,
    NUM_FRAMES,
    FPS,
    HEIGHT,
    WIDTH,
    PRIORITY,
)
"""The public request. Each holds one element; `dims` are free so that a wrong count reaches
`prompt_processor`, whose error names the field."""

PROGRESS = "progress"
"""Request parameter of a stream: true asks for EVENT and PREVIEW on the way to the clip."""
HEARTBEAT = "heartbeat"
"""Request parameter of a stream: true asks for an EVENT every second and nothing else on the way.
A caller that waits for the clip alone so knows that the link lives, and proxies see traffic."""
CAPABILITIES = "reelserve_capabilities"
"""Parameter that the front end adds to the configuration of `PUBLIC_MODEL`: JSON with `checkpoint`,
`engine`, `limits` and `vocabulary`."""
EVENT = TensorSpec("EVENT", "STRING", (1,))
"""JSON: what has happened, see `server/frontend/events.py`."""
PREVIEW = TensorSpec("PREVIEW", "STRING", (1,))
"""Bytes of a PNG file."""
VIDEO = TensorSpec("VIDEO", "STRING", (1,))
INFO = TensorSpec("INFO", "STRING", (1,))

INPUT_IDS = TensorSpec("INPUT_IDS", "INT64", (2, ANY))
ATTENTION_MASK = TensorSpec("ATTENTION_MASK", "INT64", (2, ANY))
PROMPT_EMBEDS = TensorSpec("PROMPT_EMBEDS", "FP32", (2, ANY, ANY))
"""`[2, L, E]`: row 0 the prompt, row 1 the negative prompt. So for the two above."""

LATENTS = TensorSpec("LATENTS", "FP32", (ANY, ANY, ANY, ANY))
"""`[C, F, H, W]`, unit variance (normalised)."""
TIMESTEP = TensorSpec("TIMESTEP", "FP32", (1,))
"""Noise level × 1000, in [0, 1000]."""
VELOCITY = TensorSpec("VELOCITY", "FP32", (ANY, ANY, ANY, ANY))
"""`noise − data`, `[C, F, H, W]`."""

FRAMES = TensorSpec("FRAMES", "UINT8", (ANY, ANY, ANY, 3))
CONSISTENT_FRAMES = TensorSpec("CONSISTENT_FRAMES", "UINT8", (ANY, ANY, ANY, 3))
UPSAMPLED_FRAMES = TensorSpec("UPSAMPLED_FRAMES", "UINT8", (ANY, ANY, ANY, 3))
"""`[F, H, W, 3]`, RGB."""

PRIORITY_RANK = TensorSpec("PRIORITY_RANK", "INT32", (1,))
"""Class of the request: 0 interactive, 1 batch."""


DENOISER_PROMPT_EMBEDS = TensorSpec("PROMPT_EMBEDS", "FP32", (ANY, ANY))
DENOISER_ATTENTION_MASK = TensorSpec("ATTENTION_MASK", "INT64", (ANY,))


def _one_clip(*specs: TensorSpec, optional: bool = False) -> tuple[TensorSpec, ...]:
    """The same tensors with a batch dimension of 1 written out."""
    return tuple(TensorSpec(s.name, s.dtype, (1, *s.dims), optional) for s in specs)


def _resolved(*specs: TensorSpec) -> tuple[TensorSpec, ...]:
    """Fields after `prompt_processor` has filled in their defaults: `[1, 1]`."""
    return tuple(TensorSpec(spec.name, spec.dtype, (1, 1)) for spec in specs)


STAGES = {
    stage.name: stage
    for stage in (
        StageContract(
            "prompt_processor",
            inputs=REQUEST_INPUTS,
            outputs=(
                *_one_clip(INPUT_IDS, ATTENTION_MASK),
                *_resolved(SEED, NUM_INFERENCE_STEPS, GUIDANCE_SCALE),
                *_resolved(NUM_FRAMES, FPS, HEIGHT, WIDTH, PRIORITY_RANK),
            ),
            batched=False,
            engine=False,
        ),
        StageContract(
            "text_encoder",
            inputs=(INPUT_IDS, ATTENTION_MASK),
            outputs=(PROMPT_EMBEDS,),
            batched=True,
            engine=True,
        ),
        StageContract(
            "video_diffusion",
            inputs=(
                *_one_clip(PROMPT_EMBEDS, ATTENTION_MASK),
                *_resolved(SEED, NUM_INFERENCE_STEPS, GUIDANCE_SCALE),
                *_resolved(NUM_FRAMES, HEIGHT, WIDTH, PRIORITY_RANK),
            ),
            outputs=_one_clip(LATENTS),
            batched=False,
            engine=False,
        ),
        StageContract(
            "denoiser",
            inputs=(LATENTS, TIMESTEP, DENOISER_PROMPT_EMBEDS, DENOISER_ATTENTION_MASK),
            outputs=(VELOCITY,),
            batched=True,
            engine=True,
        ),
        StageContract(
            "vae_decoder", inputs=(LATENTS,), outputs=(FRAMES,), batched=True, engine=True
        ),
        StageContract(
            "frame_consistency",
            inputs=(FRAMES,),
            outputs=(CONSISTENT_FRAMES,),
            batched=True,
            engine=True,
        ),
        StageContract(
            "upsampler",
            inputs=(FRAMES,),
            outputs=(UPSAMPLED_FRAMES,),
            batched=True,
            engine=True,
        ),
        StageContract(
            # FRAMES, or LATENTS where the stages between are to be led in a GPU's memory.
            "video_encoder",
            inputs=(
                *_one_clip(FRAMES, LATENTS, optional=True),
                *_resolved(SEED, NUM_INFERENCE_STEPS, GUIDANCE_SCALE, FPS, HEIGHT, WIDTH),
            ),
            outputs=(VIDEO, INFO),
            batched=False,
            engine=False,
        ),
    )
}
"""Every stage by name, in the order of the flow; `denoiser` runs inside `video_diffusion`."""

ENSEMBLE_STAGES = tuple(name for name in STAGES if name != "denoiser")
"""Steps of the ensemble, in order."""
