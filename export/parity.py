"""Compares exported graphs with torch on real inputs: prompts, noise and the clips they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from reelserve.export.stages import ExportStage
from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange
from reelserve.pipeline.quality import psnr
from reelserve.pipeline.sampler import Sampler, SamplingSettings

StageRunner = Callable[..., NDArray[np.generic]]
"""Runs one stage on the contract's inputs, in order and with a batch dimension."""

MIN_FRAMES_PSNR_DB = 45.0
"""Of the finished clip, graphs against torch."""
USUAL_FRAMES = 16
PROMPT = "a red circle moves across a plain background"


@dataclass(frozen=True)
class ParityCase:
    """The clip that both sides generate.

    Args:
        num_frames: Frames of the clip; None: about `USUAL_FRAMES`, as the limits allow.
        num_inference_steps: Denoising steps.
        seed: Of the noise.
    """

    num_frames: int | None = None
    num_inference_steps: int = 2
    seed: int = 7


def allowed_near(value: int, range_: IntRange) -> int:
    """The smallest allowed value that is not below `value`, or the largest allowed one."""
    steps = -(-(max(value, range_.low) - range_.offset) // range_.multiple_of)
    found = range_.offset + steps * range_.multiple_of
    return found if found <= range_.high else range_.high


@dataclass(frozen=True)
class StageParity:
    """How far a graph is from torch on the same inputs.

    Args:
        max_abs_error: In the unit of the stage's output; 1 of 255 for frames.
        max_abs_value: Largest value of torch's output, to read the error against.
    """

    max_abs_error: float
    max_abs_value: float


def torch_runner(stage: ExportStage) -> StageRunner:
    """Runs a stage's module in eager mode."""

    def run(*inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        with torch.no_grad():
            return stage.module(*(torch.from_numpy(value) for value in inputs)).numpy()

    return run


class ParityCheck:
    """Generates one clip stage by stage, recording what enters every stage.

    Args:
        spec: Of the checkpoint.
        tokenizer: Content of `tokenizer.json`.
        case: The clip.
    """

    def __init__(self, spec: CheckpointSpec, tokenizer: bytes, case: ParityCase) -> None:
        self._spec = spec
        self._case = case
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        length = spec.limits.max_prompt_tokens
        self._tokenizer.enable_truncation(max_length=length)
        self._tokenizer.enable_padding(length=length)

    def generate(self, runners: Mapping[str, StageRunner]) -> dict[str, _Trace]:
        """Generates the clip.

        Args:
            runners: By stage; all engine stages.

        Returns:
            Inputs and output of each stage's last run.
        """
        traces: dict[str, _Trace] = {}

        def call(name: str, *inputs: NDArray[np.generic]) -> NDArray[np.generic]:
            traces[name] = _Trace(inputs, runners[name](*inputs))
            return traces[name].output

        ids, mask = self._tokens()
        embeds = call("text_encoder", ids, mask)[0]
        latents = self._sample(embeds, mask[0], lambda *inputs: call("denoiser", *inputs))
        frames = call("vae_decoder", latents)
        frames = call("frame_consistency", frames)
        call("upsampler", frames)
        return traces

    def _tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch([PROMPT, ""])
        ids = np.array([[encoding.ids for encoding in encodings]], np.int64)
        mask = np.array([[encoding.attention_mask for encoding in encodings]], np.int64)
        return ids, mask

    def _sample(
        self, embeds: NDArray[np.generic], mask: NDArray[np.int64], denoiser: StageRunner
    ) -> NDArray[np.float32]:
        limits, case = self._spec.limits, self._case
        settings = SamplingSettings(
            seed=case.seed,
            num_inference_steps=case.num_inference_steps,
            guidance_scale=limits.guidance_scale.default,
            num_frames=case.num_frames or allowed_near(USUAL_FRAMES, limits.num_frames),
            height=limits.height.low,
            width=limits.width.low,
        )
        mask = self._spec.denoiser_mask(mask)
        sampler = Sampler(self._spec.latents, self._spec.scheduler, settings)
        while not sampler.done:
            rows = sampler.rows()
            timestep = np.full((len(rows.latents), 1), rows.timestep, np.float32)
            sampler.advance(denoiser(rows.latents, timestep, embeds[rows.text], mask[rows.text]))
        return sampler.latents[None]


@dataclass(frozen=True)
class _Trace:
    inputs: tuple[NDArray[np.generic], ...]
    output: NDArray[np.generic]


def compare_stage(trace: _Trace, runner: StageRunner) -> StageParity:
    """Runs a graph on the inputs that torch had.

    Args:
        trace: Of the torch run.
        runner: Of the graph.
    """
    expected = trace.output.astype(np.float64)
    error = np.abs(runner(*trace.inputs).astype(np.float64) - expected)
    return StageParity(float(error.max()), float(np.abs(expected).max()))


def frames_psnr(traces: Mapping[str, _Trace], reference: Mapping[str, _Trace]) -> float:
    """PSNR in decibels between the finished clips of two runs."""
    return psnr(traces["upsampler"].output, reference["upsampler"].output)
