"""Draws clips with the exported stages in one process, without a server, and times every stage.

`python -m reelserve.tools.bench.gpu.in_process JOB RESULT`, both JSON files: in a process of its
own, so that its memory is its own and is free again afterwards.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from reelserve.export.engines import get_engine
from reelserve.export.engines.aot_inductor import AotInductorEngine
from reelserve.export.engines.onnx.engine import OnnxRuntimeEngine
from reelserve.export.parity import ENGINE_STAGES
from reelserve.pipeline.checkpoint import CheckpointSpec
from reelserve.pipeline.contract import STAGES
from reelserve.pipeline.sampler import Sampler, SamplingSettings
from reelserve.runtimes.aoti_package import Package
from reelserve.runtimes.onnx_graph import open_graph
from reelserve.runtimes.repository_files import VERSION
from reelserve.server.batching import run_in_slices
from reelserve.server.prompts import FILE_NAME as TOKENIZER_FILE
from reelserve.server.prompts import PromptTokenizer
from reelserve.server.stages import device_video
from reelserve.server.stages.video import EncoderSettings, encode_mp4
from reelserve.tools.results_file import write_json

FRAME_STAGES = ("frame_consistency", "upsampler")
DIGITS = 5
ENCODER_THREADS = re.compile(r'key: "encoder_threads" value \{ string_value: "(\d+)" \}')
"""In the config of the stage that encodes."""
AnyArray = Any
"""NumPy arrays, or torch tensors on the GPU."""
HostArray = NDArray[Any]
RunStage = Callable[[Mapping[str, AnyArray]], AnyArray]


@dataclass(frozen=True)
class Job:
    """What to draw.

    Args:
        repository: Model repository that was exported.
        engine: Engine that it was exported for.
        prompt: Prompt of every clip.
        settings: Fields of `SamplingSettings`; `seed` is that of the first clip.
        fps: Frames per second of the MP4.
        clips: How many are timed, after one that is not.
        mp4: Where the last clip goes.
    """

    repository: str
    engine: str
    prompt: str
    settings: dict[str, Any]
    fps: int
    clips: int
    mp4: str


@dataclass
class StageTimes:
    """Seconds of the stages of one clip; each is waited for."""

    seconds: dict[str, float] = field(default_factory=dict)

    def take(self, stage: str, function: Callable[[], Any]) -> Any:
        """Calls a function, waits for the GPU and adds its time to a stage."""
        started = time.perf_counter()
        result = function()
        synchronise()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
        return result


class Clips:
    """Draws clips with the stages of a repository.

    Args:
        job: What to draw.
    """

    def __init__(self, job: Job) -> None:
        self._job, repository = job, Path(job.repository)
        folders = {name: repository / name / VERSION for name in STAGES}
        self._spec = CheckpointSpec.load(folders["video_diffusion"])
        self._tokenizer = PromptTokenizer(
            folders["prompt_processor"] / TOKENIZER_FILE, self._spec.limits.max_prompt_tokens
        )
        self._threads = encoder_threads(
            repository / "video_encoder", get_engine(job.engine).config_name
        )
        self._runs = {name: open_stage(job.engine, folders[name]) for name in ENGINE_STAGES}

    def draw(self, seed: int) -> tuple[dict[str, float], bytes]:
        """Draws one clip.

        Returns:
            Seconds of every stage, and the MP4.
        """
        times, runs = StageTimes(), self._runs
        ids, mask = times.take(
            "prompt_processor", lambda: self._tokenizer.encode(self._job.prompt, "")
        )
        tokens = {"INPUT_IDS": ids[None], "ATTENTION_MASK": mask[None]}
        embeds = times.take("text_encoder", lambda: to_numpy(runs["text_encoder"](tokens))[0])
        latents = self._denoise(seed, embeds, self._spec.denoiser_mask(mask), times)
        frames = times.take("vae_decoder", lambda: runs["vae_decoder"]({"LATENTS": latents[None]}))
        for stage in FRAME_STAGES:
            given = frames
            frames = times.take(stage, lambda: runs[stage]({"FRAMES": given}))  # noqa: B023
        mp4 = times.take("video_encoder", lambda: encoded(frames, self._job.fps, self._threads))
        return times.seconds, mp4

    def _denoise(
        self, seed: int, embeds: HostArray, mask: HostArray, times: StageTimes
    ) -> HostArray:
        settings = SamplingSettings(**{**self._job.settings, "seed": seed})
        started = time.perf_counter()
        sampler = Sampler(self._spec.latents, self._spec.scheduler, settings)
        while not sampler.done:
            rows = sampler.rows()
            inputs = {
                "LATENTS": rows.latents,
                "TIMESTEP": np.full((len(rows.latents), 1), rows.timestep, np.float32),
                "PROMPT_EMBEDS": embeds[rows.text],
                "ATTENTION_MASK": mask[rows.text],
            }
            run = self._runs["denoiser"]
            sampler.advance(times.take("denoiser", lambda: to_numpy(run(inputs))))  # noqa: B023
        whole_s = time.perf_counter() - started
        times.seconds["video_diffusion"] = whole_s - times.seconds["denoiser"]
        if not np.isfinite(sampler.latents).all():
            raise ValueError("the denoiser gives values that are not finite")
        return sampler.latents


def open_stage(engine: str, folder: Path) -> RunStage:
    """Loads an exported stage, which stays loaded.

    Args:
        engine: Engine that it was exported for.
        folder: Folder of its version.

    Returns:
        Gives the stage's only output; row by row, as the server computes a batch.
    """
    chosen = get_engine(engine)
    path = folder / chosen.file_name
    if isinstance(chosen, AotInductorEngine):
        return package_run(Package(path, torch.device(chosen.target("bf16").device)))
    if isinstance(chosen, OnnxRuntimeEngine):
        session = open_graph(path, chosen.provider)
        names = [output.name for output in session.get_outputs()]

        def graph_run(inputs: Mapping[str, AnyArray]) -> dict[str, HostArray]:
            return dict(zip(names, session.run(names, dict(inputs)), strict=True))

        return lambda inputs: run_in_slices(dict(inputs), graph_run, 1)[names[0]]
    return lambda inputs: chosen.run(path, dict(inputs))[0]


def package_run(package: Package) -> RunStage:
    """Gives the only output of a package of a batch of one, row by row."""

    def run(inputs: Mapping[str, AnyArray]) -> AnyArray:
        tensors = {
            key: torch.as_tensor(value, device=package.device) for key, value in inputs.items()
        }
        rows = []
        for row in range(len(next(iter(tensors.values())))):
            given = {key: tensor[row : row + 1].contiguous() for key, tensor in tensors.items()}
            package.spec.check({key: tuple(tensor.shape) for key, tensor in given.items()})
            rows.append(package.run([given[spec.name] for spec in package.spec.inputs])[0])
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    return run


def encoded(frames: AnyArray, fps: int, threads: int) -> bytes:
    """The MP4 of a batch of one, made as the server makes it."""
    settings = EncoderSettings(threads)
    if isinstance(frames, torch.Tensor):
        return device_video.encode_device_mp4(frames[0], fps, settings)
    return encode_mp4(frames[0], fps, settings)


def encoder_threads(stage: Path, config_name: str) -> int:
    """Threads of the server's encoder, as its config says.

    Args:
        stage: Folder of the stage.
        config_name: Which configs the engine is served with, see `Engine.config_name`.
    """
    chosen = stage / "configs" / f"{config_name}.pbtxt"
    config = chosen if config_name and chosen.is_file() else stage / "config.pbtxt"
    found = ENCODER_THREADS.search(config.read_text())
    return int(found[1]) if found else 1


def to_numpy(values: AnyArray) -> HostArray:
    """An array in the host's memory."""
    return values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def synchronise() -> None:
    """Waits until the GPU has nothing to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure_in_process(job: Job) -> dict[str, Any]:
    """Draws the clips of a job.

    Returns:
        `clips_s` of every timed clip, `seconds` their median, `stages_s` the mean of every stage.

    Raises:
        ValueError: If the denoiser gives values that are not finite.
    """
    started = time.perf_counter()
    with torch.no_grad():
        clips = Clips(job)
        loaded_s = time.perf_counter() - started
        first_s, mp4 = clips.draw(job.settings["seed"])
        drawn = []
        for number in range(1, job.clips + 1):
            seconds, mp4 = clips.draw(job.settings["seed"] + number)
            drawn.append(seconds)
    Path(job.mp4).write_bytes(mp4)
    totals = [sum(seconds.values()) for seconds in drawn]
    return {
        "seconds": round(statistics.median(totals), DIGITS),
        "clips_s": [round(total, DIGITS) for total in totals],
        "stages_s": {
            stage: round(statistics.fmean(seconds[stage] for seconds in drawn), DIGITS)
            for stage in drawn[0]
        },
        "first_clip_s": round(sum(first_s.values()), DIGITS),
        "load_s": round(loaded_s, DIGITS),
        "mp4_bytes": len(mp4),
        "torch_peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
    }


def write_job(job: Job, path: Path) -> None:
    """Writes a job for the process that draws it."""
    write_json(path, asdict(job))


def main() -> None:
    """Draws what the first file says and writes the second."""
    job_file, result_file = map(Path, sys.argv[1:])
    write_json(result_file, measure_in_process(Job(**json.loads(job_file.read_text()))))


if __name__ == "__main__":
    main()
