import numpy as np

from reelserve.server.board import Board, StepReport, board_folder, remove_board


def test_board_tells_how_far_a_clip_is(tmp_path):
    board = Board(tmp_path / "board")
    assert board.read("clip") is None

    board.report("clip", 3, 8)
    assert Board(tmp_path / "board").read("clip") == StepReport(3, 8)
    assert board.read("other") is None


def test_board_gives_a_preview_once(tmp_path):
    board = Board(tmp_path / "board")
    latents = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    board.leave_preview("clip", latents)

    np.testing.assert_array_equal(board.take_preview("clip"), latents)
    assert board.take_preview("clip") is None


def test_board_gives_a_preview_that_is_forgotten_meanwhile(tmp_path, monkeypatch):
    board, load = Board(tmp_path / "board"), np.load
    board.leave_preview("clip", np.zeros((1, 2, 2, 2), np.float32))

    def load_and_forget(path):
        latents = load(path)
        board.forget("clip")
        return latents

    monkeypatch.setattr(np, "load", load_and_forget)
    assert board.take_preview("clip") is not None


def test_board_keeps_a_cancellation_until_the_clip_is_forgotten(tmp_path):
    board = Board(tmp_path / "board")
    board.report("clip", 1, 8)
    board.cancel("clip")
    assert board.is_cancelled("clip") and not board.is_cancelled("other")

    board.forget("clip")
    assert not board.is_cancelled("clip") and board.read("clip") is None
    assert list((tmp_path / "board").iterdir()) == []


def test_remove_board_removes_it_and_does_nothing_again():
    board = Board.of_server(2**31 - 1)
    board.cancel("clip")
    assert board_folder(2**31 - 1).is_dir()
    for _ in range(2):
        remove_board(2**31 - 1)
    assert not board_folder(2**31 - 1).exists()
