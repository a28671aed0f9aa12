"""Output of processes, read while they write and after they have died."""

import subprocess
import sys
import threading

import pytest

from reelserve.server.launch import process_output
from reelserve.server.launch.process_output import MAX_LINE_BYTES, ProcessOutput

WAIT_S = 30


def written(script, taken):
    """What a script writes, when it has ended."""
    output = ProcessOutput(taken.append)
    with output.writing() as descriptor:
        subprocess.run([sys.executable, "-c", script], stdout=descriptor, check=False)
    return output


def test_lines_are_taken_in_order_and_the_last_one_without_its_end():
    taken = []
    output = written("print('one\\n\\ntwo\\r'); print(end='three')", taken)
    output.wait_ended(WAIT_S)

    assert taken == ["one", "", "two", "three"]


def test_text_holds_the_last_words_of_a_process_that_crashes():
    script = "import os; os.write(1, b'dying words'); os.kill(os.getpid(), 9)"
    # Asked at once, as the supervisor does.
    assert written(script, []).text().endswith("dying words")


def test_text_is_the_end_of_a_long_output(monkeypatch):
    monkeypatch.setattr(process_output, "KEPT_BYTES", 100)
    taken = []
    output = written("for n in range(1000): print('line', n)", taken)
    output.wait_ended(WAIT_S)

    assert output.text().splitlines()[-1] == "line 999" and len(output.text()) <= 100
    assert len(taken) == 1000


def test_a_line_without_end_goes_on_in_lines_of_its_own():
    taken = []
    written(f"print('x' * {3 * MAX_LINE_BYTES + 5})", taken).wait_ended(WAIT_S)

    assert "".join(taken) == "x" * (3 * MAX_LINE_BYTES + 5)
    assert max(map(len, taken)) == MAX_LINE_BYTES


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\x00", "é".encode()[:1]])
def test_bytes_that_are_no_text_are_taken(raw):
    taken = []
    written(f"import os; os.write(1, {raw + b'!'!r})", taken).wait_ended(WAIT_S)

    assert len(taken) == 1 and taken[0].endswith("!")


def test_descriptors_are_closed_when_the_writers_have_ended():
    before = threading.active_count()
    output = written("print(1)", [])
    output.wait_ended(WAIT_S)

    assert threading.active_count() == before
