"""Scheduler configs: every class and setting is honoured or refused by name."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from reelserve.export.families.layout import Checkpoint
from reelserve.export.families.schedulers import SCHEDULERS, scheduler_spec
from reelserve.pipeline.checkpoint_files import CheckpointFileError
from reelserve.pipeline.ddim import DDIMSpec
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec

DDIM, FLOW_MATCH = "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"
OTHERS = (
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
    "LCMScheduler",
    "UniPCMultistepScheduler",
    "CogVideoXDDIMScheduler",
    "NoSuchScheduler",
)
REFUSED = {
    FLOW_MATCH: {
        "shift": [None, 0, -1.0, "5.0", True, 10**400],
        "num_train_timesteps": [0, 1000.0, None, 10**9],
        "use_dynamic_shifting": [None, 1, "false"],
        "invert_sigmas": [True, 1, None],
        "use_karras_sigmas": [True],
        "use_exponential_sigmas": [True],
        "use_beta_sigmas": [True],
        "stochastic_sampling": [True],
        "shift_terminal": [0, 1.0, "0.1"],
        "sigma_min": [0.002, None],
        "flow_shift": [3.0],
        "solver_order": [2],
    },
    DDIM: {
        "clip_sample": [True, None],
        "thresholding": [True],
        "rescale_betas_zero_snr": [True],
        "trained_betas": [[0.1, 0.2], []],
        "beta_schedule": ["squaredcos_cap_v2", None],
        "prediction_type": ["flow_prediction", None],
        "timestep_spacing": ["karras"],
        "beta_start": [0, None, "0.1"],
        "beta_end": [1.5],
        "num_train_timesteps": [0, "1000"],
        "steps_offset": [-1, 0.5, None],
        "set_alpha_to_one": [None, 0],
        "use_karras_sigmas": [False],
        "algorithm_type": ["dpmsolver++"],
    },
}
DYNAMIC = {
    "base_shift": None,
    "max_shift": "1.15",
    "base_image_seq_len": 0,
    "max_image_seq_len": 256,
    "time_shift_type": "linear",
}


@pytest.fixture
def saved(tmp_path: Path):
    """Writes a scheduler's config and index; gives the checkpoint."""

    def write(class_name: str, index: object = None, **settings: object) -> Checkpoint:
        (tmp_path / "scheduler").mkdir(exist_ok=True)
        base = {"clip_sample": False} if class_name == DDIM else {}
        config = {"_class_name": class_name, "_diffusers_version": "0", **base, **settings}
        (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        found = {"_class_name": "P", "scheduler": index or ["diffusers", class_name]}
        (tmp_path / "model_index.json").write_text(json.dumps(found))
        return Checkpoint.open(tmp_path)

    return write


@pytest.mark.parametrize("class_name", SCHEDULERS)
def test_settings_and_defaults_are_those_of_diffusers(class_name):
    diffusers = pytest.importorskip("diffusers", reason="needs reelserve[families]")
    parameters = inspect.signature(getattr(diffusers, class_name).__init__).parameters
    theirs = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    row = SCHEDULERS[class_name]
    assert {name: setting.default for name, setting in row.settings.items()} == theirs
    assert not theirs.keys() & set(row.leftovers)


def test_defaults_are_honoured(saved):
    assert scheduler_spec(saved(FLOW_MATCH), FLOW_MATCH) == FlowMatchSpec()
    assert scheduler_spec(saved(DDIM), DDIM) == DDIMSpec()


def test_settings_of_flow_matching_are_honoured(saved):
    dynamic = {"base_image_seq_len": 1024, "max_image_seq_len": 4096, "base_shift": 0.95}
    checkpoint = saved(
        FLOW_MATCH,
        use_dynamic_shifting=True,
        max_shift=2.05,
        shift=3,
        shift_terminal=0.1,
        num_train_timesteps=500,
        **dynamic,
    )
    spec = FlowMatchSpec(3.0, DynamicShift(1024, 4096, 0.95, 2.05), 0.1, 500)
    assert scheduler_spec(checkpoint, FLOW_MATCH) == spec


def test_settings_of_ddim_are_honoured(saved):
    settings = {
        "num_train_timesteps": 500,
        "beta_start": 0.001,
        "beta_end": 0.03,
        "beta_schedule": "scaled_linear",
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    leftovers = {"variance_type": "learned_range", "skip_prk_steps": True}
    assert scheduler_spec(saved(DDIM, **settings, **leftovers), DDIM) == DDIMSpec(**settings)


@pytest.mark.parametrize(
    ("class_name", "name", "value"),
    [
        (class_name, name, value)
        for class_name, settings in REFUSED.items()
        for name, values in settings.items()
        for value in values
    ],
    ids=lambda value: str(value)[:20],
)
def test_setting_is_refused_with_its_value(saved, class_name, name, value):
    checkpoint = saved(class_name, **{name: value})
    with pytest.raises(CheckpointFileError) as refused:
        scheduler_spec(checkpoint, class_name)
    said = str(refused.value)
    assert f"scheduler_config.json: {name} is {value!r}; " in said
    assert "it must be " in said or f"{class_name} has no such setting" in said


@pytest.mark.parametrize(("name", "value"), DYNAMIC.items())
def test_setting_counts_only_where_its_switch_is_on(saved, name, value):
    assert scheduler_spec(saved(FLOW_MATCH, **{name: value}), FLOW_MATCH) == FlowMatchSpec()
    checkpoint = saved(FLOW_MATCH, use_dynamic_shifting=True, **{name: value})
    with pytest.raises(CheckpointFileError, match=f"{name} is {value!r}; it must be "):
        scheduler_spec(checkpoint, FLOW_MATCH)


@pytest.mark.parametrize("class_name", OTHERS)
@pytest.mark.parametrize("wanted", SCHEDULERS)
def test_other_class_is_refused_by_name(saved, class_name, wanted):
    with pytest.raises(CheckpointFileError, match=rf"is diffusers\.{class_name}; this family nee"):
        scheduler_spec(saved(class_name), wanted)


def test_class_must_be_the_one_that_the_index_names(saved):
    checkpoint = saved("UniPCMultistepScheduler", index=["diffusers", FLOW_MATCH])
    with pytest.raises(CheckpointFileError, match="_class_name is 'UniPCMultistepScheduler'; the"):
        scheduler_spec(checkpoint, FLOW_MATCH)


@pytest.mark.parametrize("entry", [[None, None], ["diffusers", None], "DDIMScheduler", [], 1])
def test_index_must_name_a_class(saved, entry):
    with pytest.raises(ValueError, match="component 'scheduler' must be a pair of strings, is"):
        scheduler_spec(saved(DDIM, index=entry or [""]), DDIM)


def test_config_must_be_there(saved):
    checkpoint = saved(DDIM)
    (checkpoint.folder / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(FileNotFoundError, match="component 'scheduler' is missing"):
        scheduler_spec(checkpoint, DDIM)
