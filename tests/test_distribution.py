from pathlib import Path

import pytest

from tests.distribution import slow_first

pytest_plugins = ["pytester"]

TESTS = """
import pytest

@pytest.fixture(scope="module")
def server():
    return 1

@pytest.fixture(scope="session")
def export():
    return 2

def test_a(server): ...
def test_b(server, export): ...
def test_c(export): ...
def test_d(tmp_path): ...
@pytest.mark.xdist_group("own")
def test_e(server): ...
"""


CONFTEST = """
import pytest
from tests.distribution import group

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    group(items)
"""


@pytest.fixture
def folder(pytester):
    pytester.mkdir("tests")
    pytester.path.joinpath("tests", "test_some.py").write_text(TESTS)
    pytester.makeconftest(CONFTEST)
    return pytester


def test_tests_that_share_what_is_made_once_are_one_group(folder):
    items, _ = folder.inline_genitems("tests/test_some.py")
    marks = [item.get_closest_marker("xdist_group") for item in items]
    names = [mark and mark.args[0] for mark in marks]
    assert names[0] is not None
    assert names[:3] == [names[0]] * 3
    assert names[3:] == [None, "own"]


def test_slow_tests_begin(pytester):
    pytester.makeini("[pytest]\nmarkers = compile\n    server")
    items, _ = pytester.inline_genitems(
        pytester.makepyfile("""
import pytest

def test_a(): ...
@pytest.mark.server
def test_b(): ...
def test_c(): ...
@pytest.mark.server
@pytest.mark.compile
def test_d(): ...
""")
    )
    slow_first(items)
    assert [item.name for item in items] == ["test_d", "test_b", "test_a", "test_c"]


def test_groups_reach_the_workers(folder):
    """A pytest that xdist does not know lets every test go where a worker is free."""
    root = Path(__file__).parents[1]
    result = folder.runpytest_subprocess(
        *("-n", "2", "--dist", "loadgroup", "-v", "-o", f"pythonpath={root}")
    )
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*PASSED*test_some.py::test_e@own*"])
