import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from reelserve.pipeline.contract import STAGES
from reelserve.server.launch.installation import (
    InstallationError,
    native_installation,
    pip_installation,
)
from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.server.launch.running_server import Server
from reelserve.server.launch.stage_processes import (
    child_processes,
    has_ended,
    instance_processes,
)
from reelserve.server.launch.triton_process import ServerError, error_lines
from reelserve.server.launch.tritons import ServeOptions
from tests.server.grpc_requests import generate


def shared_memory(server: Server) -> list[Path]:
    """What the server has in memory that processes share: regions and its folder."""
    token = server.running.region_prefix.split("_")[1]
    return list(SHARED_MEMORY.glob(f"reelserve[-_]{token}*"))


def abandoned() -> set[str]:
    """Tokens of servers that have left something in shared memory; others may run meanwhile."""
    found = re.findall(r"reelserve[-_]([0-9a-f]{32})", " ".join(os.listdir(SHARED_MEMORY)))
    return {token for token in found if not held(SHARED_MEMORY / f"reelserve-{token}")}


def token_of(triton: int) -> str:
    """Token of the server that a Triton is of; tests beside this one kill servers of their own."""
    arguments = " ".join(psutil.Process(triton).cmdline())
    found = re.search(r"shm-region-prefix-name=reelserve_([0-9a-f]{32})_", arguments)
    assert found is not None, arguments
    return found[1]


