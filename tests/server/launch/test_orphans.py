"""Children that have ended; what a server does as process 1 is in `test_containers.py`."""

import subprocess
import sys

SCRIPT = """
import os, subprocess, time
from reelserve.server.launch.orphans import reap
orphan = os.posix_spawn("/bin/true", ["true"], {})
own = subprocess.Popen(["/bin/sh", "-c", "exit 3"])
for pid in (orphan, own.pid):
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
reap({own.pid})
try:
    os.waitpid(orphan, 0)
except ChildProcessError:
    print("reaped", own.wait())
reap({own.pid})
"""


def test_reap_waits_for_orphans_and_leaves_its_callers_own_children_their_status():
    command = [sys.executable, "-c", SCRIPT]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert said.split() == ["reaped", "3"]
