"""What a stream says about a clip on its way: the JSON of EVENT.

`{"kind": …, "stage": …, "step": …, "steps": …, "seconds": …, "remaining_s": …}`. Kinds:
`stage`, that stage has ended; `step`, a denoising step has ended; `preview`, PREVIEW holds a
first picture; `waiting`, nothing new; `clip`, the last one, with VIDEO and INFO.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SECONDS_DECIMALS = 3


@dataclass(frozen=True)
class ClipEvent:
    """One event.

    Args:
        kind: See above.
        stage: The stage it is about, or the one that runs.
        seconds: Since the request was accepted.
        remaining_s: Estimate of the seconds until the clip; None while nothing is known.
        step: Denoising steps taken; of kind `step` alone.
        steps: Denoising steps of the clip; of kind `step` alone.
    """

    kind: str
    stage: str
    seconds: float
    remaining_s: float | None = None
    step: int | None = None
    steps: int | None = None

    def to_json(self) -> bytes:
        """Content of EVENT."""
        fields = asdict(self)
        for name in ("seconds", "remaining_s"):
            if fields[name] is not None:
                fields[name] = round(fields[name], SECONDS_DECIMALS)
        return json.dumps(fields).encode()
