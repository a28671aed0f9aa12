"""Writes the figures of docs/deploy.md: the image's, and what a clip needs of a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from reelserve.tools.figures.tables import Results, table, when

MB = 10**6
WAYS = {"container": "Container, read-only", "systemd": "systemd unit"}


def image(results: Results) -> str:
    """`image.json`: sizes, and how soon the server is there, back, and at its end."""
    request = results["request"]
    clip = f"{request['num_frames'] / request['fps']:g} s clip"
    titles = (
        "Server in",
        "Ready, s",
        f"First {clip}, s",
        "Ready after kill -9, s",
        f"{clip} after kill -9, s",
        "Stopped with a clip in every place, s",
        "Of them drawn",
    )
    rows = [(title, *_row(results[way])) for way, title in WAYS.items()]
    versions = results["versions"]
    names = ("podman", "runc", "crun", "systemd")
    tools = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    sizes = (
        f"The image has {results['image_bytes'] / MB:.0f} MB, of which "
        f"{results['base_bytes'] / MB:.0f} are Debian with Python"
    )
    # A run that took an image which was there does not know it.
    built = (
        f"; it was built from nothing in {results['build_s']:.0f} s" if "build_s" in results else ""
    )
    return (
        f"{table(titles, rows)}\n\n{sizes}{built}. Median and longest of "
        f"{len(results['container'])} rounds of each; seconds count from the command that starts, "
        f"kills or stops. Measured by `make bench-image` on {results['cpu']}, "
        f"{results['cores']} cores, {tools}, {when(results)}."
    )


DEPLOY_WRITERS = {"image": image}
"""Name of a results file, without its ending, to what writes its tables."""


def _row(rounds: Sequence[Results]) -> tuple[str, ...]:
    names = ("ready_s", "first_clip_s", "recovered_s", "clip_after_kill_s", "stopped_s")
    seconds = (sorted(one[name] for one in rounds) for name in names)
    drawn, of = (sum(one[name] for one in rounds) for name in ("drawn", "in_flight"))
    return (*(f"{one[len(one) // 2]:.1f}, {one[-1]:.1f}" for one in seconds), f"{drawn} of {of}")
