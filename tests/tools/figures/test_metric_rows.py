from reelserve.tools.figures.metric_rows import metric_rows


def test_metric_rows_tell_labels_with_their_values_and_kinds():
    text = metric_rows()
    assert "| `reelserve_shared_answers_total` | `how` (joined, cached) | Requests" in text
    assert "| `reelserve_stage_seconds` | `stage` | Histogram: seconds of a stage" in text
    assert "| `reelserve_videos_total` | | Clips produced |" in text.splitlines()
