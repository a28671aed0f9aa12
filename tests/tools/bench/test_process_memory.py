from __future__ import annotations

import subprocess
import sys

from reelserve.tools.bench.process_memory import PeakMemory, descendants, proportional_bytes

SIZE_BYTES = 64 * 2**20
LEAF = f"data = bytearray(b'x' * {SIZE_BYTES}); print('up', flush=True); input()"
MIDDLE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LEAF!r}])"
ROOT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {MIDDLE!r}])"


def test_peak_memory_counts_children_of_children_and_not_the_root():
    # A tree of its own: this process may have a server of other tests below it.
    command = [sys.executable, "-c", ROOT]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with PeakMemory(process.pid) as memory:
        assert process.stdout.readline() == b"up\n"
        found = descendants(process.pid)
    process.communicate(b"\n")
    assert process.pid not in found
    assert len(found) >= 2
    assert SIZE_BYTES <= memory.peak_bytes < 4 * SIZE_BYTES


def test_proportional_bytes_is_0_when_the_process_has_ended():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert proportional_bytes(process.pid) == 0
