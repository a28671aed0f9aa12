import grpc
import pytest

from reelserve.server.frontend.call_errors import from_triton

FULL = (
    "in ensemble 'text_to_video', Failed to increase the shared memory pool size for key "
    "'reelserve_0123_0_39ba0008' to 1048576 bytes. If you are running Triton inside docker, use "
    "'--shm-size' flag to control the shared memory region size. Error: No space left on device"
)
"""What Triton 2.51 answers where `/dev/shm` is full; the next smaller clip is drawn."""


def failed(words: str) -> grpc.aio.AioRpcError:
    nothing = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, words)


@pytest.mark.parametrize("words", [FULL, f"vae_decoder: {FULL}"], ids=["of Triton", "of a stage"])
def test_from_triton_says_that_the_clip_may_be_sent_again_when_shared_memory_is_short(words):
    error = from_triton(failed(words))

    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.message == (
        "the server has not enough shared memory for this clip; ask for fewer frames or a smaller "
        "picture, or retry after 10 s"
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("in ensemble 'text_to_video', no", "no"),
        (
            "[ONNXRuntimeError] : 6 : /onnxruntime_src/core/framework/op.cc:12 virtual "
            "onnxruntime::common::Status onnxruntime::Slice::Compute(OpKernelContext*) const bad",
            "[ONNXRuntimeError] : 6 : bad",
        ),
        ("grpc_server.cc:99: bad", "bad"),
        ("cannot open /models/denoiser/1/model.onnx", "cannot open a file"),
    ],
)
def test_from_triton_leaves_sources_and_paths_out(words, told):
    assert from_triton(failed(words)).message == told
