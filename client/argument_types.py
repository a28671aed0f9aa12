"""Types of command-line values; each names the value and the limit when it refuses one."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole_number(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return int(text)

    return read


def real_number(
    least: float, most: float = math.inf, *, above: bool = False
) -> Callable[[str], float]:
    """A finite number from `least` to `most`; larger than `least` where `above`."""
    limits = f"{'above' if above else 'at least'} {least:g}"
    if math.isfinite(most):
        limits += f" and at most {most:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or not least <= value <= most or (above and value == least):
            raise argparse.ArgumentTypeError(f"{text} is not a number {limits}")
        return value

    return read


def comma_separated(read: Callable[[str], float]) -> Callable[[str], tuple[float, ...]]:
    """Several values with commas between them."""

    def read_all(text: str) -> tuple[float, ...]:
        return tuple(read(part.strip()) for part in text.split(","))

    return read_all
