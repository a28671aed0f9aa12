"""Every config.pbtxt against the contract."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as protos

from reelserve.export.engines.tensorrt.engine import MAX_BATCH
from reelserve.pipeline.contract import (
    ENSEMBLE_STAGES,
    INFO,
    PUBLIC_MODEL,
    REQUEST_INPUTS,
    STAGES,
    VIDEO,
)
from tests.server.tiny_repository import REPOSITORY

TENSORRT = "configs/tensorrt.pbtxt"
GPU_CONFIGS = sorted(REPOSITORY.glob("*/configs/onnxruntime_gpu.pbtxt"))
ARENA = "enable_mem_arena"
PACKAGES = "configs/pytorch.pbtxt"
ENGINE_STAGES = tuple(name for name, stage in STAGES.items() if stage.engine)


def config_of(stage: str, name: str = "config.pbtxt") -> protos.ModelConfig:
    text = (REPOSITORY / stage / name).read_text()
    return text_format.Parse(text, protos.ModelConfig())


def described(tensors) -> list[tuple[str, str, tuple[int, ...], bool]]:
    return [
        (t.name, protos.DataType.Name(t.data_type), tuple(t.dims), getattr(t, "optional", False))
        for t in tensors
    ]


def expected(specs) -> list[tuple[str, str, tuple[int, ...], bool]]:
    return [(s.name, f"TYPE_{s.dtype}", s.dims, s.optional) for s in specs]


def parameter(config: protos.ModelConfig, key: str) -> int:
    return int(config.parameters[key].string_value)


def test_repository_holds_the_stages_of_the_contract():
    models = {path.parent.name for path in REPOSITORY.glob("*/config.pbtxt")}
    assert models == {*STAGES, PUBLIC_MODEL}


LED = ("vae_decoder", "frame_consistency", "upsampler")
"""Stages that `video_encoder` calls where frames stay in a GPU's memory."""
ENSEMBLES = ("config.pbtxt", PACKAGES, TENSORRT)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble_takes_the_public_request_and_gives_the_clip(name):
    config = config_of(PUBLIC_MODEL, name)

    assert (config.name, config.platform, config.max_batch_size) == (PUBLIC_MODEL, "ensemble", 0)
    assert described(config.input) == expected(REQUEST_INPUTS)
    assert described(config.output) == expected((VIDEO, INFO))
    assert (REPOSITORY / PUBLIC_MODEL / "1").is_dir()


def test_ensemble_has_every_stage_as_a_step():
    steps = config_of(PUBLIC_MODEL).ensemble_scheduling.step
    assert tuple(step.model_name for step in steps) == ENSEMBLE_STAGES


