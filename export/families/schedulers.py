"""Schedules from the scheduler configs of checkpoints: one table of classes and their settings.

Every setting of a config is honoured or refused by name with its value; a class that is not in the
table is refused. Names and defaults are those of diffusers' classes, to which a test holds them.
`docs/families.md` shows the table; `make docs` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from reelserve.export.families.settings import NOTES, Settings, is_number
from reelserve.pipeline.checkpoint import SchedulerSpec
from reelserve.pipeline.checkpoint_files import CheckpointFileError, read_json_object
from reelserve.pipeline.ddim import BetaSchedule, DDIMSpec, Prediction, TimestepSpacing
from reelserve.pipeline.scheduler import DynamicShift, FlowMatchSpec

if TYPE_CHECKING:
    from reelserve.export.families.layout import Checkpoint

COMPONENT = "scheduler"
CONFIG_FILE = "scheduler_config.json"
LIBRARY = "diffusers"
MAX_TRAIN_TIMESTEPS = 100_000


@dataclass(frozen=True)
class Values:
    """What a setting may be.

    Args:
        text: For messages: "it must be …".
        accepts: Whether a value is one of them.
    """

    text: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Setting:
    """One setting of a scheduler class.

    Args:
        default: Where a config leaves it out, as in diffusers.
        values: What is honoured.
        where: A setting that is off unless true; while it is off, this one has no effect and any
            value is accepted.
    """

    default: Any
    values: Values
    where: str = ""


@dataclass(frozen=True)
class SchedulerClass:
    """A scheduler class that checkpoints may have.

    Args:
        settings: All its settings by name.
        spec: Makes our schedule from the checked settings.
        leftovers: Settings of other classes that conversions leave in its configs, and that
            diffusers' class does not read either.
    """

    settings: Mapping[str, Setting]
    spec: Callable[[Settings], SchedulerSpec]
    leftovers: tuple[str, ...] = ()


def _whole(low: int, high: int) -> Values:
    return Values(
        f"a whole number from {low} to {high}",
        lambda value: type(value) is int and low <= value <= high,
    )


def _real(low: float, high: float) -> Values:
    """Finite numbers between both, without them."""
    return Values(
        f"a number above {low:g} and below {high:g}",
        lambda value: is_number(value) and low < value < high,
    )


def _one_of(*allowed: object) -> Values:
    # By type too: 0 equals False.
    return Values(
        " or ".join(repr(value) for value in allowed),
        lambda value: any(type(value) is type(one) and value == one for one in allowed),
    )


def _or_none(values: Values) -> Values:
    return Values(f"{values.text}, or null", lambda value: value is None or values.accepts(value))


_FLAG, _OFF, _NONE = _one_of(True, False), _one_of(False), _one_of(None)
_TIMESTEPS = Setting(1000, _whole(1, MAX_TRAIN_TIMESTEPS))
_DYNAMIC = "use_dynamic_shifting"


def _flow_match(settings: Settings) -> FlowMatchSpec:
    value, dynamic = settings.value, None
    if value(_DYNAMIC):
        names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        dynamic = DynamicShift(*(value(name) for name in names))
        if dynamic.base_seq_len == dynamic.max_seq_len:
            raise settings.refused("max_image_seq_len", "other than base_image_seq_len")
    return FlowMatchSpec(
        shift=float(value("shift")),
        dynamic=dynamic,
        terminal=value("shift_terminal"),
        num_train_timesteps=value("num_train_timesteps"),
    )


def _ddim(settings: Settings) -> DDIMSpec:
    honoured = DDIMSpec.__dataclass_fields__
    return DDIMSpec(**{name: settings.value(name) for name in honoured})


SCHEDULERS: dict[str, SchedulerClass] = {
    "FlowMatchEulerDiscreteScheduler": SchedulerClass(
        settings={
            "num_train_timesteps": _TIMESTEPS,
            "shift": Setting(1.0, _real(0, 1000)),
            _DYNAMIC: Setting(False, _FLAG),
            "base_shift": Setting(0.5, _real(-20, 20), where=_DYNAMIC),
            "max_shift": Setting(1.15, _real(-20, 20), where=_DYNAMIC),
            "base_image_seq_len": Setting(256, _whole(1, 2**24), where=_DYNAMIC),
            "max_image_seq_len": Setting(4096, _whole(1, 2**24), where=_DYNAMIC),
            "time_shift_type": Setting("exponential", _one_of("exponential"), where=_DYNAMIC),
            "shift_terminal": Setting(None, _or_none(_real(0, 1))),
            "invert_sigmas": Setting(False, _OFF),
            "use_karras_sigmas": Setting(False, _OFF),
            "use_exponential_sigmas": Setting(False, _OFF),
            "use_beta_sigmas": Setting(False, _OFF),
            "stochastic_sampling": Setting(False, _OFF),
        },
        spec=_flow_match,
    ),
    "DDIMScheduler": SchedulerClass(
        settings={
            "num_train_timesteps": _TIMESTEPS,
            "beta_start": Setting(0.0001, _real(0, 1)),
            "beta_end": Setting(0.02, _real(0, 1)),
            "beta_schedule": Setting("linear", _one_of(*get_args(BetaSchedule))),
            "trained_betas": Setting(None, _NONE),
            "clip_sample": Setting(True, _OFF),
            "clip_sample_range": Setting(1.0, _real(0, 1000), where="clip_sample"),
            "set_alpha_to_one": Setting(True, _FLAG),
            "steps_offset": Setting(0, _whole(0, MAX_TRAIN_TIMESTEPS)),
            "prediction_type": Setting("epsilon", _one_of(*get_args(Prediction))),
            "thresholding": Setting(False, _OFF),
            "dynamic_thresholding_ratio": Setting(0.995, _real(0, 1), where="thresholding"),
            "sample_max_value": Setting(1.0, _real(0, 1000), where="thresholding"),
            "timestep_spacing": Setting("leading", _one_of(*get_args(TimestepSpacing))),
            "rescale_betas_zero_snr": Setting(False, _OFF),
        },
        spec=_ddim,
        leftovers=("variance_type", "skip_prk_steps"),
    ),
}
"""Classes by the name that `model_index.json` gives them."""


def scheduler_spec(checkpoint: Checkpoint, class_name: str) -> SchedulerSpec:
    """The schedule of a checkpoint.

    Args:
        checkpoint: The opened folder.
        class_name: The class that the family is served with, one of `SCHEDULERS`.

    Raises:
        CheckpointFileError: If the checkpoint has another class, or a setting that is not honoured.
        FileNotFoundError: If the component is missing.
    """
    checkpoint.require_component(COMPONENT, LIBRARY, class_name)
    path = checkpoint.folder / COMPONENT / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: component {COMPONENT!r} is missing from the checkpoint")
    config = read_json_object(path)
    found = config.get("_class_name", class_name)
    if found != class_name:
        raise CheckpointFileError(
            f"{path}: _class_name is {found!r}; the index says {class_name!r}, and they must agree"
        )
    row = SCHEDULERS[class_name]
    defaults = {name: setting.default for name, setting in row.settings.items()}
    settings = Settings(path, config, defaults)
    for name in config:
        if name not in (*row.settings, *row.leftovers, *NOTES):
            raise CheckpointFileError(
                f"{path}: {name} is {config[name]!r}; {class_name} has no such setting"
            )
    for name, setting in row.settings.items():
        off = setting.where and settings.value(setting.where) is False
        if not off and not setting.values.accepts(settings.value(name)):
            raise settings.refused(name, setting.values.text)
    return row.spec(settings)


def schedulers_table() -> str:
    """The classes and their settings as a table in Markdown, for `docs/families.md`."""
    lines = ["| Class | Setting | Default | Honoured | While |", "| --- | --- | --- | --- | --- |"]
    for class_name, row in SCHEDULERS.items():
        for name, setting in row.settings.items():
            where = f"`{setting.where}` is on" if setting.where else "always"
            cells = (f"`{class_name}`", f"`{name}`", f"`{setting.default!r}`", setting.values.text)
            lines.append(f"| {' | '.join((*cells, where))} |")
        for name in row.leftovers:
            lines.append(
                f"| `{class_name}` | `{name}` | – | any value; the class has no use of it | – |"
            )
    return "\n".join(lines)
