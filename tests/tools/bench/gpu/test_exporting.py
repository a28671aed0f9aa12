from __future__ import annotations

import dataclasses
import json

import pytest

from reelserve.export.parity import ENGINE_STAGES, StageParity
from reelserve.export.repository import RECORD_FILE, ExportRecord
from reelserve.runtimes.export_lock import LOCK_FILE, ArtefactFile
from reelserve.tools.bench.gpu.cases import CASES
from reelserve.tools.bench.gpu.exporting import (
    export_command,
    is_exported,
    prepare_repository,
    release_stages,
    repository_of,
)

LTX, SIZED, LARGE, BUNDLED = CASES
SHARED = {"text_encoder", "vae_decoder", "frame_consistency", "upsampler"}


@pytest.fixture
def exported(tmp_path):
    """A repository of the 3B model with graphs of a few bytes."""
    folder = prepare_repository(SIZED, (), tmp_path)
    for stage in ENGINE_STAGES:
        graph = folder / stage / "1" / "model.pt2"
        graph.parent.mkdir(exist_ok=True)
        graph.write_text(f"{stage} of 3B")
        record = ExportRecord(
            "f", 1, 1.0, StageParity(0.0, 1.0, 0.0, "", ""), (ArtefactFile.of(graph),)
        )
        (folder / stage / "1" / RECORD_FILE).write_text(json.dumps(dataclasses.asdict(record)))
    (folder / LOCK_FILE).write_text("{}")
    return folder


def linked(folder) -> set[str]:
    return {stage for stage in ENGINE_STAGES if (folder / stage / "1" / "model.pt2").exists()}


def test_prepare_repository_takes_over_what_a_sibling_shares(exported, tmp_path):
    assert linked(prepare_repository(LARGE, CASES, tmp_path)) == SHARED
    assert linked(prepare_repository(LTX, CASES, tmp_path)) == {"vae_decoder"}
    assert linked(prepare_repository(BUNDLED, CASES, tmp_path)) == set()
    assert (repository_of(BUNDLED, tmp_path) / "video_encoder" / "config.pbtxt").is_file()


def test_prepare_repository_leaves_what_is_exported(exported, tmp_path):
    folder = prepare_repository(LARGE, (SIZED,), tmp_path)
    own = folder / "upsampler" / "1" / "model.pt2"
    own.unlink()
    own.write_text("its own")
    prepare_repository(LARGE, (SIZED,), tmp_path)
    assert own.read_text() == "its own"


def test_release_keeps_what_another_repository_has_taken_over(exported, tmp_path):
    folder = prepare_repository(LARGE, (SIZED,), tmp_path)
    assert is_exported(exported) and not is_exported(folder)
    release_stages(exported, ("denoiser", "upsampler"))
    assert not is_exported(exported)
    assert linked(exported) == set(ENGINE_STAGES) - {"denoiser", "upsampler"}
    assert (folder / "upsampler" / "1" / "model.pt2").read_text() == "upsampler of 3B"


def test_export_command_fixes_the_clip(tmp_path):
    command = export_command(SIZED, tmp_path, tmp_path, "pytorch", "bf16", 3)
    assert " ".join(command).endswith(
        "--engine pytorch --precision bf16 --jobs 3 --num-frames 241 --fps 24 --height 1024 "
        "--width 1536"
    )
    # Its size is the checkpoint's own.
    assert "--height" not in export_command(BUNDLED, tmp_path, tmp_path, "pytorch", "bf16", 1)
