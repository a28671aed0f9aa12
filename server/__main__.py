"""`python -m reelserve.server`: the same as `reelserve serve`."""

import sys

from reelserve.server.launch.command import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
