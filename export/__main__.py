"""`python -m reelserve.export`, the same as `reelserve export`."""

import sys

from reelserve.export.command import run

sys.exit(run(sys.argv[1:]))
