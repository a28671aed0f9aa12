"""NVIDIA's `perf_analyzer`, its binary from PyPI: `python -m tests.perf_analyzer FOLDER`.

The binary wants a newer C library than some systems have. There it gets its own: libraries of a
newer Debian, fetched through the system's apt, unpacked in FOLDER and started by their own loader.
Nothing outside FOLDER changes.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.installed_tool import InstalledTool
from tests.tool_output import ToolError, tool_output

VERSION = "2.60.0"
# Of the wheel. pip does not ask whether this system fulfils it.
WHEEL_PLATFORM = "manylinux_2_38_x86_64"
BINARY = f"perf_analyzer-{VERSION}"
DEBIAN = "trixie"
DEBIAN_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEBIAN_PACKAGES = "libc6 libgcc-s1 libssl3t64 libstdc++6 libzstd1 zlib1g".split()
LOADER = Path("libraries", "usr", "lib64", "ld-linux-x86-64.so.2")
LIBRARIES = Path("libraries", "usr", "lib", "x86_64-linux-gnu")
# State of its own, and none of the system's hooks, which clean the system's cache after an update.
APT_CONFIGURATION = """
Dir::State "{apt}";
Dir::State::status "/dev/null";
Dir::Cache "{apt}";
Dir::Etc::SourceList "{apt}/sources.list";
Dir::Etc::SourceParts "/dev/null";
#clear APT::Update;
#clear APT::Default-Release;
APT::Update::Error-Mode "any";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "1";
"""


def perf_analyzer_command(folder: Path) -> list[str]:
    """How to start what `install` has put into `folder`; arguments follow.

    Raises:
        ToolError: If it is not there, with the reason of the last `install`.
    """
    folder = folder.resolve()
    binary = str(folder / BINARY)
    loader = [str(folder / LOADER), "--library-path", str(folder / LIBRARIES)]
    for command in ([binary], [*loader, binary]):
        if _runs(command):
            return command
    TOOL.check(folder)
    raise ToolError(f"{binary} does not run")


def install(folder: Path) -> None:
    """Puts `perf_analyzer` into `folder`, unless it is there and runs.

    Raises:
        ToolError: If it cannot be had here. The reason stays in `folder`, too.
    """
    try:
        perf_analyzer_command(folder)
    except ToolError:
        TOOL.install(folder)


def _fill(folder: Path) -> None:
    _fetch_binary(folder)
    if not _runs([str(folder / BINARY)]):
        _fetch_libraries(folder)
    perf_analyzer_command(folder)


def _fetch_binary(folder: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise ToolError("it is published for x86-64 Linux alone")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1"]
    only = ["--no-deps", "--only-binary=:all:", "--platform", WHEEL_PLATFORM]
    _run([*pip, "download", "--quiet", *only, f"perf-analyzer=={VERSION}"], folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (folder / BINARY).write_bytes(archive.read("perf_analyzer/bin/perf_analyzer"))
    (folder / BINARY).chmod(0o755)
    wheel.unlink()


def _fetch_libraries(folder: Path) -> None:
    if not all(map(shutil.which, ("apt-get", "dpkg-deb"))):
        raise ToolError("its binary wants newer libraries, and there is no apt to get them")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        apt = Path(name)
        (apt / "apt.conf").write_text(APT_CONFIGURATION.format(apt=apt))
        apt_get = ["apt-get", "--quiet=2", "--config-file", str(apt / "apt.conf")]
        _find_debian(apt, apt_get)
        _run([*apt_get, "download", *DEBIAN_PACKAGES], apt)
        for package in apt.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), str(folder / "libraries")], apt)


def _find_debian(apt: Path, apt_get: list[str]) -> None:
    """Reads the package list from the first of the system's own sites that has Debian's, signed."""
    failure = ToolError("its binary wants newer libraries, and apt has no sources")
    sites = _run(["apt-get", "indextargets", "--no-release-info", "--format", "$(SITE)"], apt)
    for number, site in enumerate(dict.fromkeys(sites.splitlines())):
        (apt / "sources.list").write_text(
            f"deb [target=Packages signed-by={DEBIAN_KEYS}] {site} {DEBIAN} main\n"
        )
        try:
            _run([*apt_get, "update"], apt)
            return
        except ToolError as error:
            failure = error if number == 0 else failure
    raise failure


def _run(command: list[str], folder: Path) -> str:
    return tool_output(command, folder, lambda line: line.startswith(("E:", "ERROR:")))


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


TOOL = InstalledTool("perf_analyzer", "make test", _fill, BINARY)

if __name__ == "__main__":
    TOOL.main(install)
