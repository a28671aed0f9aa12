import pytest

from reelserve.server.errors import StageError, public_message

ONNX = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Reshape node. "
    "Name:'' Status Message: /onnxruntime_src/onnxruntime/core/providers/cpu/tensor/reshape.h:91 "
    "onnxruntime::ReshapeHelper(const onnxruntime::TensorShape&, bool) input_shape_size == 3\n"
)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device", "/tmp/x/clip.mp4"), "OSError: No space left on "),
        (KeyError("SEED"), "KeyError: 'SEED'"),
        (StageError("upsampler: no memory"), "upsampler: no memory"),
        (RuntimeError("a / b is 1/2"), "RuntimeError: a / b is 1/2"),
        (RuntimeError('File "/srv/app/x.py", line 3'), 'RuntimeError: File "a file", line 3'),
        (RuntimeError("/srv/app/x.py:3: no memory"), "RuntimeError: no memory"),
        (RuntimeError("src/core/x.cc:3 no memory"), "RuntimeError: no memory"),
        (StageError("x: boom\n\nAt:\n  /srv/model.py(3): execute"), "x: boom"),
    ],
)
def test_described_names_no_file(error, text):
    assert public_message(error).startswith(text)
    assert "/tmp" not in public_message(error) and "/srv" not in public_message(error)


def test_described_keeps_what_the_engine_says_and_not_where():
    assert public_message(RuntimeError(ONNX)).endswith("Status Message: input_shape_size == 3")
