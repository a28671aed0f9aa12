"""Clips at once against the same ones alone."""

import pytest

from reelserve.tools.faults import same_bytes as module
from reelserve.tools.faults.same_bytes import same_bytes


@pytest.mark.server
def test_same_bytes_finds_none_on_a_cpu(tiny_repository):
    fault = same_bytes(24).run(tiny_repository)

    assert fault.as_expected
    assert fault.seen == "0 of 24 differ; 24 different clips; engine onnxruntime"


@pytest.mark.server
def test_same_bytes_tells_a_clip_that_differs(tiny_repository, monkeypatch):
    usual = module.drawn

    def broken(client, clips, callers, options):
        found = usual(client, clips, callers, options)
        return ["other", *found[1:]] if callers > 1 else found

    monkeypatch.setattr(module, "drawn", broken)
    fault = same_bytes(4).run(tiny_repository)

    assert not fault.as_expected
    assert fault.seen.startswith("1 of 4 differ")
