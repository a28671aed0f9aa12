"""Runs a command that dies with its parent, children and all: a script of its own.

`python with_parent.py PARENT_PID COMMAND [ARGUMENT …]`, as the leader of a process group. The
kernel sends SIGKILL to a process that has asked for it when its parent dies (`PR_SET_PDEATHSIG`,
Linux), and keeps that over an `exec`. It does not reach what the command has started: a second
process waits for the end of either and then kills the group. Stages whose Triton has died were
seen to go on for half a minute.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
NICENESS = 5
"""Niceness of the command: its parent answers in milliseconds, so on busy cores it comes first."""


def kill_group_after(pids: list[int], group: int) -> None:
    """Waits until one of `pids` has ended, and kills the process group, this process too."""
    waiting = select.poll()
    for pid in pids:
        waiting.register(os.pidfd_open(pid), select.POLLIN)
    waiting.poll()
    os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    leader = os.getpid()
    if os.fork() == 0:
        kill_group_after([parent, leader], leader)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before it could be watched.
        sys.exit(1)
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        # Where the kernel shares time by session (autogroup), niceness counts within one only.
        with open("/proc/self/autogroup", "w") as autogroup:
            autogroup.write(str(NICENESS))
    os.execv(command[0], command)
