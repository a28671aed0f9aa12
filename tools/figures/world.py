"""The table of `evaluation_world.json`: what the checkpoint in the making draws right."""

from __future__ import annotations

from reelserve.tools.figures.tables import Results, percent, table, when

_SETS = {
    "held_out": "One thing, combination never trained on",
    "held_out_two_objects": "Two things, both combinations never trained on",
    "held_out_three_objects": "Three things, all combinations never trained on",
    "held_out_styles": "Styles of sentences never trained on",
    "languages": "German, French, Spanish, Italian and Portuguese",
    "unknown_word": "One word that nobody knows",
    "hand_written": "Sentences written by hand",
}


def evaluation_world(results: Results) -> str:
    """Scores by set of sentences, and what reads them and bounds them."""
    rows = [
        (
            title,
            str(part["num_prompts"]),
            f"{percent(part['all_right'])} ({percent(low)} to {percent(high)})",
            ", ".join(f"{key} {percent(value)}" for key, value in part["per_attribute"].items()),
        )
        for name, title in _SETS.items()
        if (part := results.get(name))
        for low, high in [part["ci95"]]
    ]
    reader, vae, frames = (results[name] for name in ("recogniser", "autoencoder", "frames"))
    bounds = [
        ("Recogniser on real clips, worst attribute", percent(reader["real_accuracy"])),
        ("Recogniser on real clips, all right", percent(reader["real_all_right"])),
        ("All right on the autoencoder's reconstructions", percent(vae["recogniser_all_right"])),
        ("Autoencoder, PSNR", f"{vae['psnr_db']:.2f} dB"),
        ("First, middle and last frame show the same things", percent(frames["same_things"])),
        (
            "Flicker, over that of real clips",
            f"{frames['flicker'] / frames['flicker_of_renders']:.2f}",
        ),
    ]
    sampler = results["held_out"]
    return "\n\n".join(
        (
            table(
                ("Sentences", "Number", "All that is named right (95% interval)", "By kind"), rows
            ),
            table(("Figure", "Measured"), bounds),
            f"Measured by `python -m reelserve.training.evaluate` on {results['hardware']}, "
            f"{sampler['num_inference_steps']} steps, guidance {sampler['guidance_scale']:g}, "
            f"{when(results)}.",
        )
    )