def test_ensembles_for_our_own_backends_on_a_gpu_lead_frames_in_place():
    packages, plans = (config_of(PUBLIC_MODEL, name) for name in (PACKAGES, TENSORRT))
    steps = [step.model_name for step in packages.ensemble_scheduling.step]

    assert packages == plans
    assert steps == [stage for stage in ENSEMBLE_STAGES if stage not in LED]
    assert packages.ensemble_scheduling.step[-1].input_map["LATENTS"] == "latents"
    assert packages.parameters == config_of(PUBLIC_MODEL).parameters


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensemble_joins_tensors_that_fit(name):
    """Every input of a step is made before it, as the contract has it."""
    made = {spec.name: (spec.dtype, spec.dims[1:]) for spec in REQUEST_INPUTS}
    for step in config_of(PUBLIC_MODEL, name).ensemble_scheduling.step:
        stage = STAGES[step.model_name]
        # Stages without a batch have its dimension, 1, written out.
        start = 0 if stage.batched else 1
        needed = {spec.name for spec in stage.inputs if not spec.optional}
        taken = {spec.name: (spec.dtype, spec.dims[start:]) for spec in stage.inputs}
        given = {spec.name: (spec.dtype, spec.dims[start:]) for spec in stage.outputs}
        assert needed <= set(step.input_map)
        for tensor, source in step.input_map.items():
            assert taken[tensor] == made[source], (step.model_name, tensor)
        assert set(step.output_map) == set(given)
        made |= {target: given[tensor] for tensor, target in step.output_map.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_config_has_the_tensors_of_the_contract(stage):
    config = config_of(stage)

    assert config.name == stage
    assert described(config.input) == expected(STAGES[stage].inputs)
    assert described(config.output) == expected(STAGES[stage].outputs)


@pytest.mark.parametrize("stage", STAGES)
def test_config_batches_as_the_contract_says(stage):
    assert (config_of(stage).max_batch_size > 0) == STAGES[stage].batched


@pytest.mark.parametrize("stage", STAGES)
def test_config_names_its_backend_and_has_a_version_folder(stage):
    config = config_of(stage)
    version = REPOSITORY / stage / "1"

    assert version.is_dir()
    if STAGES[stage].engine:
        assert config.backend == "onnxruntime"
        assert not list(version.glob("*.py")), "an engine stage has no code of its own"
    else:
        assert config.backend == "python"
        assert (version / "model.py").is_file()


@pytest.mark.parametrize("stage", STAGES)
def test_config_says_where_an_instance_runs(stage):
    groups = config_of(stage).instance_group

    assert [(group.count, group.kind) for group in groups] == [
        (1, protos.ModelInstanceGroup.KIND_CPU)
    ]


def test_every_engine_stage_has_a_config_for_onnx_runtime_on_a_gpu():
    stages = {path.parent.parent.name for path in GPU_CONFIGS}

    assert stages == {*ENGINE_STAGES, "video_encoder"}


def test_encoder_beside_graphs_on_a_gpu_is_that_beside_packages_but_for_frames_on_it():
    graphs = config_of("video_encoder", "configs/onnxruntime_gpu.pbtxt")
    packages = config_of("video_encoder", PACKAGES)

    for parameter_of_frames in ("warm_up", "FORCE_CPU_ONLY_INPUT_TENSORS"):
        packages.parameters.pop(parameter_of_frames)
    assert graphs == packages


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_config_for_a_gpu_is_that_of_the_cpu_but_for_the_device_and_its_warm_up(stage):
    cpu, gpu = config_of(stage), config_of(stage, "configs/onnxruntime_gpu.pbtxt")

    assert [group.kind for group in gpu.instance_group] == [protos.ModelInstanceGroup.KIND_GPU]
    assert gpu.parameters.pop("warm_up").string_value == "1"
    for config in (cpu, gpu):
        config.ClearField("instance_group")
        config.parameters.pop("intra_op_thread_count", None)
        config.parameters.pop(ARENA, None)
    assert gpu == cpu


def test_stages_that_run_once_a_clip_give_a_runs_memory_back():
    """The denoiser keeps it: it runs once a step, on windows of bounded size."""
    without = {stage for stage in ENGINE_STAGES if ARENA in config_of(stage).parameters}

    assert without == {"vae_decoder", "frame_consistency", "upsampler"}
    assert all(parameter(config_of(stage), ARENA) == 0 for stage in without)


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_config_for_tensorrt_fits_contract_and_plan(stage):
    config = config_of(stage, TENSORRT)

    assert config.name == stage
    assert config.backend == "tensorrt"
    assert described(config.input) == expected(STAGES[stage].inputs)
    assert described(config.output) == expected(STAGES[stage].outputs)
    assert config.max_batch_size == MAX_BATCH.get(stage, 1)
    assert [group.kind for group in config.instance_group] == [protos.ModelInstanceGroup.KIND_GPU]


@pytest.mark.parametrize("stage", ["video_diffusion", "video_encoder"])
def test_python_stages_beside_plans_are_those_beside_packages(stage):
    """But for the rows of a denoising step."""
    plans, packages = config_of(stage, TENSORRT), config_of(stage, PACKAGES)

    if stage == "video_diffusion":
        rows = plans.parameters.pop("denoiser_max_batch_size").string_value
        assert int(rows) == config_of("denoiser", TENSORRT).max_batch_size
        packages.parameters.pop("denoiser_max_batch_size")
    assert plans == packages


@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_config_of_a_package_has_a_batch_of_one_in_its_dimensions(stage):
    config, contract = config_of(stage, PACKAGES), STAGES[stage]

    assert (config.name, config.backend, config.max_batch_size) == (stage, "pytorch", 0)
    assert config.default_model_filename == "model.pt2"
    for found, specs in ((config.input, contract.inputs), (config.output, contract.outputs)):
        assert described(found) == [(n, t, (1, *dims), o) for n, t, dims, o in expected(specs)]
    kinds = [(group.count, group.kind) for group in config.instance_group]
    assert kinds == [(1, protos.ModelInstanceGroup.KIND_AUTO)]


@pytest.mark.parametrize("name", [PACKAGES, TENSORRT])
@pytest.mark.parametrize("stage", ENGINE_STAGES)
def test_config_keeps_frames_on_the_gpu_and_nothing_else(stage, name):
    parameters = config_of(stage, name).parameters
    frames_out = any(spec.dtype == "UINT8" for spec in STAGES[stage].outputs)
    frames_in = any(spec.dtype == "UINT8" for spec in STAGES[stage].inputs)

    assert parameters["output_device"].string_value == ("gpu" if frames_out else "cpu")
    assert ("FORCE_CPU_ONLY_INPUT_TENSORS" in parameters) == frames_in


@pytest.mark.parametrize("name", [PACKAGES, TENSORRT])
def test_stages_with_large_peaks_share_one_resource(name):
    for stage in ("denoiser", "vae_decoder", "upsampler"):
        (group,) = config_of(stage, name).instance_group
        resources = [(r.name, r.count) for r in group.rate_limiter.resources]
        assert resources == [("peak_memory", 1)]


def test_configs_of_python_stages_beside_packages_differ_where_they_must():
    names = {path.parent.parent.name for path in REPOSITORY.glob(f"*/{PACKAGES}")}
    assert names == {*ENGINE_STAGES, PUBLIC_MODEL, "video_diffusion", "video_encoder"}
    assert parameter(config_of("video_diffusion", PACKAGES), "denoiser_max_batch_size") == 1
    for stage in ("video_diffusion", "video_encoder"):
        usual, other = config_of(stage), config_of(stage, PACKAGES)
        for config in (usual, other):
            config.ClearField("parameters")
            config.ClearField("instance_group")
        assert usual == other


def test_video_diffusion_bounds_fit_together():
    config = config_of("video_diffusion")
    in_flight = parameter(config, "max_requests_in_flight")

    # A clip that was given up stays until its step ends, and a new one may have its place already.
    assert in_flight >= 2 * parameter(config_of(PUBLIC_MODEL), "max_requests_in_flight")
    assert parameter(config, "max_active_requests") <= in_flight
    assert parameter(config, "denoiser_max_batch_size") == config_of("denoiser").max_batch_size


@pytest.mark.parametrize("name", ENSEMBLES)
def test_video_diffusion_answers_late_and_is_no_sequence(name):
    """A stage with sequences makes the whole ensemble one."""
    config = config_of("video_diffusion", name)

    assert not config.HasField("sequence_batching") and not config.HasField("dynamic_batching")
    assert not config.model_transaction_policy.decoupled


@pytest.mark.parametrize(
    "path",
    sorted((*REPOSITORY.glob("*/config.pbtxt"), *REPOSITORY.glob("*/configs/*.pbtxt"))),
    ids=lambda path: "/".join(path.relative_to(REPOSITORY).parts),
)
def test_every_number_of_a_config_has_a_reason(path):
    """Above a number, in its block or at the head of it, stands a comment."""
    lines = path.read_text().splitlines()
    tensors_or_steps = ("{ name:", "model_version", "input_map", "output_map", "model_name")
    for index, line in enumerate(lines):
        code = line.strip()
        if code.startswith(("#", *tensors_or_steps)) or not any(c.isdigit() for c in code):
            continue
        above = [text.strip() for text in lines[max(0, index - 5) : index]]
        assert any(text.startswith("#") for text in above), f"{path}: {code}"
