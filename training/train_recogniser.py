"""Trains the recogniser on real renders.

Run as `python -m reelserve.training.train_recogniser`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from reelserve.models.loading import load_component, save_component
from reelserve.training.arguments import settings_from, training_parser
from reelserve.training.ranks import Ranks
from reelserve.training.recogniser import ASSIGNMENTS, Recogniser, SceneReading, bundled_config
from reelserve.training.run import Run, Schedule, write_settings
from reelserve.training.scene.rendering import render
from reelserve.training.scene.scenes import NATURAL, WITH_SPEED, Scenes, sample_scenes
from reelserve.training.scene.vocabulary import MOTIONS, SETTINGS

ALWAYS_SEEN = (
    "stay",
    "bounce",
    "orbit",
    "spin",
    "pulse",
    "shake",
    "sway",
)
"""Motions during which an object is whole and at its size in every frame."""


@dataclass(frozen=True)
class RecogniserSettings:
    """Settings of the run.

    Args:
        frame_share: Share of the batches in which single frames are read.
        frames_read: Frames of each clip in such a batch.
    """

    seed: int = 1
    steps: int = 20_000
    max_seconds: float = 420.0
    batch_size: int = 64
    learning_rate: float = 4e-4
    weight_decay: float = 0.02
    frame_share: float = 0.4
    frames_read: int = 12


def targets(scenes: Scenes, device: str) -> dict[str, Tensor]:
    """Index tensors of a batch of scenes, `[B, 3]` for objects, `[B]` for the scene.

    −1 stands where nothing can be read: of an object that is not there, the speed of a motion
    without one, the colour of a ground that is not plain.
    """
    drawn = np.arange(scenes.thing.shape[1])[None] < scenes.count[:, None]
    with_speed = np.isin(scenes.motion, [MOTIONS.index(name) for name in WITH_SPEED])
    plain = scenes.setting == SETTINGS.index("plain")
    wanted = {
        "thing": np.where(drawn, scenes.thing + 1, 0),
        "colour": np.where(drawn, scenes.colour - NATURAL, -1),
        "size": np.where(drawn, scenes.size, -1),
        "motion": np.where(drawn, scenes.motion, -1),
        "speed": np.where(drawn & with_speed, scenes.speed, -1),
        "place": np.where(drawn, scenes.place, -1),
        "setting": scenes.setting,
        "weather": scenes.weather,
        "ground_colour": np.where(plain, scenes.ground_colour, -1),
    }
    return {name: torch.as_tensor(value, device=device) for name, value in wanted.items()}


def assignment_costs(reading: SceneReading, wanted: dict[str, Tensor], *names: str) -> Tensor:
    """Cross-entropy of every query against every object, `[B, queries, objects]`."""
    total = torch.zeros((), device=wanted["thing"].device)
    for name in names:
        logs = F.log_softmax(reading.objects[name], dim=-1)
        target = wanted[name]
        index = target.clamp(min=0)[:, None, :].expand(-1, logs.shape[1], -1)
        cost = -logs.gather(2, index)
        total = total + cost * (target >= 0)[:, None, :]
    return total


def best_assignment(costs: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest assignment of queries to objects.

    Args:
        costs: `[B, queries, objects]`.

    Returns:
        Its cost `[B]`, and for each object its query `[B, objects]`.
    """
    table = torch.tensor(ASSIGNMENTS, device=costs.device)
    objects = torch.arange(costs.shape[2], device=costs.device)
    totals = costs[:, table, objects].sum(-1)
    cost, which = totals.min(1)
    return cost, table[which]


def reading_loss(reading: SceneReading, wanted: dict[str, Tensor]) -> Tensor:
    """Cross-entropy of every attribute under the best assignment, mean over clips."""
    cost, _ = best_assignment(assignment_costs(reading, wanted, *reading.objects))
    loss = cost.mean()
    for name, logits in reading.scene.items():
        # The mean over no row would be NaN.
        target = wanted[name]
        losses = F.cross_entropy(logits, target.clamp(min=0), reduction="none")
        loss = loss + (losses * (target >= 0)).mean()
    return loss


def frame_loss(reading: SceneReading, wanted: dict[str, Tensor], scenes: Scenes) -> Tensor:
    """What single frames tell: the things, of clips all of whose objects are always seen."""
    seen = np.isin(scenes.motion, [MOTIONS.index(name) for name in ALWAYS_SEEN])
    seen |= np.arange(seen.shape[1])[None] >= scenes.count[:, None]
    cost, _ = best_assignment(assignment_costs(reading, wanted, "thing", "colour", "size"))
    weight = torch.as_tensor(seen.all(1), device=cost.device)
    return (cost * weight).sum() / weight.sum().clamp(min=1)


def disturb(frames: Tensor) -> Tensor:
    """Noise, blur and brightness like those of a decoder, so that reading survives them."""
    b = len(frames)
    chance = torch.rand(4, b, 1, 1, 1, 1, device=frames.device)
    blurred = F.avg_pool3d(frames, (1, 3, 3), 1, (0, 1, 1), count_include_pad=False)
    frames = frames + (chance[0] < 0.5) * 0.9 * chance[1] * (blurred - frames)
    frames = frames + 0.05 * chance[2] * torch.randn_like(frames)
    return (frames * (0.94 + 0.12 * chance[3])).clamp(0, 1)


def train_recogniser(
    run: Run, module: Recogniser, settings: RecogniserSettings, device: str
) -> None:
    """Takes every step that is left of the run."""
    prepare = torch.compile(disturb, dynamic=False) if device == "cuda" else disturb
    if device == "cuda":
        module.stem.compile(dynamic=False)
    for _ in run.steps():
        rng = np.random.default_rng(run.batch_seed())
        torch.manual_seed(run.batch_seed())
        # A measuring instrument must know what it measures: it alone sees every combination.
        scenes = sample_scenes(settings.batch_size, rng, held_out_only=None)
        frames, _ = render(scenes, device)
        single = bool(rng.random() < settings.frame_share)
        if single:
            # Many frames for the time of one clip: what a thing looks like needs no motion.
            repeated = np.repeat(np.arange(len(scenes)), settings.frames_read)
            scenes = scenes.rows(repeated)
            which = torch.from_numpy(rng.integers(frames.shape[2], size=len(repeated)))
            frames = frames[torch.from_numpy(repeated), :, which][:, :, None]
        wanted = targets(scenes, device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            reading = module(disturb(frames) if single else prepare(frames))
        loss = frame_loss(reading, wanted, scenes) if single else reading_loss(reading, wanted)
        run.update(loss, **{"frame_loss" if single else "clip_loss": loss})


def main() -> None:
    """Trains, saves the averaged weights to the checkpoint's `recogniser/`."""
    names = ("steps", "max_seconds", "batch_size")
    args = training_parser(__doc__, RecogniserSettings, "recogniser", names).parse_args()
    settings = settings_from(args, RecogniserSettings)
    ranks = Ranks.join(args.device)
    torch.manual_seed(settings.seed)
    module = load_component(args.init, Recogniser) if args.init else Recogniser(bundled_config())
    module = module.to(args.device).train()
    if args.device == "cuda":
        module.stem.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    run = Run(
        args.run_folder,
        module,
        [optimizer],
        Schedule(settings.steps, 500, 0.6, settings.max_seconds),
        ema_decay=0.998,
        seed=settings.seed,
        ranks=ranks,
    )
    train_recogniser(run, module, settings, args.device)
    if ranks.is_first:
        run.use_average()
        save_component(module, args.out)
        write_settings(args.out, settings, init=args.init, **run.summary())
    ranks.leave()


if __name__ == "__main__":
    main()
