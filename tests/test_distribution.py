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


def test_tests_that_share_what_is_made_once_are_one_group(pytester):
    pytester.mkdir("tests")
    pytester.path.joinpath("tests", "test_some.py").write_text(TESTS)
    pytester.makeconftest(
        "from tests.distribution import group\n\n"
        "def pytest_collection_modifyitems(items):\n    group(items)\n"
    )
    items, _ = pytester.inline_genitems("tests/test_some.py")
    marks = [item.get_closest_marker("xdist_group") for item in items]
    names = [mark and mark.args[0] for mark in marks]
    assert names[0] is not None
    assert names[:3] == [names[0]] * 3
    assert names[3:] == [None, "own"]
