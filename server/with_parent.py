"""Runs a command that dies with its parent, also when that is killed: a script of its own.

`python with_parent.py PARENT_PID COMMAND [ARGUMENT …]`. The kernel sends SIGKILL to a process that
has asked for it when its parent dies (`PR_SET_PDEATHSIG`, Linux), and keeps that over an `exec`.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before it could be watched.
        sys.exit(1)
    os.execv(command[0], command)
