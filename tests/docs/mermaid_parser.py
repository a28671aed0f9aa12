"""Mermaid's own parser: `python -m tests.docs.mermaid_parser FOLDER` installs it.

It runs on the Node.js that the environment has for pyright. `package-lock.json` beside this file
pins every package. Nothing outside FOLDER changes.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.installed_tool import InstalledTool
from tests.node import install_packages, run_node
from tests.tool_output import ToolError

HERE = Path(__file__).parent
SCRIPT = "parse.mjs"
FILES = ("package.json", "package-lock.json", SCRIPT)


def parse_errors(folder: Path, diagrams: Sequence[str]) -> list[str]:
    """What mermaid says against each diagram; an empty string where it takes it.

    Args:
        folder: Filled by `install`.
        diagrams: Text between the fences of a Markdown block.

    Raises:
        ToolError: If there is no parser, with the reason of the last `install`.
    """
    TOOL.check(folder)
    # Node.js looks for packages beside the script; the copy may be of an older commit.
    shutil.copy(HERE / SCRIPT, folder)
    return _errors(folder, diagrams)


def _errors(folder: Path, diagrams: Sequence[str]) -> list[str]:
    errors: list[str] = json.loads(run_node(folder, [SCRIPT], json.dumps(diagrams)))
    return errors


def _fill(folder: Path) -> None:
    install_packages(folder, HERE, FILES)
    if not _errors(folder, ["flowchart LR\n  a -->"])[0]:
        raise ToolError("it takes a broken diagram")


TOOL = InstalledTool("mermaid", "make test", _fill, "node_modules")

if __name__ == "__main__":
    TOOL.main()
