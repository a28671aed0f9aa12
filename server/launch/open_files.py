"""The limit on open files, which bounds connections."""

from __future__ import annotations

import contextlib
import resource


def raise_limit() -> int:
    """Raises this process's limit on open files as far as it may, and its children's with it.

    Many systems give 1,024 to begin with, which idle connections use up.

    Returns:
        The limit now.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft
