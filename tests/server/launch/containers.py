"""Processes in PID namespaces of their own, as containers have them."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def _refusal() -> str:
    """Why no PID namespace can be made here; empty where one can."""
    if shutil.which(UNSHARE[0]) is None:
        return "unshare is not installed"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


REFUSAL = _refusal()
needs_namespaces = pytest.mark.skipif(
    bool(REFUSAL), reason=f"no PID namespace can be made: {REFUSAL}"
)


@contextlib.contextmanager
def container(arguments: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """This Python as process 1 of a namespace; killing what is given kills all of it."""
    command = [*UNSHARE, sys.executable, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
