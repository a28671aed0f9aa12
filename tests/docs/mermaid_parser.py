"""Mermaid's own parser: `python -m tests.docs.mermaid_parser FOLDER` installs it.

It runs on the Node.js that the environment has for pyright. `package-lock.json` beside this file
pins every package. Nothing outside FOLDER changes.
"""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.node import install_packages, run_node
from tests.tool_output import ToolError

HERE = Path(__file__).parent
SCRIPT = "parse.mjs"
FILES = ("package.json", "package-lock.json", SCRIPT)
UNAVAILABLE = "unavailable.txt"


def install(folder: Path) -> None:
    """Fills `folder` with the pinned packages.

    Raises:
        ToolError: If they cannot be had here. The reason stays in `folder`, too.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        install_packages(folder, HERE, FILES)
        if not parse_errors(folder, ["flowchart LR\n  a -->"])[0]:
            raise ToolError("it takes a broken diagram")
    except ToolError as error:
        (folder / UNAVAILABLE).write_text(str(error))
        raise


def parse_errors(folder: Path, diagrams: Sequence[str]) -> list[str]:
    """What mermaid says against each diagram; an empty string where it takes it.

    Args:
        folder: Filled by `install`.
        diagrams: Text between the fences of a Markdown block.

    Raises:
        ToolError: If there is no parser, with the reason of the last `install`.
    """
    reason = folder / UNAVAILABLE
    if reason.exists():
        raise ToolError(reason.read_text())
    if not (folder / "node_modules").is_dir():
        raise ToolError("not installed, which `make test` does")
    # Node.js looks for packages beside the script; the copy may be of an older commit.
    shutil.copy(HERE / SCRIPT, folder)
    answer = run_node(folder, [SCRIPT], json.dumps(diagrams))
    errors: list[str] = json.loads(answer)
    return errors


if __name__ == "__main__":
    try:
        install(Path(sys.argv[1]))
    except ToolError as error:
        sys.exit(f"No mermaid, so the tests of diagrams are skipped: {error}")
