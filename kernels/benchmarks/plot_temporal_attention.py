"""Draws a CSV of `bench_temporal_attention` as a PNG beside it. Needs matplotlib."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from reelserve.pipeline.atomic_file import replaced_file


def draw_shares(path: Path) -> Path:
    """Draws the share of copy bandwidth of every row and provider.

    Args:
        path: The CSV.

    Returns:
        The PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = list(dict.fromkeys(_label(row) for row in rows))
    providers = list(dict.fromkeys(row["provider"] for row in rows))
    height = 0.8 / len(providers)
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.5 * len(labels)), layout="constrained")
    for index, provider in enumerate(providers):
        shares = {_label(r): float(r["share_of_copy"]) for r in rows if r["provider"] == provider}
        places = [labels.index(label) + index * height for label in shares]
        axes.barh(places, list(shares.values()), height, label=provider)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(labels))], labels)
    axes.set_ylim(len(labels) - height / 2, -height)
    axes.axvline(0.9, color="black", linewidth=0.8, linestyle=":")
    axes.set_xlabel("share of copy bandwidth (dotted: 0.9)")
    axes.set_title(f"Temporal attention, {rows[0]['gpu']}")
    figure.legend(loc="outside lower center", ncols=len(providers))
    image = path.with_suffix(".png")
    with replaced_file(image) as partial:
        figure.savefig(partial, dpi=120)
    pyplot.close(figure)
    return image


def _label(row: dict[str, str]) -> str:
    fused = ", norm + RoPE" if row["qk_norm"] == "True" else ""
    return f"B{row['B']} F{row['F']} S{row['S']} N{row['N']} D{row['D']} {row['dtype']}{fused}"


def main() -> None:
    """Draws the file named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    draw_shares(parser.parse_args().csv)


if __name__ == "__main__":
    main()