def held(folder: Path) -> bool:
    """Whether somebody has a lock on a folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def left_over(pids: Iterable[int]) -> list[int]:
    """Those of them that still run after a while."""
    deadline = time.monotonic() + 30
    while True:
        alive = [pid for pid in pids if not has_ended(pid)]
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def processes(server: Server) -> list[int]:
    """Front end, Triton and stages."""
    stages = instance_processes(server.triton_pid)
    assert len(stages) == len(STAGES)
    return [server.pid, server.triton_pid, *stages.values()]


@pytest.mark.server
def test_server_leaves_nothing_behind_when_stopped(tiny_repository, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Server(ServeOptions(tiny_repository)) as server:
        pids = processes(server)
        assert shared_memory(server) and list(tmp_path.glob("reelserve*"))
        with urllib.request.urlopen(server.metrics_url) as reply:
            assert b"nv_inference_count" in reply.read()
        # A Triton that crashed while it started, as it does now and then, is told before.
        assert server.messages().splitlines()[-1] == server.running.described()

    assert left_over(pids) == []
    assert shared_memory(server) == []
    assert list(tmp_path.glob("reelserve*")) == []


@pytest.mark.server
def test_server_names_the_mismatch_when_graph_and_config_differ(tiny_repository, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_repository, broken)
    config = broken / "denoiser" / "config.pbtxt"
    config.write_text(config.read_text().replace('"VELOCITY"', '"SPEED"'))
    server = Server(ServeOptions(broken, log_file=tmp_path / "log", log_format="json"))

    with pytest.raises(ServerError) as caught:
        server.start()

    assert "output SPEED is in the config but not in the graph" in str(caught.value)
    assert "Traceback" not in str(caught.value) and "<frozen" not in str(caught.value)
    log = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    told = [one for one in log if one["source"] == "triton"]
    assert any("output SPEED" in one["message"] and one["level"] == "error" for one in told)
    assert any("\nAt:\n" in one["message"] for one in told), "Triton's stack trace of the stage"
    assert log[-1]["source"] == "server" and log[-1]["message"] == str(caught.value)
    assert server.stop() is None


@pytest.mark.server
def test_server_starts_when_paths_hold_white_space(tiny_repository, tmp_path, monkeypatch):
    folder = tmp_path / "my videos"
    shutil.copytree(tiny_repository, folder / "model repository")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    with Server(ServeOptions(folder / "model repository", log_file=folder / "the log")) as server:
        assert generate(server, prompt="a red star", seed=1)[1]["checkpoint"] == "tiny"


@pytest.mark.server
def test_server_gives_up_when_it_is_not_ready_in_time(tiny_repository):
    def left() -> set[str]:
        before = abandoned()
        with pytest.raises(ServerError, match=r"not ready within 0\.3 s"):
            Server(ServeOptions(tiny_repository, ready_timeout_s=0.3)).start()
        return abandoned() - before

    # Tests beside this one kill servers of their own, now and then at the same moment.
    assert any(not left() for _ in range(3))


@pytest.mark.parametrize("port", ["grpc", "http", "metrics"])
def test_server_refuses_when_a_port_is_in_use(tiny_repository, port):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ServerError) as caught:
            Server(ServeOptions(tiny_repository, **{f"{port}_port": number})).start()
    words = f"cannot listen on 127.0.0.1:{number}: Address already in use"
    holder = f" (by {psutil.Process().name()}, process {os.getpid()})"
    assert str(caught.value) == words + holder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"host": "bad.invalid"}, "cannot listen on bad.invalid:0: "),
        ({"host": "a..b"}, "cannot listen on a..b:0: it is no name of a host"),
        ({"log_file": Path("/proc/none/triton.log")}, "the log cannot be written to /proc/none/"),
        ({"log_file": Path("/dev/null/triton.log")}, "the log cannot be written to /dev/null/"),
        ({"log_file": Path("/")}, "the log cannot be written to /: Is a directory; --log-file"),
    ],
    ids=["unknown host", "no host", "read-only folder", "folder that is a file", "folder"],
)
def test_server_refuses_in_one_line_what_it_cannot_use(tiny_repository, changes, words):
    with pytest.raises(ServerError) as caught:
        Server(ServeOptions(tiny_repository, **changes)).start()
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


def test_serve_refuses_in_one_line_when_the_temporary_folder_is_full(tiny_repository, tmp_path):
    full = mounted(tmp_path / "full", "size=64k", tiny_repository)
    assert re.fullmatch(r"OSError: .*No space left on device.*", full)


def test_serve_refuses_in_one_line_when_the_temporary_folder_is_noexec(tiny_repository, tmp_path):
    noexec = mounted(tmp_path / "noexec", "noexec", tiny_repository)
    assert re.fullmatch(r"\S+ is mounted noexec, .*; TMPDIR must name .*", noexec)


def mounted(folder: Path, options: str, repository: Path) -> str:
    """What a server says whose temporary folder is a file system of its own."""
    folder.mkdir()
    serve = f"{sys.executable} -m reelserve.server --model-repository={repository} --log-file="
    ports = "--grpc-port=0 --http-port=0 --metrics-port=0"
    script = f"mount -t tmpfs -o {options} none {folder} && TMPDIR={folder} exec {serve} {ports}"
    command = ["unshare", "--mount", "sh", "-c", script]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unshare" in ended.stderr or "mount:" in ended.stderr:
        pytest.skip(f"no file system can be mounted: {ended.stderr.strip()}")
    assert ended.returncode == 1
    return ended.stderr.strip()


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_serve_ends_cleanly_when_signalled(tiny_repository, tmp_path, number):
    command = subprocess.Popen(
        [
            *(sys.executable, "-m", "reelserve.server"),
            *("--model-repository", str(tiny_repository)),
            *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
            *("--log-file", str(tmp_path / "triton.log")),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert command.stderr is not None
    ready = command.stderr.readline()
    children = [child.pid for child in child_processes(command.pid)]
    token = token_of(children[0])
    while not all(map(has_ended, children)):
        # Not only once: whoever is impatient must not stop the clean-up.
        command.send_signal(number)
        time.sleep(0.01)
    _, rest = command.communicate(timeout=30)

    assert ready.startswith("ready after ") and "gRPC 127.0.0.1:" in ready
    assert (command.returncode, rest) == (0, "")
    assert len(children) == 1 and left_over(children) == []
    assert token not in abandoned()


@pytest.mark.server
def test_serve_ends_and_leaves_nothing_when_a_model_does_not_unload(tiny_repository):
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "reelserve.server"),
            *("--model-repository", str(tiny_repository)),
            *("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0"),
            *("--log-format", "json", "--triton-argument=--exit-timeout-secs=1"),
        ],
        # As a container's log is.
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        assert command.stdout is not None
        read = (json.loads(line) for line in command.stdout)
        said = [next(read)["message"]]
        while not said[-1].startswith("ready after "):
            said.append(next(read)["message"])
        (triton,) = child_processes(command.pid)
        stages, token = instance_processes(triton.pid), token_of(triton.pid)
        os.kill(stages["vae_decoder_0_0"], signal.SIGSTOP)
        command.terminate()
        # Each of them an object.
        said += [line["message"] for line in read]
        assert command.wait(30) == 0

    log = "\n".join(said)
    assert "Started GRPCInferenceService" in log, "where there is no terminal"
    assert "Exit timeout expired. Exiting immediately." in log
    assert left_over([triton.pid, *stages.values()]) == []
    assert token not in abandoned()


def test_error_lines_cut_time_stamps_traces_and_repetitions():
    log = "\n".join(
        [
            'I1123 06:41:23.1 9 server.cc:1] "starting"',
            'E1123 06:41:23.2 9 server.cc:241] "CudaDriverHelper has not been initialized."',
            r'E1123 06:41:24.3 9 model.cc:6] "failed to load x: ValueError: y\n\nAt:\n  a.py(3)"',
            r'E1123 06:41:24.4 9 other.cc:6] "failed to load x: ValueError: y\n\nAt:\n  a.py(3)"',
            "error: creating server: Internal - failed to load all models",
        ]
    )

    assert error_lines(log).splitlines() == [
        "failed to load x: ValueError: y",
        "creating server: Internal - failed to load all models",
    ]


def test_error_lines_are_the_last_lines_when_there_is_no_error():
    assert error_lines("one\ntwo\nthree", limit=2) == "two\nthree"


def test_pip_installation_finds_the_server_without_importing_pytriton(tmp_path):
    installation = pip_installation(tmp_path)

    assert os.access(installation.binary, os.X_OK)
    assert "pytriton" not in sys.modules
    backends = tmp_path / "backends"
    assert f"--backend-directory={backends}" in installation.arguments
    assert os.access(backends / "python" / "triton_python_backend_stub", os.X_OK)
    # Triton refuses a backend library that is a link out of its folder.
    assert not (backends / "python" / "libtriton_python.so").is_symlink()
    assert (backends / "onnxruntime" / "model.py").is_file()
    assert (backends / "python" / "reelserve" / "pipeline" / "contract.py").is_file()


def test_pip_installation_can_be_repeated_in_one_folder(tmp_path):
    assert pip_installation(tmp_path) == pip_installation(tmp_path)


def test_pip_installation_says_what_to_install_when_there_is_no_server(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(InstallationError, match="pip install nvidia-pytriton"):
        pip_installation(tmp_path)


def test_pip_installation_says_what_to_install_when_libpython_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)

    with pytest.raises(InstallationError, match=r"libpython3\.\d+\.so.*apt install libpython3"):
        pip_installation(tmp_path)


def test_native_installation_refuses_when_the_binary_is_missing(tmp_path):
    with pytest.raises(InstallationError, match="is not an executable file"):
        native_installation(tmp_path / "tritonserver")


def test_stages_start_without_torch():
    """Eight processes of it would cost gigabytes and most of the time to start."""
    modules = (
        *("prompts", "batching", "progress", "stages.diffusion", "stages.clip_output"),
        *("stages.steps", "engines.onnx_session", "engines.session_settings"),
    )
    imports = "; ".join(f"import reelserve.server.{module}" for module in modules)
    check = (
        "import sys; sys.exit(bool({'torch', 'transformers', 'tritonclient'} & set(sys.modules)))"
    )

    assert (
        subprocess.run([sys.executable, "-c", f"{imports}; {check}"], check=False).returncode == 0
    )
