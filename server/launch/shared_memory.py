"""How much of `/dev/shm` a repository needs: Triton's Python backend passes every tensor there.

Each instance of a stage has a region of its own. It grows to the largest request that it has run,
inputs and outputs together, and never shrinks. Instances of a stage run one batch at a time, so
clips in flight add to it only where `video_diffusion` holds or joins them.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reelserve.pipeline.checkpoint import FILE_NAME, CheckpointSpec
from reelserve.pipeline.contract import PUBLIC_MODEL, STAGES
from reelserve.server.launch.repository_check import RepositoryError
from reelserve.server.launch.repository_config import model_config, parameters_of
from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.server.launch.triton_process import ServerError

MIB = 2**20
WIDEST_EMBEDDING = 4096
"""`E` of T5-XXL, the widest text encoder that is read; no file of a repository tells it."""
FP32_BYTES, INT64_BYTES = 4, 8
RGB = 3
PROMPTS = 2
"""The prompt and the negative one."""
GROWTH = 1.25
"""Room for what regions grow in steps and cannot use again: up to 1.15 was measured."""
REGION_BYTES = 4 * MIB
"""What the region of an instance takes beside its tensors."""


@dataclass(frozen=True)
class LargestClip:
    """Bytes of the tensors of the largest clip that a repository draws.

    Args:
        frames: Frames, of the decoder and all that follow it; at most the MP4's size.
        latents: Latents of the whole clip.
        window: Latents of one window of the denoiser.
        windows: Windows of the clip.
        text: Embeddings and mask of one prompt.
    """

    frames: int
    latents: int
    window: int
    windows: int
    text: int

    @classmethod
    def of(cls, spec: CheckpointSpec) -> LargestClip:
        """Follows from the limits of a checkpoint."""
        limits, shape = spec.limits, spec.latents
        pixels = limits.height.high * limits.width.high
        frames = shape.frames(limits.num_frames.high)
        in_window = min(frames, shape.window_frames)
        latent_bytes = shape.channels * (pixels // shape.spatial_compression**2) * FP32_BYTES
        stride = max(1, shape.window_frames - shape.window_overlap)
        return cls(
            frames=limits.num_frames.high * pixels * RGB,
            latents=frames * latent_bytes,
            window=in_window * latent_bytes,
            windows=1 + math.ceil((frames - in_window) / stride),
            text=limits.max_prompt_tokens * (WIDEST_EMBEDDING * FP32_BYTES + INT64_BYTES),
        )


@dataclass(frozen=True)
class Needed:
    """What a service needs of `/dev/shm`.

    Args:
        need_bytes: For every request that the repository allows, with all places taken.
        clip_bytes: Frames of the largest clip.
        places: Clips that take denoising steps at once, of all Tritons.
    """

    need_bytes: int
    clip_bytes: int
    places: int

    @property
    def size(self) -> str:
        """Value of `--shm-size` that is enough: whole MiB."""
        return f"{math.ceil(self.need_bytes / MIB)}m"


def shared_memory_need(
    repository: Path, config_name: str = "", *, native: bool = False, tritons: int = 1
) -> Needed:
    """Computes what a repository needs of `/dev/shm`.

    Args:
        repository: Folder with one folder a model.
        config_name: Which of the configs in `configs/` serve it; empty: `config.pbtxt`.
        native: Whether NVIDIA's own backends run the graphs, which do without it.
        tritons: Tritons on this machine.

    Raises:
        RepositoryError: If a file of the repository cannot be read.
        ValueError: If a parameter of a config is no number.
    """
    clip = LargestClip.of(_spec(repository))
    steps = model_config(repository, PUBLIC_MODEL, "" if native else config_name)
    sizes = {
        **_text_and_latents(clip, repository, config_name),
        **_frames(clip, led=_is_led(steps)),
    }
    if native:
        sizes = {name: size for name, size in sizes.items() if not STAGES[name].engine}
    each = math.ceil(GROWTH * sum(sizes.values())) + len(sizes) * REGION_BYTES
    diffusion = parameters_of(model_config(repository, "video_diffusion", config_name))
    places = diffusion.integer("max_active_requests", 1)
    return Needed(tritons * each, clip.frames, tritons * places)


def check_shared_memory(needed: Needed, folder: Path = SHARED_MEMORY) -> None:
    """Raises `ServerError` if `/dev/shm`, through which stages pass frames, is too small."""
    if not folder.is_dir():
        raise ServerError(f"{folder} is missing; Triton's Python backend needs it")
    state = os.statvfs(folder)
    free = state.f_bavail * state.f_frsize
    if free < needed.need_bytes:
        raise ServerError(
            f"{folder} has {free / MIB:.0f} MiB free; this repository needs "
            f"{math.ceil(needed.need_bytes / MIB)} MiB, for clips of up to "
            f"{needed.clip_bytes / MIB:.0f} MiB of frames and {needed.places} at once (in a "
            f"container: --shm-size={needed.size}; elsewhere: "
            f"mount -o remount,size={needed.size} {folder}; or export with smaller limits)"
        )


def _spec(repository: Path) -> CheckpointSpec:
    folder = repository / "prompt_processor" / "1"
    try:
        return CheckpointSpec.load(folder)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RepositoryError(f"{folder / FILE_NAME} cannot be read: {error}") from None


def _text_and_latents(clip: LargestClip, repository: Path, config_name: str) -> dict[str, int]:
    """Bytes of the inputs and outputs of a run, of the stages before the decoder."""
    config = model_config(repository, "video_diffusion", config_name)
    diffusion = parameters_of(config)
    active = diffusion.integer("max_active_requests", 1)
    most = diffusion.integer("denoiser_max_batch_size", 1)
    # One row a window and prompt; a longer batch is computed in parts, one after another.
    of_clip = clip.windows * PROMPTS
    joined = diffusion.switch("join_requests", default=True)
    rows = min(most, active * of_clip) if joined else active * min(most, of_clip)
    denoising = rows * (2 * clip.window + clip.text)
    texts = model_config(repository, "text_encoder", config_name).max_batch_size
    # A request keeps its inputs until it is answered.
    held = diffusion.integer("max_requests_in_flight", 1) * PROMPTS * clip.text
    return {
        "prompt_processor": 0,
        "text_encoder": texts * PROMPTS * clip.text,
        "video_diffusion": held + denoising + clip.latents,
        "denoiser": denoising,
    }


def _frames(clip: LargestClip, *, led: bool) -> dict[str, int]:
    """Bytes of the inputs and outputs of a run, of the stages from the decoder on."""
    if led:
        # Frames stay on the GPU.
        return {
            "vae_decoder": clip.latents,
            "frame_consistency": 0,
            "upsampler": 0,
            "video_encoder": 2 * clip.latents,
        }
    return {
        "vae_decoder": clip.latents + clip.frames,
        "frame_consistency": 2 * clip.frames,
        "upsampler": 2 * clip.frames,
        # The MP4 is smaller than its frames by far.
        "video_encoder": clip.frames,
    }


def _is_led(ensemble: Any) -> bool:
    """Whether `video_encoder` itself calls the stages from the decoder on, in a GPU's memory."""
    return all(step.model_name != "vae_decoder" for step in ensemble.ensemble_scheduling.step)
