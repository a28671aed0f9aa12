"""Compares exported graphs with torch on real inputs: prompts, noise and the clips they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from reelserve.export.fingerprints import combined
from reelserve.export.parity_limits import (
    MAX_LEVEL_ERROR,
    MAX_RELATIVE_ERROR,
    MAX_ROUNDINGS,
    MIN_GRAPH_PSNR_DB,
    ROUNDING,
)
from reelserve.export.stages import ExportStage, Precision
from reelserve.pipeline.checkpoint import CheckpointSpec, IntRange
from reelserve.pipeline.contract import STAGES
from reelserve.pipeline.padding import pad_token_of
from reelserve.pipeline.sampler import Sampler, SamplingSettings

ENGINE_STAGES = tuple(name for name, stage in STAGES.items() if stage.engine)
"""Stages with a graph, in the order in which a clip passes them."""

StageRunner = Callable[..., NDArray[np.generic]]
"""Runs one stage on the contract's inputs, in order and with a batch dimension."""

USUAL_FRAMES = 16
PROMPT = "a red circle moves across a plain background"

PART_SIZE = 2**22
"""Values that are compared together."""


class ParityError(Exception):
    """A graph does not compute what torch computes."""


@dataclass(frozen=True)
class ParityCase:
    """The clip that both sides generate.

    Args:
        num_frames: Frames of the clip; None: about `USUAL_FRAMES`, as the limits allow.
        num_inference_steps: Denoising steps.
        seed: Seed of the noise.
        guidance_scale: None: the default of the limits.
        prompt: What to draw.
        negative_prompt: What to keep away from.
    """

    num_frames: int | None = None
    num_inference_steps: int = 2
    seed: int = 7
    guidance_scale: float | None = None
    prompt: str = PROMPT
    negative_prompt: str = ""


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
        relative_error: Euclidean length of the error over that of torch's output.
        reference: What it was compared with, for example `torch fp32 on cpu`.
        checked: File that was run: the graph, or what it was made from where it cannot run.
    """

    max_abs_error: float
    max_abs_value: float
    relative_error: float
    reference: str
    checked: str


@dataclass(frozen=True)
class StageRun:
    """One stage's part of a clip.

    Args:
        inputs: Inputs of the stage's last run.
        output: Output of that run.
        result: What the next stage starts from; for the denoiser the finished latents.
    """

    inputs: tuple[NDArray[np.generic], ...]
    output: NDArray[np.generic]
    result: NDArray[np.generic]


def torch_runner(stage: ExportStage) -> StageRunner:
    """Runs a stage's module in eager mode, on the device that it was loaded to."""
    device = stage.example_inputs[0].device

    def run(*inputs: NDArray[np.generic]) -> NDArray[np.generic]:
        with torch.no_grad():
            tensors = (torch.from_numpy(value).to(device) for value in inputs)
            return stage.module(*tensors).cpu().numpy()

    return run


