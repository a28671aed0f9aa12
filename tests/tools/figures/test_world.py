import json
from pathlib import Path

from reelserve.tools.figures.world import evaluation_world

RESULTS = Path(__file__).parents[3] / "docs" / "results" / "evaluation_world.json"


def test_every_set_that_was_measured_has_its_row():
    results = json.loads(RESULTS.read_text())
    text = evaluation_world(results)
    for name in ("held_out", "languages", "hand_written"):
        assert f"{100 * results[name]['all_right']:.1f}%" in text
    assert str(results["hand_written"]["num_prompts"]) in text
    del results["languages"]
    assert "Portuguese" not in evaluation_world(results)
