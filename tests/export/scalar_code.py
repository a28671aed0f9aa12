"""Compiles packages for a CPU sooner: their kernels are of scalar code.

Which instructions the compiler of torch chooses is not what these tests are about, and choosing
them takes much of its time. A GPU's code is not touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch._inductor import config


@contextlib.contextmanager
def scalar_code() -> Iterator[None]:
    with config.patch({"cpp.simdlen": 1}):
        yield
