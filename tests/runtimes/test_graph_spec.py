import pytest

from reelserve.runtimes.graph_spec import GraphInput, GraphOutput, GraphSpec

LATENTS = GraphInput("LATENTS", "FP32", (1, 8, 2), (1, 8, 5), (1, 8, 3))
SPEC = GraphSpec((LATENTS,), (GraphOutput("FRAMES", "UINT8", 5),))


def test_spec_survives_json():
    assert GraphSpec.from_json(SPEC.to_json()) == SPEC


@pytest.mark.parametrize("size", [2, 5])
def test_spec_takes_the_ends_of_a_range(size):
    SPEC.check({"LATENTS": (1, 8, size)})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 8, 6), r"LATENTS has shape \[1, 8, 6\]; its dimension 2 must be 2 to 5"),
        ((1, 8, 1), "its dimension 2 must be 2 to 5"),
        ((2, 8, 3), "its dimension 0 must be 1$"),
        ((8, 3), "it must have 3 dimensions"),
    ],
)
def test_spec_refuses_when_a_shape_does_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        SPEC.check({"LATENTS": shape})


def test_spec_refuses_when_an_input_is_missing():
    with pytest.raises(ValueError, match="input LATENTS is missing"):
        SPEC.check({})
