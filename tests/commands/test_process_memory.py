from __future__ import annotations

import os
import subprocess
import sys

from reelserve.commands.process_memory import PeakMemory, descendants, proportional_bytes

SIZE_BYTES = 64 * 2**20
CHILD = f"data = bytearray(b'x' * {SIZE_BYTES}); print('up', flush=True); input()"
ROOT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_peak_memory_counts_descendants_and_not_the_root():
    command = [sys.executable, "-c", ROOT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as root:
        with PeakMemory(root.pid) as memory:
            assert root.stdout.readline() == b"up\n"
        assert len(descendants(root.pid)) == 1
        assert root.pid in descendants(os.getpid())
        root.communicate(b"\n")
    assert SIZE_BYTES <= memory.peak_bytes < 2 * SIZE_BYTES


def test_proportional_bytes_is_0_when_the_process_has_ended():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert proportional_bytes(process.pid) == 0
