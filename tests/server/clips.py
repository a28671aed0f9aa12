"""Clips of the tiny checkpoint, as `video_diffusion` holds them."""

import numpy as np

from reelserve.server.stages.diffusion import clip_from_inputs
from tests.server.tiny_repository import SPEC


def diffusion_inputs(
    seed: int = 1, guidance_scale: float = 2.0, num_frames: int = 16, steps: int = 2, rank: int = 0
):
    def one(value, dtype):
        return np.array([[value]], dtype)

    return {
        "PROMPT_EMBEDS": np.arange(2 * 16 * 12, dtype=np.float32).reshape(1, 2, 16, 12),
        "ATTENTION_MASK": np.ones((1, 2, 16), np.int64),
        "SEED": one(seed, np.int64),
        "NUM_INFERENCE_STEPS": one(steps, np.int32),
        "GUIDANCE_SCALE": one(guidance_scale, np.float32),
        "NUM_FRAMES": one(num_frames, np.int32),
        "HEIGHT": one(64, np.int32),
        "WIDTH": one(64, np.int32),
        "PRIORITY_RANK": one(rank, np.int32),
    }


def clip(**changes):
    return clip_from_inputs(diffusion_inputs(**changes), SPEC)
