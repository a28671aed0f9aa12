"""Runs a command that dies with its parent, children and all: a script of its own.

`python with_parent.py PARENT_PID COMMAND [ARGUMENT …]`, as the leader of a process group. The
kernel sends SIGKILL to a process that has asked for it when its parent dies (`PR_SET_PDEATHSIG`,
Linux), and keeps that over an `exec`. It does not reach what the command has started: a second
process waits for the end of either and then kills the group. Stages whose Triton has died were
seen to go on for half a minute.

No file that the command makes can be opened by another user, whatever mode it asks for.
"""

import contextlib
import ctypes
import os
import select
import signal
import struct
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
FCHMOD = {"x86_64": (0xC000003E, 91), "aarch64": (0xC00000B7, 52)}
"""Kernel's number of the architecture, and of the system call `fchmod` there."""
LOAD, JUMP_IF_EQUAL, JUMP_IF_SET, RETURN = 0x20, 0x15, 0x45, 0x06
"""Instructions of a seccomp filter: classic BPF on 32-bit words."""
ARCHITECTURE_AT, CALL_AT, MODE_AT = 4, 0, 24
"""Where they stand in what a filter sees; the mode is the second argument of `fchmod`."""
ALLOW, DO_NOTHING = 0x7FFF0000, 0x00050000
"""Verdicts: the call is made; it is not made and succeeds."""
OF_OTHERS = 0o077
"""Bits of a mode that let anybody but the owner in."""
NICENESS = 5
"""Niceness of the command: its parent answers in milliseconds, so on busy cores it comes first."""


def kill_group_after(pids: list[int], group: int) -> None:
    """Waits until one of `pids` has ended, and kills the process group, this process too."""
    waiting = select.poll()
    for pid in pids:
        waiting.register(os.pidfd_open(pid), select.POLLIN)
    waiting.poll()
    os.killpg(group, signal.SIGKILL)


def keep_files_private() -> None:
    """Has the kernel skip every `fchmod` that would let another user in, here and in children.

    Triton's Python backend makes its shared memory, through which prompts and frames pass, with
    Boost, which sets the mode 0644 by `fchmod`, past the umask. To change the mode later would be
    too late: who has opened a region by then can read it for ever.

    Raises:
        OSError: If the kernel takes no filter.
    """
    os.umask(OF_OTHERS)
    architecture, fchmod = FCHMOD.get(os.uname().machine, (0, 0))
    instructions = (
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, 0, 5, architecture),
        (LOAD, 0, 0, CALL_AT),
        (JUMP_IF_EQUAL, 0, 3, fchmod),
        (LOAD, 0, 0, MODE_AT),
        (JUMP_IF_SET, 0, 1, OF_OTHERS),
        (RETURN, 0, 0, DO_NOTHING),
        (RETURN, 0, 0, ALLOW),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in instructions))
    program = ctypes.create_string_buffer(
        struct.pack("HP", len(instructions), ctypes.addressof(code))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if (
        not architecture
        or libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    leader = os.getpid()
    if os.fork() == 0:
        kill_group_after([parent, leader], leader)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        # It died before it could be watched.
        sys.exit(1)
    with contextlib.suppress(OSError):
        # Who started this one sees whether what was made is private.
        keep_files_private()
    os.nice(NICENESS)
    with contextlib.suppress(OSError):
        # Where the kernel shares time by session (autogroup), niceness counts within one only.
        with open("/proc/self/autogroup", "w") as autogroup:
            autogroup.write(str(NICENESS))
    os.execv(command[0], command)
