import pytest

from reelserve.server.frontend.api_keys import ApiKeys, KeyHolder
from reelserve.server.launch.key_command import run


def test_key_prints_a_line_that_lets_the_key_in(tmp_path, capsys):
    lines, keys = "", {}
    for name, options in (("studio", []), ("lab-2", ["--max-in-flight=1000000"])):
        assert run([name, *options]) == 0
        told = capsys.readouterr()
        words, keys[name] = told.err.splitlines()
        assert words == f"the key of {name}, which is shown only now:"
        assert told.out.count("\n") == 1 and keys[name] not in told.out
        lines += told.out

    (tmp_path / "keys").write_text(lines)
    known = ApiKeys(tmp_path / "keys")
    assert known.caller(keys["studio"]) == KeyHolder("studio", 4)
    assert known.caller(keys["lab-2"]) == KeyHolder("lab-2", 1_000_000)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["my studio"], "NAME must be 1 to 64 letters, digits"),
        ([""], "NAME must be"),
        (["a", "--max-in-flight=0"], "LIMIT must be a number of clips in flight from 1 to 1000000"),
        (["a", "--max-in-flight=1.5"], "it is '1.5'"),
    ],
)
def test_key_refuses_what_no_file_can_hold(capsys, arguments, words):
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    assert stopped.value.code == 2 and words in capsys.readouterr().err
