import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from reelserve.export.engines import get_engine
from reelserve.export.exporter import Exporter, ExportResult
from reelserve.export.families import family_of
from reelserve.export.families.bundled import BundledFamily
from reelserve.export.families.layout import INDEX_FILE, Checkpoint
from reelserve.export.parity import ParityCase
from reelserve.export.repository import ModelRepository
from reelserve.export.stages import ExportStage, TextEncoderStage
from reelserve.models.denoiser import DenoiserConfig, SpaceTimeDenoiser
from reelserve.models.loading import load_component, save_component
from reelserve.models.minilm import MiniLMEncoder
from reelserve.models.text_encoder import TextEncoder, TextEncoderConfig
from reelserve.models.upsampler import Upsampler, UpsamplerConfig
from reelserve.models.video_vae import VideoVAE, VideoVAEConfig
from tests.export.kept_graphs import kept_graphs
from tests.export.scalar_code import scalar_code

BUNDLED = Path(__file__).parents[2] / "checkpoints" / "bundled"
ENGINE = get_engine("onnxruntime")
LATENTS = {
    "channels": 16,
    "temporal_compression": 4,
    "spatial_compression": 32,
    "window_frames": 20,
    "window_overlap": 8,
}
"""Of the tiny checkpoints."""
TINY_TEXT = TextEncoderConfig(
    object_values={
        "thing": ["", "something", "circle", "rabbit"],
        "colour": ["", "red", "blue"],
        "motion": ["", "stay", "hop"],
    },
    scene_values={"setting": ["", "plain", "meadow"], "ground_colour": ["", "red", "blue"]},
    width=16,
    num_heads=2,
    num_blocks=1,
)
SHORT_CLIP = ParityCase(num_frames=4, num_inference_steps=1)


def randomise(module: nn.Module) -> None:
    """Random weights everywhere: layers that start at zero would hide differences."""
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 100
        nn.init.normal_(parameter, std=fan_in**-0.5)


def write_tiny_checkpoint(folder: Path, width: int = 32) -> Path:
    """The bundled checkpoint's layout with small random components.

    Args:
        folder: To write.
        width: Of the denoiser's two heads.
    """
    torch.manual_seed(0)
    shutil.copytree(BUNDLED / "scheduler", folder / "scheduler")
    write_tiny_index(folder)
    channels, dim = LATENTS["channels"], TINY_TEXT.embed_dim
    components = {
        "transformer": SpaceTimeDenoiser(
            DenoiserConfig(
                channels, dim, width, 2, num_blocks=1, num_refiner_blocks=1, text_tokens=4
            )
        ),
        "vae": VideoVAE(VideoVAEConfig(channels, (16, 16, 16), (1, 1, 1), (1, 1, 1), (4, 4), 4)),
        "upsampler": Upsampler(UpsamplerConfig(channels=8, num_hidden=1, drawn_scale=2)),
        "text_encoder": TextEncoder(TINY_TEXT),
    }
    for name, component in components.items():
        randomise(component)
        save_component(component, folder / name)
    return folder


def write_tiny_index(folder: Path) -> None:
    """The bundled checkpoint's index for latents of a few channels."""
    index = json.loads((BUNDLED / INDEX_FILE).read_text())
    components = {
        "text_encoder": ["reelserve.models.text_encoder", "TextEncoder"],
        "upsampler": ["reelserve.models.upsampler", "Upsampler"],
    }
    content = {**index, **components, "latents": LATENTS}
    (folder / INDEX_FILE).write_text(json.dumps(content))


def write_shallow_bundled(folder: Path) -> Path:
    """The bundled checkpoint with the first blocks of its denoiser alone: few operators to trace.

    Weights and widths are the real ones, and the blocks that are left out are like the first.
    """
    for name in ("scheduler", "text_encoder", "upsampler", "vae"):
        # Some components come with packages.
        if (BUNDLED / name).is_dir():
            shutil.copytree(BUNDLED / name, folder / name)
    shutil.copy(BUNDLED / INDEX_FILE, folder)
    denoiser = load_component(BUNDLED / "transformer", SpaceTimeDenoiser)
    del denoiser.blocks[1:], denoiser.refiner[1:]
    denoiser.config = replace(denoiser.config, num_blocks=1, num_refiner_blocks=1)
    save_component(denoiser, folder / "transformer")
    return folder


def shallow(stage: ExportStage) -> ExportStage:
    """The stage; of its text encoder the first block alone, which the others are like."""
    if isinstance(stage.module, TextEncoderStage):
        encoder = stage.module.encoder
        packaged = isinstance(encoder, MiniLMEncoder)
        del (encoder.bert.encoder.layer if packaged else encoder.reader.blocks)[1:]
    return stage


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture
def own_checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture(scope="session")
def family(tiny_checkpoint: Path) -> BundledFamily:
    return BundledFamily(Checkpoint.open(tiny_checkpoint))


@pytest.fixture(scope="session")
def exported(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelRepository, ExportResult]:
    """The tiny checkpoint, exported once for all tests."""
    repository = ModelRepository(tmp_path_factory.mktemp("exported") / "repository")
    family = family_of(Checkpoint.open(tiny_checkpoint))
    with kept_graphs():
        return repository, Exporter(family, ENGINE, repository, case=SHORT_CLIP).run()


@pytest.fixture(scope="session")
def compiled_family(tiny_checkpoint: Path) -> BundledFamily:
    """The tiny checkpoint, for clips of 16 to 24 frames of a quarter of the size."""
    side = {"low": 128, "high": 128, "default": 128}
    frames = {"low": 16, "high": 24, "default": 16}
    limits = {"num_frames": frames, "height": side, "width": side}
    return BundledFamily(Checkpoint.open(tiny_checkpoint), limits)


@pytest.fixture(scope="session")
def compiled(
    compiled_family: BundledFamily, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ModelRepository, ExportResult]:
    """The tiny checkpoint as AOTInductor packages, made once for all tests."""
    repository = ModelRepository(tmp_path_factory.mktemp("compiled") / "model_repository")
    case = ParityCase(num_frames=16, num_inference_steps=1)
    with scalar_code(), kept_graphs("scalar"):
        exporter = Exporter(compiled_family, get_engine("pytorch"), repository, case=case)
        return repository, exporter.run()
