"""What opens an exported graph, and what is written about it beside it."""

import os

# ONNX Runtime from 1.29 on reports models and sessions to its makers, and writes an identifier to
# the working folder. It looks when it is first imported, which `onnx_graph` alone does.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
