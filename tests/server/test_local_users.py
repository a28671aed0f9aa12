"""A running server as another user of its machine sees it: nothing of it can be read or called."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from reelserve.pipeline.contract import PUBLIC_MODEL
from reelserve.server.launch.run_folder import SHARED_MEMORY
from reelserve.server.launch.stage_processes import instance_processes
from tests.server.grpc_requests import generate, infer_input

pytestmark = pytest.mark.server
NOBODY = 65534
ATTACK = """
import json, os, socket, sys

def tried(action, path):
    try:
        action(path)
    except OSError as error:
        return type(error).__name__
    return "done"

def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)

kinds = {
    "read": lambda path: open(path, "rb").close(),
    "write": lambda path: open(path, "r+b").close(),
    "trace": lambda path: open(path + "/mem", "rb").close(),
    **{"list": os.listdir, "enter": os.chdir, "remove": os.unlink, "connect": connect},
}
os.setgroups([])
os.setgid(user := int(sys.argv[1]))
os.setuid(user)
print(json.dumps([[kind, path, tried(kinds[kind], path)] for kind, path in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def folders(tiny_server):
    """The server's folder in shared memory, and its working folder."""
    token = tiny_server.running.region_prefix.split("_")[1]
    return SHARED_MEMORY / f"reelserve-{token}", Path(psutil.Process(tiny_server.triton_pid).cwd())


@pytest.fixture(scope="module")
def regions(tiny_server):
    """Its shared-memory regions, through which a prompt has passed."""
    generate(tiny_server, prompt="a red star", seed=1)
    found = list(SHARED_MEMORY.glob(f"{tiny_server.running.region_prefix}*"))
    assert len(found) == len(instance_processes(tiny_server.triton_pid))
    return found


def as_nobody(attempts):
    """What another user gets: kind, path, and how the attempt went."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    sent = json.dumps([[kind, str(path)] for kind, path in attempts])
    # It becomes the other user itself, who may not be able to run this Python.
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ATTACK, str(NOBODY)],
        input=sent,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=30,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_everything_of_the_server_is_private(folders, regions):
    """Shared memory has mode 0600 from its first moment, sockets and folders are the user's."""
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    inside = [path for path in folders[0].rglob("*") if not path.name.endswith(".log")]
    for path in (*regions, *inside, folders[1] / "triton.log"):
        assert path.stat().st_uid == os.geteuid()
        assert path.stat().st_mode & 0o077 == 0, path


def test_nothing_was_open_while_the_stages_started(tiny_server):
    """The front end closes open regions with a warning; there was none to close."""
    assert tiny_server.messages() == tiny_server.running.described()


def test_another_user_cannot_read_call_or_remove_anything(tiny_server, folders, regions):
    shared, working = folders
    sockets = [shared / "triton0" / name for name in ("grpc:1", "metrics")]
    assert all(path.is_socket() for path in sockets)
    pids = [tiny_server.pid, tiny_server.triton_pid]
    pids += instance_processes(tiny_server.triton_pid).values()
    attempts = [
        *((kind, region) for region in regions for kind in ("read", "write", "remove")),
        *((kind, folder) for folder in folders for kind in ("list", "enter")),
        *(("connect", path) for path in sockets),
        ("read", working / "triton.log"),
        *(("trace", f"/proc/{pid}") for pid in pids),
    ]

    results = as_nobody(attempts)

    assert len(results) == len(attempts)
    assert [result for result in results if result[2] != "PermissionError"] == []


def test_nothing_but_the_public_ports_listens_by_tcp(tiny_server):
    """What anybody may connect to: no Triton, no stage."""
    running = tiny_server.running
    front_end = psutil.Process(tiny_server.pid)
    listening = {
        (process.pid, connection.laddr.port)
        for process in (front_end, *front_end.children(recursive=True))
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    }
    ports = (running.grpc_port, running.http_port, running.metrics_port)
    assert listening == {(front_end.pid, port) for port in ports}


def test_triton_lets_nobody_in_without_the_secret(folders):
    """For whoever gets at the socket, as another container with the same user may."""
    with InferenceServerClient(f"unix:{folders[0]}/triton0/grpc:1") as client:
        assert client.is_server_live()
        for call in (
            lambda: client.infer(PUBLIC_MODEL, [infer_input("PROMPT", "a red star")]),
            lambda: client.infer("denoiser", []),
            lambda: client.get_inference_statistics(),
            lambda: client.unload_model("denoiser"),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.update_log_settings({"log_verbose_level": 9}),
            lambda: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
        ):
            with pytest.raises(InferenceServerException, match=r"restricted|missing"):
                call()
