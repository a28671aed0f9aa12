import os

import numpy as np

from reelserve.server.answers import Answers, fingerprint

REQUEST = {"PROMPT": np.array([b"a star"], object), "SEED": np.array([1])}
CLIP = {"VIDEO": np.array([b"mp4\x00"], object), "INFO": np.array([b"{}"], object)}


def test_fingerprint_differs_where_the_clip_would():
    own = fingerprint(REQUEST)

    assert own == fingerprint({**REQUEST, "PRIORITY": np.array([b"batch"], object)})
    assert own != fingerprint({**REQUEST, "SEED": np.array([2])})
    assert own != fingerprint({**REQUEST, "FPS": np.array([8])})
    assert fingerprint({"PROMPT": REQUEST["PROMPT"]}) is None


def test_answers_are_given_again_for_a_while(tmp_path):
    answers = Answers(tmp_path, 60)
    key = answers.key(REQUEST)
    assert answers.find(key) is None
    answers.keep(key, CLIP)

    found = Answers(tmp_path, 60).find(key)
    assert {name: array[0] for name, array in found.items()} == {"VIDEO": b"mp4\x00", "INFO": b"{}"}
    os.utime(next(tmp_path.glob("answer.*")), (0, 0))
    assert answers.find(key) is None


def test_answers_are_not_kept_when_the_window_is_zero(tmp_path):
    answers = Answers(tmp_path, 0)
    answers.keep(answers.key(REQUEST), CLIP)

    assert list(tmp_path.iterdir()) == []
    assert answers.claim(None) and answers.find(None) is None


def test_claim_is_one_requests_until_it_is_taken_back_or_its_process_died(tmp_path):
    answers = Answers(tmp_path, 60)
    assert answers.claim("clip") and not answers.claim("clip")
    answers.drawn("clip")
    assert answers.claim("clip")

    (tmp_path / "drawing.clip").write_text(str(2**31 - 1))
    assert not answers.claim("clip"), "the look that finds it dead frees it"
    assert answers.claim("clip")
