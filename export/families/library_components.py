"""Loads components with the library that saved them, and refuses what does not fit them exactly.

Libraries fill weights that a file lacks with random numbers, and pass over those that they do not
know; here either is an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from reelserve.export.families.layout import CONFIG_FILE, Checkpoint
from reelserve.export.families.settings import Settings
from reelserve.export.stages import CPU_FP32, Target
from reelserve.models.config_limits import check_sizes
from reelserve.models.weight_files import (
    DIFFUSERS_STEM,
    TRANSFORMERS_STEM,
    WeightFiles,
    find_weights,
    require_finite,
    require_fit,
    require_values,
)
from reelserve.pipeline.checkpoint_files import CheckpointFileError, one_line, read_json_object
from reelserve.pipeline.extras import install_advice

STEMS = {"diffusers": DIFFUSERS_STEM, "transformers": TRANSFORMERS_STEM}
"""Names of weights by the library that saves them."""
ADAPTER_FILE = "adapter_config.json"
"""Names a base model, which transformers would fetch."""

ATTENTION = ("attn_implementation", "_attn_implementation")
"""Settings by which transformers fetches a kernel, where they name a repository."""


class MissingLibraryError(ValueError):
    """A library that the checkpoint's classes come from is not installed."""


def component_settings(
    checkpoint: Checkpoint, name: str, defaults: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that a component was saved with.

    Args:
        checkpoint: The opened folder.
        name: Name of the component, its subfolder.
        defaults: What its class takes for settings that are left out.

    Raises:
        CheckpointFileError: If they cannot be read, name a size that no model has or code to fetch,
            or say that the weights are quantized.
        FileNotFoundError: If the component is missing.
    """
    path = checkpoint.folder / name / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: component {name!r} is missing from the checkpoint")
    config = read_json_object(path)
    check_sizes(path, config)
    if quantization := config.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise CheckpointFileError(
            f"{path}: quantization_config is set (quant_method {method!r}); export takes the "
            "weights before quantization, and --precision lowers theirs"
        )
    for key in ATTENTION:
        if "/" in str(config.get(key, "")):
            raise CheckpointFileError(
                f"{path}: {key} is {config[key]!r}; code that a checkpoint names is not fetched"
            )
    return Settings(path, config, defaults or {})


def check_library_component(
    checkpoint: Checkpoint, name: str, library: str, class_name: str
) -> None:
    """Refuses a component that `load_library_component` would refuse in any precision.

    One weight at a time is in memory. Arguments and errors are those of `load_library_component`.
    """
    _, weights = _load(checkpoint, name, library, class_name, device_map="meta")
    require_finite(weights)


def load_library_component(
    checkpoint: Checkpoint, name: str, library: str, class_name: str, target: Target = CPU_FP32
) -> nn.Module:
    """Loads a component with the library that saved it.

    Args:
        checkpoint: The opened folder.
        name: Name of the component, its subfolder.
        library: Library that the index must name.
        class_name: Class that the index must name.
        target: Device and precision.

    Raises:
        CheckpointFileError: If the index names something else, or the weights are not just those of
            the configuration, or hold NaN or infinity in this precision.
        FileNotFoundError: If the component is missing.
        MissingLibraryError: If the library is not installed.
    """
    component, weights = _load(checkpoint, name, library, class_name, dtype=target.dtype)
    component = component.to(target.device).eval().requires_grad_(False)
    buffers = ((key, value) for key, value in component.named_buffers() if value.is_meta)
    require_values(weights.main, [*component.state_dict().items(), *buffers])
    return component


def _load(
    checkpoint: Checkpoint, name: str, library: str, class_name: str, **options: Any
) -> tuple[nn.Module, WeightFiles]:
    checkpoint.require_component(name, library, class_name)
    _require_class(component_settings(checkpoint, name), class_name)
    folder = checkpoint.folder / name
    if (folder / ADAPTER_FILE).exists():
        raise CheckpointFileError(
            f"{folder / ADAPTER_FILE}: the component is an adapter; merge it into its base model"
        )
    weights = find_weights(folder, STEMS[library], checkpoint.variant)
    module = _imported(library)
    if library == "transformers":
        options["trust_remote_code"] = False
    try:
        with _quiet(module):
            component, info = getattr(module, class_name).from_pretrained(
                folder,
                variant=weights.variant or None,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                # They are reported then, and refused below.
                ignore_mismatched_sizes=True,
                **options,
            )
    except Exception as error:
        raise CheckpointFileError(
            f"{folder}: {library}.{class_name} cannot be made from it: {one_line(error)}"
        ) from None
    _require_loaded(weights.main, info)
    return component, weights


def _require_loaded(where: Path, info: Mapping[str, Any]) -> None:
    """Refuses weights by what a library says of loading them."""
    require_fit(
        where,
        missing=info["missing_keys"],
        unexpected=info["unexpected_keys"],
        misshapen=[
            f"{key} {list(found)} instead of {list(wanted)}"
            for key, found, wanted in info["mismatched_keys"]
        ],
    )
    if info["error_msgs"]:
        raise CheckpointFileError(f"{where}: {'; '.join(map(str, info['error_msgs']))}")


def _require_class(settings: Settings, class_name: str) -> None:
    """Refuses a configuration that says it is another class's than the index says."""
    found = settings.values.get("_class_name", class_name)
    if found != class_name:
        raise CheckpointFileError(
            f"{settings.path}: _class_name is {found!r}; the index says {class_name!r}, and they "
            "must agree"
        )


def _imported(library: str) -> ModuleType:
    try:
        return __import__(library)
    except ModuleNotFoundError:
        raise MissingLibraryError(
            f"{library} is not installed; it comes with {install_advice(library, 'families')}"
        ) from None


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Keeps a library's own bars and reports out of the export's output."""
    logging = library.utils.logging
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
