"""The process that makes the load: `python -m reelserve.loadtest PLAN MEASUREMENT`.

`reelserve loadtest` starts it. It reads a plan and writes a measurement, both JSON.
"""

from __future__ import annotations

# Before anything that keeps a reference to what is replaced.
from gevent import monkey

monkey.patch_all()

from grpc.experimental import gevent as grpc_gevent  # noqa: E402

grpc_gevent.init_gevent()

import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from reelserve.client.cli import INTERRUPTED, error_console  # noqa: E402
from reelserve.loadtest.generator import run_load  # noqa: E402
from reelserve.loadtest.plan import Plan  # noqa: E402


def main() -> None:
    """Runs the plan of the first file and writes the second."""
    # The command, which is interrupted too, says so. Not by an exception: it would rise in
    # whichever caller runs just then, and gevent would show its traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    plan_file, measurement_file = map(Path, sys.argv[1:])
    plan = Plan.from_json(plan_file.read_text())
    measurement = run_load(plan, error_console().print)
    measurement_file.write_text(measurement.to_json())
    # Skips the interpreter's own end, in which gRPC's objects fall over gevent's locks.
    os._exit(0)


if __name__ == "__main__":
    main()
