"""Opens an ONNX graph with ONNX Runtime, without falling back to another device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Under this name, so that others may take it from here.
import onnxruntime as onnxruntime

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_OPTIONS: Mapping[str, Any] = {
    # Its own products would round fp32 to ten bits; who wants speed exports in fp16.
    "use_tf32": "0",
}


class ProviderError(ValueError):
    """ONNX Runtime cannot use a provider here; the message says what is missing."""


def check_provider(provider: str) -> None:
    """Checks that this ONNX Runtime was built with a provider.

    Raises:
        ProviderError: If it was not.
    """
    known = onnxruntime.get_available_providers()
    if provider not in known:
        raise ProviderError(
            f"this onnxruntime has no {provider}, it has {', '.join(known)}; "
            "`pip install onnxruntime-gpu` in its place, on a machine with an NVIDIA GPU"
        )


def open_graph(
    graph: Path,
    provider: str,
    *,
    device_id: int = 0,
    options: onnxruntime.SessionOptions | None = None,
) -> onnxruntime.InferenceSession:
    """Loads a graph.

    Args:
        graph: An ONNX file.
        provider: Computes the graph. The CPU computes what it has no kernel for.
        device_id: GPU of the CUDA provider.
        options: Options of the session.

    Raises:
        ProviderError: If the provider or its libraries are missing, where ONNX Runtime itself
            would use the CPU.
    """
    check_provider(provider)
    chosen: list[str | tuple[str, dict[str, Any]]] = [provider]
    if provider == CUDA_PROVIDER:
        # CUDA's and cuDNN's packages lie beside this one, where the loader does not look.
        onnxruntime.preload_dlls(directory="")
        chosen = [(provider, {"device_id": device_id, **CUDA_OPTIONS})]
    if provider != CPU_PROVIDER:
        chosen.append(CPU_PROVIDER)
    session = onnxruntime.InferenceSession(graph, options, providers=chosen)
    if provider not in session.get_providers():
        raise ProviderError(
            f"{provider} did not load: it needs a GPU and the CUDA and cuDNN libraries of its "
            'version; `pip install "onnxruntime-gpu[cuda,cudnn]"`'
        )
    return session
