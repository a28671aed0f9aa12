from __future__ import annotations

import copy
import json

import pytest

from reelserve.client.cli import FAILURE, OK
from reelserve.tools.figures import command as docs_command
from reelserve.tools.figures.tables import bench_cpu, evaluation, faults, parity, serving

BENCH = {
    "seconds_per_clip": 9.876,
    "videos_per_s": 0.1013,
    "videos_per_s_at_4": 0.1201,
    "stages_s": {"denoiser": 6.5, "upsampler": 1.25},
    "ready_s": 3.21,
    "peak_memory_bytes": 3 * 2**30,
    "request": {
        "num_frames": 80,
        "fps": 8,
        "height": 256,
        "width": 256,
        "num_inference_steps": 8,
    },
    "commit": "0123456789abcdef",
    "cpu": "Some CPU",
    "cores": 2,
    "date": "2026-11-23",
}
PART = {
    "num_prompts": 500,
    "num_inference_steps": 8,
    "guidance_scale": 2.5,
    "shift": 5.0,
    "all_right": 0.962,
    "ci95": [0.941, 0.977],
    "per_attribute": {"shape": 0.99, "colour": 1.0},
}
EVALUATION = {
    "held_out": PART,
    "held_out_two_objects": {**PART, "all_right": 0.87},
    "recogniser": {"real_accuracy": 0.995},
    "autoencoder": {
        "psnr_db": 36.5,
        "first_frame_psnr_db": 36.6,
        "rest_psnr_db": 36.4,
        "recogniser_all_right": 0.98,
    },
    "frame_consistency": {
        "flicker_reduction": 0.6,
        "psnr_change_db": 0.4,
        "undisturbed_psnr_change_db": -0.1,
        "num_clips": 32,
        "hardware": "Some CPU",
        "commit": "fedcba9876543210",
        "date": "2026-11-22",
    },
    "hardware": "Some GPU",
    "commit": "unknown",
    "date": "2026-11-23",
}
PARITY = {
    "frames_psnr_db": 79.56,
    "stages": {"denoiser": {"max_abs_error": 4.5e-06, "max_abs_value": 5.358}},
    "commit": "0123456789abcdef",
    "cpu": "Some CPU",
    "date": "2026-11-23",
}
SERVING = {
    "cancels": [
        {
            "model": "text_to_video",
            "how": "client killed",
            "runs_s": [0.3, 0.5],
            "median_s": 0.4,
            "max_s": 0.5,
            "step_median_s": 0.52,
            "step_max_s": 0.55,
            "max_over_step_s": -0.02,
            "within_bound": 2,
        }
    ],
    "poll_s": 0.0041,
    "refusals": [
        {
            "model": "text_to_video",
            "refusals": 50,
            "median_s": 0.0042,
            "p99_s": 0.0111,
            "max_s": 0.0123,
        },
    ],
    "short_clips": {
        "num_frames": 16,
        "num_inference_steps": 4,
        "videos_per_s": 0.5,
        "videos_per_s_at_4": 0.61,
    },
    "stream": {"first_event_s": 0.06, "longest_silence_s": 1.04},
    "request": BENCH["request"],
    "commit": "0123456789abcdef",
    "cpu": "Some CPU",
    "cores": 2,
    "date": "2026-11-23",
}
PAGE = "before\n<!-- figures: {name} -->\nold\n<!-- end of figures -->\nafter\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(PAGE.format(name="bench_cpu"))
    (tmp_path / "docs" / "quality.md").write_text(PAGE.format(name="evaluation"))
    return tmp_path


def test_docs_says_not_measured_when_a_results_file_is_missing(root):
    assert docs_command.run(["--root", str(root)]) == OK
    assert "old" not in (root / "README.md").read_text()
    assert docs_command.NOT_MEASURED in (root / "README.md").read_text()


def test_docs_fills_every_page_and_is_stable(root):
    (root / "docs" / "results" / "bench_cpu.json").write_text(json.dumps(BENCH))
    (root / "docs" / "results" / "evaluation.json").write_text(json.dumps(EVALUATION))
    assert docs_command.run(["--root", str(root)]) == OK
    readme = (root / "README.md").read_text()
    assert readme.startswith("before\n<!-- figures: bench_cpu -->\n| Figure")
    assert readme.endswith("<!-- end of figures -->\nafter\n")
    assert "| 9.88 |" in readme
    assert "87.0% (94.1% to 97.7%)" in (root / "docs" / "quality.md").read_text()
    assert docs_command.fill_pages(root, write=False) == []


def test_docs_check_fails_and_writes_nothing_when_a_figure_changed(root):
    file = root / "docs" / "results" / "bench_cpu.json"
    file.write_text(json.dumps(BENCH))
    docs_command.run(["--root", str(root)])
    written = (root / "README.md").read_text()
    changed = copy.deepcopy(BENCH)
    changed["seconds_per_clip"] = 11.0
    file.write_text(json.dumps(changed))
    assert docs_command.run(["--root", str(root), "--check"]) == FAILURE
    assert (root / "README.md").read_text() == written


def test_docs_fails_when_no_table_has_that_name(root, capsys):
    (root / "README.md").write_text(PAGE.format(name="bench_tpu"))
    assert docs_command.run(["--root", str(root)]) == FAILURE
    assert "'bench_tpu'" in capsys.readouterr().err


def test_tables_have_as_many_cells_in_every_row():
    for text in (bench_cpu(BENCH), evaluation(EVALUATION), parity(PARITY), serving(SERVING)):
        for table in text.split("\n\n"):
            rows = [line for line in table.splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1


def test_bench_cpu_names_machine_commit_and_date():
    assert "Some CPU, 2 cores, commit 0123456789, 2026-11-23" in bench_cpu(BENCH)


def test_serving_gives_every_cancel_and_refusal():
    text = serving(SERVING)
    assert (
        "| `text_to_video`, client killed | 0.400, 0.500 | 0.520, 0.550 | -0.020 | 2 of 2 |" in text
    )
    assert "read every 4 ms" in text
    assert "median and longest of 50 | 4.2, 12.3 |" in text
    assert "99th percentile until `text_to_video` refuses, ms | 11.1 |" in text


def test_parity_gives_error_and_size_of_every_stage():
    text = parity(PARITY)
    assert "| `denoiser` | 4.5e-06 | 5.36 |" in text
    assert "79.6 dB" in text


def test_evaluation_says_where_each_of_its_two_commands_ran():
    text = evaluation(EVALUATION)
    assert "evaluate` on Some GPU, commit unknown, 2026-11-23" in text
    assert "measure_consistency` on Some CPU, 32 clips, commit fedcba9876, 2026-11-22" in text


def test_faults_tells_what_was_seen_and_what_was_not_as_expected():
    row = {
        "fault": "kill -9 of denoiser",
        "expected": "errors",
        "seen": "4 × InternalError",
        "recovered_s": 4.26,
        "lost": 0,
        "as_expected": True,
        **{name: BENCH[name] for name in ("commit", "cpu", "cores", "date")},
    }
    end = {**row, "fault": "end", "recovered_s": None, "as_expected": False}
    text = faults([row, end])
    assert "| kill -9 of denoiser | errors | 4 × InternalError | 4.3 | 0 | yes |" in text
    assert "| end | errors | 4 × InternalError | – | 0 | **no** |" in text
    assert text.endswith(
        "Measured by `make faults` on Some CPU, 2 cores, commit 0123456789, 2026-11-23."
    )
