"""Clips through nginx and HAProxy, with the configurations of `docs/serving.md`."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reelserve.client import AsyncClient, Client, NoServerError
from reelserve.tools.faults.relay import relay
from tests.server.bare import free_ports
from tests.server.frontend.callers import serving
from tests.server.frontend.fakes import VIDEO, asynchronous, until

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"
READ_TIMEOUT_S = 2
HELD_S = READ_TIMEOUT_S + 1.5
INFO = {
    **{"seed": 1, "num_inference_steps": 1, "guidance_scale": 1.0, "height": 8, "width": 8},
    **{"checkpoint": "c", "engine": "e", "versions": {}},
}


def block(language: str) -> str:
    """A configuration in the page."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


def nginx(folder: Path, port: int, server: int) -> list[str]:
    text = block("nginx").replace("8443", f"127.0.0.1:{port}").replace("8001", str(server))
    text = text.replace("location / {", f"location / {{ grpc_read_timeout {READ_TIMEOUT_S}s;")
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body;\n{text} }}\n"
    )
    return ["nginx", "-p", str(folder), "-e", str(folder / "log"), "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, port: int, server: int) -> list[str]:
    text = block("haproxy").replace("8444", str(port)).replace("8001", str(server))
    text = text.replace("timeout server 50s", f"timeout server {READ_TIMEOUT_S}s")
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-q", "-f", str(folder / "haproxy.cfg")]


@asynccontextmanager
async def behind(proxy, folder: Path, server: int):
    """The address of a proxy before a server."""
    if shutil.which(proxy.__name__) is None:
        pytest.skip(f"{proxy.__name__} is not installed")
    (port,) = free_ports(1)
    with subprocess.Popen(proxy(folder, port, server), stderr=subprocess.DEVNULL) as process:
        try:
            await until(lambda: listens(port) or process.poll() is not None)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("proxy", [nginx, haproxy])
@asynchronous
async def test_clips_outlast_the_read_timeout_of_a_proxy(tmp_path, proxy):
    async with serving(tmp_path) as caller, behind(proxy, tmp_path, caller.ports.grpc) as url:
        with Client(url) as client:
            async with AsyncClient(url) as async_client:
                drawn = (
                    asyncio.to_thread(client.generate, "a red star", seed=1),
                    async_client.generate("a red star", seed=2),
                )
                both = asyncio.gather(*drawn)
                await until(lambda: caller.rig.calls() == 2)
                await asyncio.sleep(HELD_S)
                for number in range(2):
                    caller.rig.upstream.draw(number, **INFO)
                assert [video.mp4 for video in await both] == [VIDEO, VIDEO]


@pytest.mark.parametrize("proxy", [nginx, haproxy])
@asynchronous
async def test_call_says_that_a_proxy_has_lost_the_server(tmp_path, proxy):
    async with serving(tmp_path) as caller:
        with relay(f"127.0.0.1:{caller.ports.grpc}") as link:
            async with behind(proxy, tmp_path, int(link.url.partition(":")[2])) as url:
                async with AsyncClient(url) as client:
                    stream = client.stream("a red star")
                    assert (await anext(stream)).kind == "waiting"
                    link.silence()
                    with pytest.raises(NoServerError, match="where a proxy is before the server"):
                        [event async for event in stream]
