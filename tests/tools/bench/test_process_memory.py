from __future__ import annotations

import os
import subprocess
import sys

from reelserve.tools.bench.process_memory import MemoryTrace, descendants, proportional_bytes

SIZE_BYTES = 64 * 2**20
LEAF = f"data = bytearray(b'x' * {SIZE_BYTES}); print('up', flush=True); input()"
MIDDLE = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {LEAF!r}])"
ROOT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {MIDDLE!r}])"


def test_memory_trace_counts_children_of_children_and_can_leave_out_the_root():
    # A tree of its own: this process may have a server of other tests below it.
    command = [sys.executable, "-c", ROOT]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with MemoryTrace(process.pid, with_root=False) as memory:
        assert process.stdout.readline() == b"up\n"
        found = descendants(process.pid)
    process.communicate(b"\n")
    assert process.pid not in found
    assert len(found) >= 2
    assert SIZE_BYTES <= memory.peak_bytes < 4 * SIZE_BYTES


def test_memory_trace_counts_the_process_itself():
    with MemoryTrace(os.getpid(), every_s=0.001) as trace:
        while len(trace.samples) < 3:
            pass
    assert all(size > 2**20 for _, size in trace.samples)


def test_proportional_bytes_is_0_when_the_process_has_ended():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert proportional_bytes(process.pid) == 0
