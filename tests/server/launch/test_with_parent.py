"""The script that Triton is started by."""

import os
import subprocess
import sys
from pathlib import Path

from reelserve.server.launch import with_parent

MAKES_FILES = """
import os, sys
from pathlib import Path
for name, mode in (("region", 0o644), ("private", 0o400), ("group", 0o640)):
    with open(Path(sys.argv[1]) / name, "w") as file:
        os.fchmod(file.fileno(), mode)
"""


def test_what_the_command_makes_is_private_whatever_mode_it_asks_for(tmp_path):
    """As Boost makes shared memory: mode 0644 by `fchmod`, past the umask."""
    command = [sys.executable, "-I", "-S", "-c", MAKES_FILES, str(tmp_path)]
    script = [sys.executable, "-I", "-S", with_parent.__file__, str(os.getpid()), *command]
    subprocess.run(script, check=True, timeout=30, start_new_session=True)

    modes = {path.name: path.stat().st_mode & 0o777 for path in Path(tmp_path).iterdir()}
    assert modes == {"region": 0o600, "private": 0o400, "group": 0o600}