class ParityCheck:
    """Generates one clip stage by stage, recording what enters every stage.

    Args:
        spec: Limits, latents and scheduler of the checkpoint.
        tokenizer: Content of `tokenizer.json`.
        case: The clip.
    """

    def __init__(self, spec: CheckpointSpec, tokenizer: bytes, case: ParityCase) -> None:
        self._spec = spec
        self._case = case
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        length = spec.limits.max_prompt_tokens
        self._tokenizer.enable_truncation(max_length=length)
        token, token_id = pad_token_of(self._tokenizer.token_to_id)
        self._tokenizer.enable_padding(length=length, pad_id=token_id, pad_token=token)
        self.key = combined(repr((spec, case)) + tokenizer.hex())
        """Hash of all that shapes the clip, except the stages."""

    def generate(self, runners: Mapping[str, StageRunner]) -> dict[str, StageRun]:
        """Generates the clip.

        Args:
            runners: Runner of every engine stage, by stage.

        Returns:
            Run of every stage, by stage.
        """
        runs: dict[str, StageRun] = {}
        before = None
        for name in ENGINE_STAGES:
            runs[name] = self.run_stage(name, runners[name], before)
            before = runs[name].result
        return runs

    def run_stage(
        self, name: str, runner: StageRunner, before: NDArray[np.generic] | None
    ) -> StageRun:
        """Generates one stage's part of the clip.

        Args:
            name: Name of the stage.
            runner: Runs the stage.
            before: Result of the stage before; None for the first.
        """
        last: tuple[tuple[NDArray[np.generic], ...], NDArray[np.generic]]

        def call(*inputs: NDArray[np.generic]) -> NDArray[np.generic]:
            nonlocal last
            last = inputs, runner(*inputs)
            return last[1]

        if name == "text_encoder":
            result = call(*self._tokens())
        elif name == "denoiser":
            assert before is not None
            result = self._sample(before[0], call)
        else:
            result = call(before)
        return StageRun(*last, result)

    def _tokens(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        encodings = self._tokenizer.encode_batch([self._case.prompt, self._case.negative_prompt])
        ids = np.array([[encoding.ids for encoding in encodings]], np.int64)
        mask = np.array([[encoding.attention_mask for encoding in encodings]], np.int64)
        return ids, mask

    def _sample(self, embeds: NDArray[np.generic], denoiser: StageRunner) -> NDArray[np.float32]:
        limits, case = self._spec.limits, self._case
        guidance_scale = case.guidance_scale
        if guidance_scale is None:
            guidance_scale = limits.guidance_scale.default
        settings = SamplingSettings(
            seed=case.seed,
            num_inference_steps=case.num_inference_steps,
            guidance_scale=guidance_scale,
            num_frames=case.num_frames or allowed_near(USUAL_FRAMES, limits.num_frames),
            height=limits.height.low,
            width=limits.width.low,
        )
        mask = self._spec.denoiser_mask(self._tokens()[1][0])
        sampler = Sampler(self._spec.latents, self._spec.scheduler, settings)
        while not sampler.done:
            rows = sampler.rows()
            timestep = np.full((len(rows.latents), 1), rows.timestep, np.float32)
            sampler.advance(denoiser(rows.latents, timestep, embeds[rows.text], mask[rows.text]))
        return sampler.latents[None]


def compare_stage(run: StageRun, runner: StageRunner, reference: str, checked: str) -> StageParity:
    """Runs a graph on the inputs that torch had.

    Args:
        run: Inputs and output of torch's run.
        runner: Runs the graph.
        reference: What made `run`, for example `torch fp32 on cpu`.
        checked: File that `runner` runs.

    Raises:
        ParityError: If the shapes differ.
    """
    found, expected = runner(*run.inputs), run.output
    if found.shape != expected.shape:
        raise ParityError(
            f"the exported graph gives {list(found.shape)}, {reference} {list(expected.shape)}"
        )
    largest_error, largest, squared_error, squared = [], [], 0.0, 0.0
    # Part by part: in float64 all frames of a long clip would take gigabytes. By torch, which
    # uses all cores.
    for part, wanted in zip(_parts(found), _parts(expected), strict=True):
        error = part.double() - wanted.double()
        largest_error.append(error.abs().max())
        largest.append(wanted.abs().max().double())
        squared_error += error.square().sum().item()
        squared += wanted.double().square().sum().item()
    return StageParity(
        # Of tensors, which keeps NaN.
        max_abs_error=torch.stack(largest_error).max().item(),
        max_abs_value=torch.stack(largest).max().item(),
        relative_error=(squared_error / squared) ** 0.5 if squared else squared_error**0.5,
        reference=reference,
        checked=checked,
    )


def _parts(values: NDArray[np.generic]) -> tuple[Tensor, ...]:
    return torch.from_numpy(np.ascontiguousarray(values)).flatten().split(PART_SIZE)


def gives_frames(stage: str) -> bool:
    """Whether a stage's output is frames, in levels of 255."""
    return STAGES[stage].outputs[0].dtype == "UINT8"


def require_parity(stage: str, parity: StageParity, precision: Precision) -> None:
    """Judges a graph.

    Args:
        stage: Its name.
        parity: Error of the graph.
        precision: Precision of both sides.

    Raises:
        ParityError: If the graph is further from torch than its precision explains.
    """
    frames = gives_frames(stage)
    largest = parity.max_abs_error
    limit = MAX_LEVEL_ERROR[precision] if frames else MAX_RELATIVE_ERROR * parity.max_abs_value
    # Negated so that NaN fails too.
    if (frames or precision == "fp32") and not largest <= limit:
        raise ParityError(
            f"stage {stage}: the exported graph differs from {parity.reference} by up to "
            f"{largest:.3g}; the limit is {limit:.3g}"
        )
    if precision == "fp32":
        return
    limit = MAX_ROUNDINGS * ROUNDING[precision]
    if not parity.relative_error <= limit:
        raise ParityError(
            f"stage {stage}: the exported graph's relative error against {parity.reference} is "
            f"{parity.relative_error:.3g}; the limit is {limit:.3g}"
        )


def require_frames(psnr_db: float, precision: Precision) -> None:
    """Judges the finished clip; see `MIN_GRAPH_PSNR_DB`.

    Raises:
        ParityError: If it is in fp32 and too far from torch's.
    """
    if precision == "fp32" and not psnr_db >= MIN_GRAPH_PSNR_DB:
        raise ParityError(
            f"frames from the exported graphs have {psnr_db:.1f} dB against torch; the limit "
            f"is {MIN_GRAPH_PSNR_DB:g} dB"
        )
