import numpy as np
import pytest

from reelserve.server.batching import group_by_shape, run_batched, run_each, run_in_slices


class Recorder:
    """Doubles X and fails on a batch that holds NaN; remembers the batch sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, inputs):
        self.sizes.append(len(inputs["X"]))
        if np.isnan(inputs["X"]).any():
            raise RuntimeError("NaN in the batch")
        return {"Y": 2 * inputs["X"]}


def request(rows: int, width: int, value: float = 1.0):
    return {"X": np.full((rows, width), value, np.float32)}


def test_run_batched_joins_requests_of_equal_shape():
    run = Recorder()
    results = run_batched([request(1, 3, 1), request(2, 3, 2), request(1, 5, 3)], run, 0)

    assert run.sizes == [3, 1]
    assert [result["Y"].shape for result in results] == [(1, 3), (2, 3), (1, 5)]
    assert [result["Y"][0, 0] for result in results] == [2, 4, 6]


@pytest.mark.parametrize(("rows_per_run", "sizes"), [(1, [1, 1, 1]), (2, [2, 1]), (3, [3])])
def test_run_batched_computes_as_many_rows_at_once_as_told(rows_per_run, sizes):
    run = Recorder()
    results = run_batched([request(1, 3, 1), request(2, 3, 2)], run, rows_per_run)

    assert run.sizes == sizes
    np.testing.assert_array_equal(results[1]["Y"], np.full((2, 3), 4))


def test_run_batched_fails_one_request_when_only_it_cannot_be_computed():
    results = run_batched([request(1, 3), request(1, 3, np.nan), request(1, 3, 5)], Recorder(), 0)

    assert results[0]["Y"][0, 0] == 2
    assert str(results[1]) == "NaN in the batch"
    assert results[2]["Y"][0, 0] == 10


def test_run_batched_refuses_when_tensors_of_a_request_disagree():
    odd = {"X": np.zeros((2, 3)), "Z": np.zeros((1, 3))}
    (result,) = run_batched([odd], Recorder(), 0)

    assert "batch sizes differ between tensors: {'X': 2, 'Z': 1}" in str(result)


def test_run_batched_computes_requests_with_tensors_on_a_gpu_by_themselves():
    class DeviceTensor:
        """What Triton hands over for a tensor on a GPU: no NumPy array, and `shape` is a method."""

        def shape(self):
            return [1, 3]

    ran = []

    def run(inputs):
        ran.append(inputs)
        return inputs

    first, last, on_device = request(1, 3), request(2, 3), {"X": DeviceTensor()}
    results = run_batched([first, on_device, last], run, 0)

    assert len(ran) == 2 and on_device in ran
    assert results[1] is on_device
    assert [len(results[index]["X"]) for index in (0, 2)] == [1, 2]


def test_run_batched_is_empty_when_there_are_no_requests():
    assert run_batched([], Recorder(), 1) == []


def test_run_each_fails_one_request_when_only_it_cannot_be_computed():
    good, bad = run_each([request(1, 3), request(1, 3, np.nan)], Recorder())

    assert good["Y"][0, 0] == 2
    assert isinstance(bad, RuntimeError)


def test_run_in_slices_keeps_the_order():
    run = Recorder()
    inputs = {"X": np.arange(7, dtype=np.float32)[:, None]}

    np.testing.assert_array_equal(
        run_in_slices(inputs, run, 3)["Y"][:, 0], 2 * np.arange(7, dtype=np.float32)
    )
    assert run.sizes == [3, 3, 1]


def test_group_by_shape_ignores_the_batch_dimension_alone():
    assert group_by_shape([request(1, 3), request(1, 4), request(9, 3)]) == [[0, 2], [1]]
