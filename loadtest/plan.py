"""What a load test does: how requests arrive, how many, and when they count."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reelserve.client import VideoInfo

CLOSED, OPEN = "closed", "open"
LOOPS = (CLOSED, OPEN)
MAX_CALLERS = 1000.0
MAX_RATE_PER_S = 100.0
PROMPTS_FILE = Path(__file__).with_name("prompts.txt")


@dataclass(frozen=True)
class Plan:
    """A sweep over levels of load, the same requests at each.

    A level is a number of callers that each send a request when their last one has ended (closed
    loop), or a number of requests a second that come whether or not others have ended (open).

    Args:
        url: `host:port` of the server's gRPC endpoint.
        name: Name of the requests in every statistic; holds their shape.
        loop: `closed` or `open`.
        levels: Callers, or requests per second; rising.
        prompts: Sentences; each request takes one.
        request: Other fields of every request but its seed.
        seed: Seed of prompts, noise and arrivals.
        warm_up_clips: At least so many clips of each level end before any counts.
        warm_up_s: At least so many seconds pass before any counts.
        clips: At least so many clips are counted at each level.
        rounds: At least so many clips of each caller are counted, on the average; closed loop.
        level_s: Clips are counted for at least so many seconds.
        ramp_s: Seconds in which load rises to a level; 0 is a step.
        max_level_s: A level that takes longer ends the test.

    Raises:
        ValueError: If a value is out of range.
    """

    url: str
    name: str
    loop: str
    levels: tuple[float, ...]
    prompts: tuple[str, ...]
    request: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    warm_up_clips: int = 1
    warm_up_s: float = 0.0
    clips: int = 8
    rounds: int = 3
    level_s: float = 0.0
    ramp_s: float = 0.0
    max_level_s: float = 1800.0

    def __post_init__(self) -> None:
        if self.loop not in LOOPS:
            raise ValueError(f"loop is {self.loop!r}; it must be one of {', '.join(LOOPS)}")
        if not self.prompts:
            raise ValueError("prompts holds 0 sentences; it must hold at least 1")
        name = "concurrency" if self.loop == CLOSED else "rates"
        check_levels(name, self.levels, MAX_CALLERS if self.loop == CLOSED else MAX_RATE_PER_S)

    def measured_clips(self, level: float) -> int:
        """Clips to count at a level; whole rounds of the callers in a closed loop."""
        if self.loop == OPEN:
            return self.clips
        callers = int(level)
        return max(self.rounds, math.ceil(self.clips / callers)) * callers

    def warm_up_count(self, level: float) -> int:
        """Clips that end before any counts; at least one round of the callers."""
        if self.loop == OPEN:
            return self.warm_up_clips
        callers = int(level)
        return max(1, math.ceil(self.warm_up_clips / callers)) * callers

    def window_s(self, level: float) -> float:
        """Seconds for which an open loop counts arrivals."""
        return max(self.level_s, self.clips / level)

    def to_json(self) -> str:
        """For `from_json` in another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads what `to_json` wrote."""
        raw = json.loads(text)
        return cls(**{**raw, "levels": tuple(raw["levels"]), "prompts": tuple(raw["prompts"])})


def check_levels(name: str, levels: tuple[float, ...], limit: float) -> None:
    """Raises `ValueError` unless levels rise, above 0 and up to `limit`."""
    shown = ",".join(f"{level:g}" for level in levels)
    if not levels:
        raise ValueError(f"{name} holds 0 values; it must hold at least 1")
    if not all(math.isfinite(level) and 0 < level <= limit for level in levels):
        raise ValueError(f"{name} is {shown}; the limits are above 0 and at most {limit:g}")
    if any(after <= before for before, after in itertools.pairwise(levels)):
        raise ValueError(f"{name} is {shown}; each value must be larger than the one before")


def request_name(model: str, info: VideoInfo) -> str:
    """Name of requests in statistics, for example `text_to_video 256x256 80f 8 steps`."""
    shape = f"{info.width}x{info.height} {info.num_frames}f"
    return f"{model} {shape} {info.num_inference_steps} steps"


def read_prompts(path: Path) -> tuple[str, ...]:
    """Sentences of a file, one a line; blank lines are left out.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds none, or is not UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"prompts {path} holds the byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}; it must be UTF-8"
        ) from None
    prompts = tuple(line.strip() for line in lines if line.strip())
    if not prompts:
        raise ValueError(f"prompts {path} holds 0 sentences; it must hold at least 1")
    return prompts
