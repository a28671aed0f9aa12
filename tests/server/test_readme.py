"""The README's lines for a stock client draw a clip."""

import re
from pathlib import Path

import pytest

from tests.server.grpc_requests import generate

README = Path(__file__).parents[2] / "README.md"
PROGRAMS = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.server
def test_stock_client_of_the_readme_draws_a_clip(tiny_server, tmp_path, monkeypatch):
    programs = PROGRAMS.findall(README.read_text(encoding="utf-8"))
    (program,) = [text for text in programs if "tritonclient" in text]
    monkeypatch.chdir(tmp_path)

    exec(program.replace("localhost:8001", tiny_server.grpc_url), {})

    video = (tmp_path / "heart.mp4").read_bytes()
    prompt = "a small red heart bounces in the rain"
    assert video == generate(tiny_server, prompt=prompt, seed=7)[0]
