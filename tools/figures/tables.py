"""Writes measured figures as Markdown: one function for each file of docs/results/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]
COMMIT_DIGITS = 10


def bench_cpu(results: Results) -> str:
    """`bench_cpu.json`: figures of the server, then seconds of every stage."""
    request = results["request"]
    clip = (
        f"{request['num_frames'] / request['fps']:g} s clip, "
        f"{request['width']}×{request['height']}, {request['num_inference_steps']} steps"
    )
    figures = [
        (f"Seconds for a {clip}", f"{results['seconds_per_clip']:.2f}"),
        ("Videos per second, one request at a time", f"{results['videos_per_s']:.3f}"),
        ("Videos per second, four requests at a time", f"{results['videos_per_s_at_4']:.3f}"),
        ("Seconds from start to ready", f"{results['ready_s']:.1f}"),
        (
            "Peak memory of all server processes, GiB",
            f"{results['peak_memory_bytes'] / 2**30:.2f}",
        ),
    ]
    stages = [(f"`{stage}`", f"{value:.3f}") for stage, value in results["stages_s"].items()]
    return "\n\n".join(
        (
            table(("Figure", "Measured"), figures),
            table(("Stage", "Seconds of that clip"), stages),
            f"Measured by `make bench-cpu` on {results['cpu']}, {results['cores']} cores, "
            f"{when(results)}.",
        )
    )


def loadtest_cpu(results: Results) -> str:
    """`loadtest_cpu.json`: the sweep, the verdict and the plot, for a page in docs/."""
    normalised, request = results["normalised_to"], results["request"]
    rows = [
        (
            f"{row['concurrency']:g}" + ", the knee" * (row["concurrency"] == _knee(results)),
            f"{row['videos_per_s']:.3f}",
            *(f"{row[name]:.1f}" for name in ("p50_s", "p95_s", "p99_s")),
            str(row["clips"]),
            f"{row['littles_law_ratio']:.2f}",
        )
        for row in results["sweep"]
    ]
    titles = (
        "Requests at once",
        f"Videos per second per {normalised['per']}",
        "p50, s",
        "p95, s",
        "p99, s",
        "Clips",
        "Little's law (1)",
    )
    findings = " ".join(finding["sentence"] for finding in results["findings"])
    return "\n\n".join(
        (
            table(titles, rows),
            f"Verdict: **{results['verdict']}**. {findings} {' '.join(results['reached'])}",
            "![Throughput and latency against requests at once](images/loadtest_cpu.png)",
            f"Measured by `make loadtest` on {results['hardware']}: "
            f"{request['num_frames'] / request['fps']:g} s clips, "
            f"{request['width']}×{request['height']}, {request['num_inference_steps']} steps, "
            f"closed loop, figures per {normalised['clip_s']:g} s of video; {when(results)}.",
        )
    )


def _knee(results: Results) -> float | None:
    knee = results["knee"]
    return float(knee["concurrency"]) if knee["saturated"] else None


def evaluation(results: Results) -> str:
    """`evaluation.json`: how much of what was asked for the clips show."""
    rows = []
    for name, title in (
        ("held_out", "One object, combination never trained on"),
        ("held_out_two_objects", "Two objects, both combinations never trained on"),
    ):
        part = results[name]
        low, high = part["ci95"]
        rows.append(
            (
                title,
                str(part["num_prompts"]),
                _sampler(part),
                f"{percent(part['all_right'])} ({percent(low)} to {percent(high)})",
                ", ".join(f"{key} {percent(v)}" for key, v in part["per_attribute"].items()),
            )
        )
    vae, consistency = results["autoencoder"], results["frame_consistency"]
    figures = [
        (
            "Recogniser on real clips, worst attribute",
            percent(results["recogniser"]["real_accuracy"]),
        ),
        ("All right on the autoencoder's reconstructions", percent(vae["recogniser_all_right"])),
        ("Autoencoder, PSNR", f"{vae['psnr_db']:.2f} dB"),
        ("Autoencoder, PSNR of the first frame", f"{vae['first_frame_psnr_db']:.2f} dB"),
        ("Autoencoder, PSNR of the other frames", f"{vae['rest_psnr_db']:.2f} dB"),
        ("Flicker energy removed", percent(consistency["flicker_reduction"])),
        ("Its PSNR change, disturbed clips", f"{consistency['psnr_change_db']:+.2f} dB"),
        (
            "Its PSNR change, undisturbed clips",
            f"{consistency['undisturbed_psnr_change_db']:+.2f} dB",
        ),
    ]
    titles = (
        "Prompts",
        "Number",
        "Steps, guidance, shift",
        "Every named attribute right (95% interval)",
        "By kind",
    )
    return "\n\n".join(
        (
            table(titles, rows),
            table(("Figure", "Measured"), figures),
            f"Measured by `python -m reelserve.training.evaluate` on {results['hardware']}, "
            f"{when(results)}; flicker by `python -m reelserve.training.measure_consistency` on "
            f"{consistency['hardware']}, {consistency['num_clips']} clips, {when(consistency)}.",
        )
    )


def parity(results: Results) -> str:
    """`parity.json`: exported graphs against torch, stage by stage, and the finished frames."""
    rows = [
        (f"`{stage}`", f"{part['max_abs_error']:.2g}", f"{part['max_abs_value']:.3g}")
        for stage, part in results["stages"].items()
    ]
    return "\n\n".join(
        (
            table(("Stage", "Largest error", "Largest value"), rows),
            f"Finished frames: {results['frames_psnr_db']:.1f} dB PSNR against torch.",
            "Measured by `reelserve export --force --parity-report docs/results/parity.json` on "
            f"{results['cpu']}, {when(results)}.",
        )
    )


def serving(results: Results) -> str:
    """`serving.json`: cancels, refusals, progress of a stream, short clips together."""
    short, stream, request = results["short_clips"], results["stream"], results["request"]
    clips = f"Clips of {short['num_frames']} frames and {short['num_inference_steps']} steps"
    figures = [
        (
            f"Milliseconds until `{one['model']}` refuses, median and longest of {one['refusals']}",
            f"{1e3 * one['median_s']:.1f}, {1e3 * one['max_s']:.1f}",
        )
        for one in results["refusals"]
    ]
    # Older files do not have it.
    figures += [
        (f"99th percentile until `{one['model']}` refuses, ms", f"{1e3 * one['p99_s']:.1f}")
        for one in results["refusals"]
        if "p99_s" in one
    ]
    figures += [
        (
            f"Seconds to the first event, {request['num_frames'] / request['fps']:g} s clip",
            f"{stream['first_event_s']:.2f}",
        ),
        ("Longest silence of that stream, seconds", f"{stream['longest_silence_s']:.2f}"),
        (f"{clips} per second, one at a time", f"{short['videos_per_s']:.3f}"),
        (f"{clips} per second, four at a time", f"{short['videos_per_s_at_4']:.3f}"),
    ]
    return "\n\n".join(
        (
            _cancels(results),
            table(("Figure", "Measured"), figures),
            f"Measured by `make bench-serving` on {results['cpu']}, {results['cores']} cores, "
            f"{when(results)}.",
        )
    )


def _cancels(results: Results) -> str:
    titles = (
        "Left by",
        "Seconds: median, longest",
        "Step: median, longest",
        "Most over its step",
        "Within step + 0.1 s",
    )
    rows = [
        (
            f"`{one['model']}`, {one['how']}",
            f"{one['median_s']:.3f}, {one['max_s']:.3f}",
            f"{one['step_median_s']:.3f}, {one['step_max_s']:.3f}",
            f"{one['max_over_step_s']:+.3f}",
            f"{one['within_bound']} of {len(one['runs_s'])}",
        )
        for one in results["cancels"]
    ]
    return (
        f"{table(titles, rows)}\n\n"
        "Seconds from the moment the client left, at a random point of the denoising, until the "
        "metrics show its place and its part of the batch free, read every "
        f"{1e3 * results['poll_s']:.0f} ms; the step is the one that the clip was left in."
    )


def faults(results: Sequence[Results]) -> str:
    """`faults.json`: what was broken, what callers saw, where that was."""
    rows = [
        (
            row["fault"],
            row["expected"],
            row["seen"],
            "–" if row["recovered_s"] is None else f"{row['recovered_s']:.1f}",
            str(row["lost"]),
            "yes" if row["as_expected"] else "**no**",
        )
        for row in results
    ]
    titles = ("Broken", "Expected", "Seen", "Recovered, s", "Lost", "As expected")
    places = {f"{row['cpu']}, {row['cores']} cores, {when(row)}" for row in results}
    return f"{table(titles, rows)}\n\nMeasured by `make faults` on {'; '.join(sorted(places))}."


WRITERS: dict[str, Callable[[Any], str]] = {
    "bench_cpu": bench_cpu,
    "evaluation": evaluation,
    "faults": faults,
    "loadtest_cpu": loadtest_cpu,
    "parity": parity,
    "serving": serving,
    # By the last commit whose stages were led from inside Triton, on the same machine and day.
    "serving_before": serving,
}
"""Name of a results file, without its ending, to what writes its tables."""


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _sampler(part: Results) -> str:
    return f"{part['num_inference_steps']}, {part['guidance_scale']:g}, {part['shift']:g}"


def percent(share: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def when(results: Results) -> str:
    """Commit and date of a results file."""
    return f"commit {short_commit(results['commit'])}, {results['date']}"


def short_commit(commit: str) -> str:
    """The first digits of a commit's hash, and whether its tree had changes."""
    name, dirty, _ = commit.partition("-")
    return f"{name[:COMMIT_DIGITS]}{dirty and '-dirty'}"
