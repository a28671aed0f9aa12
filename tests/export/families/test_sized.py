"""Checkpoints of our family around a public text encoder and a public decoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install '.[families]'")

from reelserve.export.families import CheckpointFamily, family_of
from reelserve.export.families.layout import Checkpoint
from reelserve.export.parity import ENGINE_STAGES, ParityCase, ParityCheck, torch_runner
from reelserve.tools.bench.gpu.cases import DRY_CASES
from reelserve.tools.bench.gpu.checkpoints import write_checkpoint

pytestmark = pytest.mark.compile

LTX, SIZED, DEEP, _ = DRY_CASES


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sized")


def family(case, work, **profile: int) -> CheckpointFamily:
    wanted = {
        "num_frames": case.num_frames,
        "height": case.height,
        "width": case.width,
        "fps": case.fps,
        **profile,
    }
    limits = {name: {"low": n, "high": n, "default": n} for name, n in wanted.items()}
    return family_of(Checkpoint.open(write_checkpoint(case, work, tiny=True)), limits)


def test_stages_draw_a_clip_of_the_size_after_the_upsampler(work):
    sized = family(SIZED, work)
    runners = {name: torch_runner(sized.build(name)) for name in ENGINE_STAGES}
    check = ParityCheck(sized.spec(), sized.tokenizer(), ParityCase())
    traces = check.generate(runners)
    assert traces["text_encoder"].output.shape == (1, 2, 128, 32)
    assert traces["denoiser"].output.shape == (1, 128, 2, 1, 1)
    decoded = traces["vae_decoder"].output
    assert decoded.shape == (1, 9, 32, 32, 3)
    assert 0.5 < decoded.astype(np.float64).std() < 20
    assert traces["upsampler"].output.shape == (1, 9, 64, 64, 3)


def test_stages_of_equal_components_and_sizes_are_made_from_the_same(work):
    ltx, sized, deep = (family(case, work) for case in (LTX, SIZED, DEEP))

    def shared(first: CheckpointFamily, second: CheckpointFamily) -> set[str]:
        return {name for name in ENGINE_STAGES if _source(first, name) == _source(second, name)}

    assert shared(sized, deep) == set(ENGINE_STAGES) - {"denoiser"}
    # LTX-Video does not hide padding from its text encoder, and has no stage after its decoder.
    assert shared(ltx, sized) == {"vae_decoder"}


@pytest.mark.parametrize("stage", ["denoiser", "vae_decoder", "frame_consistency", "upsampler"])
def test_stages_of_other_sizes_are_not_up_to_date(work, stage):
    assert _source(family(SIZED, work), stage) != _source(family(SIZED, work, num_frames=17), stage)


@pytest.mark.parametrize("stage", ["text_encoder", "vae_decoder", "upsampler"])
def test_cases_share_what_their_stages_share(stage):
    assert SIZED.stage_key(stage) == DEEP.stage_key(stage)
    longer = dataclasses.replace(SIZED, num_frames=17)
    assert (longer.stage_key(stage) == SIZED.stage_key(stage)) == (stage == "text_encoder")


def _source(family: CheckpointFamily, stage: str) -> object:
    source = family.source(stage)
    return source.settings, tuple(path.resolve() for path in source.files)
