"""Exports the bundled checkpoint for an engine, serves it, draws clips and compares them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from reelserve.client import Client, Video, VideoInfo
from reelserve.pipeline.quality import psnr
from reelserve.server.stages.video import LOSSLESS_CRF
from reelserve.tools.bench.gpu.cases import CASES, DRY_CASES, Case
from reelserve.tools.bench.gpu.checkpoints import BUNDLED_CHECKPOINT
from reelserve.tools.bench.gpu.children import run_child
from reelserve.tools.bench.gpu.exporting import export_command, is_exported, prepare_repository
from reelserve.tools.bench.gpu.served_clips import PROMPT, level_clips, request_of, served_case
from reelserve.tools.bench.gpu.state import Budget, Result
from reelserve.tools.bench.tensorrt.models import BUNDLED
from reelserve.tools.results_file import write_json

SEEDS = (0, 1, 2)
CALLERS = 4
LEAST_PSNR_DB = {"fp32": 45.0, "fp16": 40.0}
"""Limits for the clips of a precision, each against that of the ONNX graphs in fp32."""
READY_TIMEOUT_S = 240.0


def served_case_of(*, tiny: bool) -> Case:
    """The bundled checkpoint's clip; a short one for a machine without a GPU."""
    return next(case for case in (DRY_CASES if tiny else CASES) if case.name == BUNDLED)


def export(
    case: Case,
    engine: str,
    precision: str,
    fp32_stages: Sequence[str],
    work: Path,
    budget: Budget,
) -> Path:
    """Exports for an engine as a user would, unless that is done.

    Args:
        case: The checkpoint's clip.
        engine: Name of the engine.
        precision: Precision of the stages.
        fp32_stages: Stages that stay in fp32.
        work: Folder; the repository goes to `served/`.
        budget: When it ends, so does the export.

    Returns:
        The model repository.

    Raises:
        ChildError: If the export fails.
        OutOfBudgetError: If it does not end in time; it goes on at the next stage then.
    """
    folder = work / "served" / "_".join((engine, precision, *fp32_stages))
    repository = prepare_repository(case, [], folder)
    if not is_exported(repository):
        command = export_command(case, BUNDLED_CHECKPOINT, repository, engine, precision, 1)
        kept = ["--fp32-stages", *fp32_stages] if fp32_stages else []
        python = [sys.executable, "-m", "reelserve.export", *command[2:], *kept]
        run_child(python, folder / "export.log", budget)
    return repository


def draw_clips(case: Case, repository: Path, clips: Path) -> None:
    """Draws the clips that are compared, encoded without loss.

    At the usual quality, clips whose frames differ by one level here and there (57 dB) are no more
    than 44 dB apart, since the encoder then decides otherwise.

    Args:
        case: What is drawn.
        repository: Exported.
        clips: Folder for the clips.
    """
    log = repository.parent / "clips.log"
    with lossless(repository), served_case(case, repository, log, READY_TIMEOUT_S) as served:
        with Client(served.server.grpc_url) as client:
            for seed in SEEDS:
                request = request_of(case)
                request["seed"] = seed
                save_clip(client.generate(PROMPT, **request), clips, seed)


def measure_load(case: Case, repository: Path, budget: Budget) -> Result:
    """Measures how many clips a second there are.

    Args:
        case: What is drawn.
        repository: Exported.
        budget: The load ends with it.
    """
    log = repository.parent / "serve.log"
    with served_case(case, repository, log, READY_TIMEOUT_S) as served:
        video, first_s = served.first_clip()
        count = level_clips(CALLERS, max(first_s / CALLERS, 0.1))
        level = served.level(CALLERS, count, video, budget.left_s or 600.0)
    names = ("videos_per_s", "p50_s", "p95_s", "clips", "errors")
    return {"first_clip_s": round(first_s, 2), **{name: level[name] for name in names}}


@contextlib.contextmanager
def lossless(repository: Path) -> Iterator[None]:
    """Lets a repository's clips be encoded without loss while the block runs."""
    stage = repository / "video_encoder"
    configs = {path: path.read_bytes() for path in stage.rglob("*.pbtxt")}
    parameter = f'parameters {{ key: "encoder_crf" value {{ string_value: "{LOSSLESS_CRF}" }} }}\n'
    try:
        for path, content in configs.items():
            path.write_bytes(content + b"\n" + parameter.encode())
        yield
    finally:
        for path, content in configs.items():
            path.write_bytes(content)


def save_clip(video: Video, folder: Path, seed: int) -> None:
    """Keeps a clip, so that those of an engine that is measured later can be compared with it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seed}.mp4").write_bytes(video.mp4)
    write_json(folder / f"{seed}.json", asdict(video.info))


def least_psnr_db(clips: Path, reference: Path) -> float:
    """PSNR of the worst of the clips against those of the same seeds in another folder, in dB.

    Raises:
        FileNotFoundError: If one of them is missing.
    """
    values = (psnr(_load(clips, seed).frames(), _load(reference, seed).frames()) for seed in SEEDS)
    # Clips that are equal are infinitely close, which JSON cannot say.
    return round(min(*values, 99.0), 2)


def _load(folder: Path, seed: int) -> Video:
    info = VideoInfo.from_json((folder / f"{seed}.json").read_text())
    return Video((folder / f"{seed}.mp4").read_bytes(), info)
