"""`reelserve capabilities`: what a server draws, for people and as JSON."""

from __future__ import annotations

import json

import pytest

from reelserve.client import capabilities_command as command
from reelserve.client.cli import FAILURE, OK
from reelserve.pipeline.contract import CAPABILITIES
from tests.client.test_capabilities import TOLD

WORDS = {"things": ["rabbit", "star [1]"], "weathers": ["fog"]}


@pytest.fixture
def show(fake_triton, monkeypatch, capsys):
    """Runs the command against the fake; gives its exit status and what it printed."""
    monkeypatch.setenv("REELSERVE_SERVER", fake_triton.url)

    def run(*arguments: str, **told: object) -> tuple[int, str]:
        fake_triton.config_parameters = {CAPABILITIES: json.dumps({**TOLD, **told})}
        return command.run(list(arguments)), capsys.readouterr().out

    return run


def test_capabilities_show_words_limits_and_defaults(show):
    status, shown = show(vocabulary=WORDS)
    assert status == OK
    assert "checkpoint bundled, engine onnxruntime" in shown
    assert "things (2): rabbit, star [1]\n" in shown and "weathers (1): fog\n" in shown
    assert "Other words" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["guidance_scale", "1", "to", "20", "2.5"] in rows
    assert "num_frames 1 to 9, multiples of 2 and 1 4" in [" ".join(row) for row in rows]
    assert "up to 100 characters and 16 tokens" in shown


def test_capabilities_promise_no_words_where_the_checkpoint_lists_none(show):
    status, shown = show()
    assert status == OK and "Other words" not in shown


def test_capabilities_are_json_for_programs(show):
    status, shown = show("--json", vocabulary=WORDS)
    assert status == OK
    assert json.loads(shown) == {**TOLD, "vocabulary": WORDS}


def test_capabilities_fail_where_no_server_is(monkeypatch, capsys):
    assert command.run(["--server", "127.0.0.1:9"]) == FAILURE
    assert "reelserve capabilities: " in capsys.readouterr().err
