import json

import pytest

from reelserve.pipeline.checkpoint import FILE_NAME, CheckpointSpec
from tests.server.tiny_repository import SPEC


def test_checkpoint_spec_is_the_same_when_saved_and_loaded(tmp_path):
    SPEC.save(tmp_path)

    assert CheckpointSpec.load(tmp_path) == SPEC


def test_checkpoint_spec_names_the_field_when_one_is_missing(tmp_path):
    SPEC.save(tmp_path)
    raw = json.loads((tmp_path / FILE_NAME).read_text())
    del raw["limits"]["fps"]
    (tmp_path / FILE_NAME).write_text(json.dumps(raw))

    with pytest.raises(KeyError, match="fps"):
        CheckpointSpec.load(tmp_path)
