"""The programs of the README, and the one for a stock client, draw the clip that they ask for."""

import re
from pathlib import Path

import pytest

from tests.server.grpc_requests import generate

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/serving.md")
PROGRAMS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def programs() -> list[str]:
    return [text for page in PAGES for text in PROGRAMS.findall((ROOT / page).read_text("utf-8"))]


def test_pages_show_our_client_its_stream_and_a_stock_client():
    used = ("client.generate(", "client.stream(", "tritonclient")
    assert [sum(name in text for text in programs()) for name in used] == [1, 1, 1]


@pytest.mark.server
@pytest.mark.parametrize("program", programs(), ids=["generate", "stream", "stock"])
def test_program_of_a_page_draws_a_clip(program, tiny_server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    exec(program.replace("localhost:8001", tiny_server.grpc_url), {})

    video = (tmp_path / "heart.mp4").read_bytes()
    prompt = "a small red heart bounces in the rain"
    assert video == generate(tiny_server, prompt=prompt, seed=7)[0]
