from pathlib import Path

import pytest

from reelserve.export import fingerprints
from reelserve.export.stages import StageSource

ROOT = Path(__file__).parents[2]
SHAPING = ("kernels", "models", "export/engines", "export/families")


def print_of(stage: str = "denoiser") -> str:
    return fingerprints.stage_fingerprint(stage, StageSource(files=(), settings=""), {})


@pytest.mark.parametrize("folder", SHAPING)
def test_code_that_shapes_a_graph_counts(folder):
    counted = {path.resolve() for path in fingerprints.code_files()}
    assert set((ROOT / folder).glob("*.py")) <= counted


def test_fingerprint_changes_with_a_kernel(monkeypatch):
    before = print_of()
    real = fingerprints.file_sha256
    monkeypatch.setattr(
        fingerprints, "file_sha256", lambda path: real(path) + "x" * ("_parts" in path.name)
    )
    fingerprints._content.cache_clear()
    changed = print_of()
    fingerprints._content.cache_clear()
    assert changed != before


def test_fingerprint_changes_with_the_library_that_a_stage_is_made_of(monkeypatch):
    source = StageSource(files=(), library="diffusers")
    before = fingerprints.stage_fingerprint("denoiser", source, {})
    monkeypatch.setattr(fingerprints.metadata, "version", lambda name: f"newer {name}")

    assert fingerprints.stage_fingerprint("denoiser", source, {}) != before


def test_the_contract_counts():
    assert any(path.name == "contract.py" for path in fingerprints.code_files())
