"""How close is close enough: every bound on errors of stages, graphs and finished clips."""

from __future__ import annotations

from reelserve.export.stages import Precision

MIN_PIPELINE_PSNR_DB = 70.0
"""Stages of a public family in fp32 against diffusers' own pipeline from the same noise, on frames
that are rounded to 255 levels on both sides: one pixel in 150 may round the other way. Right stages
were seen at 84 dB and more, and with one input ignored at 54 dB and less."""
MAX_PIPELINE_LATENTS_ERROR = 1e-4
"""Finished latents of the same clip: length of the error over that of diffusers' latents.
Right stages were seen at 1.3e-6 and less, and with one input ignored at 0.01 and more."""
MIN_GRAPH_PSNR_DB = 55.0
"""Limit for the finished clip in fp32, graphs against torch, whose frames are rounded to 255 levels
on both sides: one pixel in five may round the other way. The roundings of the stages add up; 60 dB
would refuse plans whose every stage is within one level. In lower precisions both sides are as far
from each other as each is from fp32, so the PSNR is measured but not judged."""
MAX_RELATIVE_ERROR = 1e-3
"""Limit for a graph with real-valued output in fp32: largest error over the largest value."""
MAX_LEVEL_ERROR: dict[Precision, int] = {"fp32": 2, "fp16": 8, "bf16": 60}
"""Limit for a graph with frames as output, in levels of 255. In fp32 rounding may fall either way.
In lower precisions it is `MAX_ROUNDINGS` of the range from black to white, and three times that for
the one worst pixel of a clip."""
ROUNDING: dict[Precision, float] = {"fp16": 2.0**-11, "bf16": 2.0**-8}
"""Largest relative error of one rounding."""
MAX_ROUNDINGS = 20
"""Limit for a graph in a lower precision: length of its error over that of torch's output, in units
of `ROUNDING`. Two orders of the same hundred or so roundings in a row, which are independent and so
add up as a root, differ by some 14; a wrong scale, a missing bias or a lost step by hundreds."""
