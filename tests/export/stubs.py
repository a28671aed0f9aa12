"""A family of a few weights and an engine that writes notes, for tests of the exporter alone."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.exporter import Exporter
from reelserve.export.parity import ENGINE_STAGES, ParityCase
from reelserve.export.repository import ModelRepository
from reelserve.export.stages import CPU_FP32, ExportStage, StageSource, Target
from reelserve.pipeline.checkpoint import CheckpointSpec
from tests.server.tiny_repository import EMBED, SPEC, tiny_tokenizer

SHORT_CLIP = ParityCase(num_frames=16, num_inference_steps=1)


class TextEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(100, EMBED)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return (self.table(ids) * mask[..., None]).float()


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.text = nn.Linear(EMBED, SPEC.latents.channels)

    def forward(self, latents: Tensor, timestep: Tensor, embeds: Tensor, mask: Tensor) -> Tensor:
        text = self.text((embeds * mask[..., None]).mean(1).to(self.text.weight.dtype)).float()
        return (latents + (text + timestep / 1000)[:, :, None, None, None]).tanh()


class VAEDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(99.0))

    def forward(self, latents: Tensor) -> Tensor:
        frames = (latents[:, :3].sigmoid() * self.scale).permute(0, 2, 3, 4, 1)
        for axis, times in ((1, 4), (2, 8), (3, 8)):
            frames = frames.repeat_interleave(times, axis)
        return frames.to(torch.uint8)


class Consistency(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.clone()


class Upsampler(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.repeat_interleave(4, 2).repeat_interleave(4, 3)


class StubFamily:
    """Stages of a folder with one file a stage; what is in the files does not matter.

    Args:
        folder: Holds `<stage>`, for every engine stage.
    """

    name = "stub"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: list[str] = []

    @classmethod
    def write(cls, folder: Path) -> StubFamily:
        folder.mkdir()
        for stage in ENGINE_STAGES:
            (folder / stage).write_text(stage)
        return cls(folder)

    def spec(self) -> CheckpointSpec:
        return SPEC

    def tokenizer(self) -> bytes:
        return tiny_tokenizer().to_str().encode()

    def source(self, stage: str) -> StageSource:
        path = self.folder / stage
        if not path.is_file():
            raise FileNotFoundError(f"{path}: component {stage!r} is missing")
        return StageSource((path,))

    def check(self, stage: str) -> None:
        pass

    def build(self, stage: str, target: Target = CPU_FP32) -> ExportStage:
        self.loaded.append(stage)
        return stub_stage(stage, target)


def stub_stage(stage: str, target: Target = CPU_FP32) -> ExportStage:
    torch.manual_seed(0)
    channels = SPEC.latents.channels
    mask = torch.ones(2, 2, 16, dtype=torch.int64)
    latents, frames = torch.randn(2, channels, 4, 2, 2), torch.zeros(2, 4, 16, 16, 3)
    module, inputs = {
        "text_encoder": (TextEncoder, (mask, mask.clone())),
        "denoiser": (
            Denoiser,
            (latents, torch.ones(2, 1), torch.randn(2, 16, EMBED), mask[:, 0]),
        ),
        "vae_decoder": (VAEDecoder, (latents,)),
        "frame_consistency": (Consistency, (frames.to(torch.uint8),)),
        "upsampler": (Upsampler, (frames.to(torch.uint8),)),
    }[stage]
    return ExportStage(stage, target.place(module()), inputs)


class StubEngine(OnnxRuntimeEngine):
    """Writes a note in place of a graph and answers every run with what torch gives.

    Args:
        error: Added to every answer.
        fails_at: A stage that cannot be built.
        dies_at: A stage whose build kills the process.
        waits_at: A stage whose build never ends.
        runs_in: Precision of its answers.
    """

    def __init__(
        self,
        *,
        error: float = 0.0,
        fails_at: str = "",
        dies_at: str = "",
        waits_at: str = "",
        runs_in: str = "fp32",
    ) -> None:
        super().__init__()
        self.built: list[str] = []
        self._error, self._runs_in = error, Target(runs_in)
        self._fails_at, self._dies_at, self._waits_at = fails_at, dies_at, waits_at

    def build(self, stage, path: Path) -> None:
        path.write_text(stage.name)
        self.built.append(stage.name)
        if stage.name == self._fails_at:
            raise RuntimeError("no kernel for Frobnicate")
        if stage.name == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if stage.name == self._waits_at:
            time.sleep(600)

    def run(self, path: Path, inputs):
        stage = stub_stage(path.read_text(), self._runs_in)
        with torch.no_grad():
            out = stage.module(*(torch.from_numpy(value) for value in inputs.values())).numpy()
        return [out + np.array(self._error, out.dtype)]


def export(checkpoint: Path, repository: Path, **engine: str) -> list[str]:
    """Exports the folder of a stub family with a stub engine; returns what was built."""
    stub = StubEngine(**engine)
    exporter = Exporter(StubFamily(checkpoint), stub, ModelRepository(repository), case=SHORT_CLIP)
    exporter.run()
    return stub.built
