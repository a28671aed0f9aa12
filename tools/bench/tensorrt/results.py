"""Puts what the parts have measured together: the results file, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reelserve.tools.bench.gpu.bench_results import newest_origin
from reelserve.tools.bench.gpu.state import Result, State
from reelserve.tools.bench.tensorrt.models import MODELS
from reelserve.tools.bench.tensorrt.parts import CLIPS, STAGES, TENSORRT, Part
from reelserve.tools.bench.tensorrt.serving import LEAST_PSNR_DB, SEEDS

NO_VERSION = "none"
"""Version of a package that is not there."""
NOTHING_SERVED = {"psnr_db": None, "videos_per_s": None, "error": None}
FIGURES = (
    *("ms", "graph_ms", "max_error", "max_value", "relative_error"),
    *("plan_bytes", "build_s", "parameters", "shapes", "checked", "error"),
)
"""Figures of a stage; null where they are not known."""


def collect_parts(parts: Iterable[Part], state: State, how: Result) -> Result:
    """The results file, of all that has been measured so far.

    Args:
        parts: In the order of the file.
        state: Holds what was measured, and on what.
        how: The command.

    Raises:
        ValueError: If it was measured on more than one kind of GPU.
    """
    stages: list[Result] = []
    served: dict[str, Result] = {}
    for part in parts:
        found = state.find(part.model, part.phase)
        if found is None:
            continue
        if part.kind == STAGES:
            stages.append(_stage_row(part, found))
        else:
            row = served.setdefault(f"{part.engine} {part.precision}", dict(NOTHING_SERVED))
            row.update(found)
    return {
        "stages": stages,
        "served": served,
        "seeds": list(SEEDS),
        **how,
        **newest_origin(MODELS, state),
        **_of_all_parts([origin for model in MODELS for origin in state.origins(model)]),
    }


def _of_all_parts(origins: Sequence[Result]) -> Result:
    """Commits and versions that the parts were measured with.

    TensorRT 8.6 and the other engines do not fit into one Python, and each names what it has.
    """
    versions = [origin.get("versions", {}) for origin in origins]
    names = sorted({name for known in versions for name in known})
    return {
        "commit": _joined(origin["commit"] for origin in origins),
        "versions": {
            name: _joined(known.get(name, NO_VERSION) for known in versions) for name in names
        },
    }


def _joined(values: Iterable[str]) -> str:
    return " and ".join(sorted({*values} - {NO_VERSION})) or NO_VERSION


def _stage_row(part: Part, found: Result) -> Result:
    return {
        "model": part.model.name,
        "family": part.model.family,
        "weights": part.model.weights,
        "stage": part.stage,
        "engine": part.engine,
        "precision": part.precision,
        **{name: found.get(name) for name in FIGURES},
    }


def missing_parts(parts: Iterable[Part], state: State) -> list[str]:
    """Parts that are not measured yet."""
    return [part.title for part in parts if state.find(part.model, part.phase) is None]


def part_faults(parts: Iterable[Part], state: State) -> list[str]:
    """Parts that failed, and clips that are too far from those of the ONNX graphs."""
    found = []
    for part in parts:
        result = state.find(part.model, part.phase) or {}
        if "error" in result:
            found.append(f"{part.title}: {result['error']}")
        elif part.kind == CLIPS and part.engine == TENSORRT and result:
            limit = LEAST_PSNR_DB[part.precision]
            # Negated so that NaN fails too.
            if not result["psnr_db"] >= limit:
                found.append(
                    f"{part.title}: clips have {result['psnr_db']} dB against those of the ONNX "
                    f"graphs; the limit is {limit:g} dB"
                )
    return found
