"""What is done with a served repository so that its clips can be compared."""

from __future__ import annotations

from reelserve.tools.bench.tensorrt.serving import lossless

CONFIG = 'name: "video_encoder"\nparameters { key: "encoder_threads" value { string_value: "8" } }'


def test_clips_are_lossless_while_they_are_compared_and_configs_are_as_before_then(tmp_path):
    stage = tmp_path / "video_encoder"
    configs = [stage / "config.pbtxt", stage / "configs" / "tensorrt.pbtxt"]
    for path in configs:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONFIG)

    with lossless(tmp_path):
        inside = [path.read_text() for path in configs]

    assert all('key: "encoder_crf" value { string_value: "0" }' in text for text in inside)
    assert all(text.startswith(f"{CONFIG}\n") for text in inside)
    assert [path.read_text() for path in configs] == [CONFIG, CONFIG]
