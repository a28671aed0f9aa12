"""The op `reelserve::temporal_attention` as an ONNX node `TemporalAttention` of domain `reelserve`.

The node carries what TensorRT's parser needs to find the ahead-of-time plugin of
`kernels/tensorrt_plugin.py`. A function body in standard operators goes with it, so that ONNX
Runtime, and all else that has no plugin, runs the same file. The body is added after export,
because the exporter inlines every function that it knows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import onnx
import onnx.inliner
import onnx.parser
import onnx_ir
import onnxscript
import torch

DOMAIN = "reelserve"
OP_TYPE = "TemporalAttention"
DOMAIN_VERSION = 1
PLUGIN_VERSION = "1"
INPUTS = ("qkv", "norm_q", "norm_k", "cos", "sin")

_BODY = f"""
<domain: "{DOMAIN}", opset_import: ["" : 23]>
{OP_TYPE} <scale, epsilon, plugin_namespace, plugin_version, aot>
(qkv, norm_q, norm_k, cos, sin) => (out)
{{
    heads = Shape <start: int = 4, end: int = 5> (qkv)
    frames = Shape <start: int = 1, end: int = 2> (qkv)
    width = Shape <start: int = 5, end: int = 6> (qkv)
    rest = Constant <value_ints: ints = [-1]> ()
    sequences = Concat <axis: int = 0> (rest, heads, frames, width)
    turned = Transpose <perm: ints = [3, 0, 2, 4, 1, 5]> (qkv)
    q_part, k_part, v_part = Split <axis: int = 0, num_outputs: int = 3> (turned)
    q_rows = Reshape (q_part, sequences)
    k_rows = Reshape (k_part, sequences)
    v = Reshape (v_part, sequences)
    q_weight = CastLike (norm_q, qkv)
    k_weight = CastLike (norm_k, qkv)
    q_normed = RMSNormalization <axis: int = -1, epsilon: float = @epsilon> (q_rows, q_weight)
    k_normed = RMSNormalization <axis: int = -1, epsilon: float = @epsilon> (k_rows, k_weight)
    c = CastLike (cos, qkv)
    s = CastLike (sin, qkv)
    q_low, q_high = Split <axis: int = -1, num_outputs: int = 2> (q_normed)
    q_low_cos = Mul (q_low, c)
    q_high_sin = Mul (q_high, s)
    q_high_cos = Mul (q_high, c)
    q_low_sin = Mul (q_low, s)
    q_first = Sub (q_low_cos, q_high_sin)
    q_second = Add (q_high_cos, q_low_sin)
    q = Concat <axis: int = -1> (q_first, q_second)
    k_low, k_high = Split <axis: int = -1, num_outputs: int = 2> (k_normed)
    k_low_cos = Mul (k_low, c)
    k_high_sin = Mul (k_high, s)
    k_high_cos = Mul (k_high, c)
    k_low_sin = Mul (k_low, s)
    k_first = Sub (k_low_cos, k_high_sin)
    k_second = Add (k_high_cos, k_low_sin)
    k = Concat <axis: int = -1> (k_first, k_second)
    attended = Attention <scale: float = @scale> (q, k, v)
    places = Shape <start: int = 0, end: int = 3> (qkv)
    batch = Shape <start: int = 0, end: int = 1> (qkv)
    locations = Shape <start: int = 2, end: int = 3> (qkv)
    split = Concat <axis: int = 0> (batch, locations, heads, frames, width)
    apart = Reshape (attended, split)
    back = Transpose <perm: ints = [0, 3, 1, 2, 4]> (apart)
    joined = Concat <axis: int = 0> (places, rest)
    out = Reshape (back, joined)
}}
"""


@cache
def _opset() -> onnxscript.values.Opset:
    """The domain, its one operator made known to onnx once."""
    schema = onnx.defs.OpSchema(
        OP_TYPE,
        DOMAIN,
        DOMAIN_VERSION,
        inputs=[
            onnx.defs.OpSchema.FormalParameter(name, "T" if name == "qkv" else "U")
            for name in INPUTS
        ],
        outputs=[onnx.defs.OpSchema.FormalParameter("out", "T")],
        type_constraints=[
            (name, [f"tensor({t})" for t in ("float16", "bfloat16", "float")], "")
            for name in ("T", "U")
        ],
        attributes=[
            onnx.defs.OpSchema.Attribute(name, kind, required=False)
            for name, kind in (
                ("scale", onnx.defs.OpSchema.AttrType.FLOAT),
                ("epsilon", onnx.defs.OpSchema.AttrType.FLOAT),
                ("plugin_namespace", onnx.defs.OpSchema.AttrType.STRING),
                ("plugin_version", onnx.defs.OpSchema.AttrType.STRING),
                ("aot", onnx.defs.OpSchema.AttrType.INT),
            )
        ],
    )
    onnx.defs.register_schema(schema)
    return onnxscript.values.Opset(DOMAIN, DOMAIN_VERSION)


def translation_table() -> dict[Any, Any]:
    """What `torch.onnx.export` makes of the op.

    Raises:
        ValueError: While exporting, if the op is called without its norm or its rotary tables:
            the node and the plugin have one form.
    """
    opset = _opset()

    def temporal_attention(
        qkv: Any,
        norm_q: Any = None,
        norm_k: Any = None,
        cos: Any = None,
        sin: Any = None,
        scale: float | None = None,
        eps: float = 1e-6,
    ) -> Any:
        inputs = (qkv, norm_q, norm_k, cos, sin)
        for name, value in zip(INPUTS, inputs, strict=True):
            if value is None:
                raise ValueError(f"{name} is missing: the ONNX node needs all of {INPUTS}")
        return opset.TemporalAttention(
            *inputs,
            scale=float(qkv.shape[-1]) ** -0.5 if scale is None else scale,
            epsilon=eps,
            plugin_namespace=DOMAIN,
            plugin_version=PLUGIN_VERSION,
            aot=1,
        )

    return {torch.ops.reelserve.temporal_attention.default: temporal_attention}


def with_body(model: onnx_ir.Model) -> onnx_ir.Model:
    """Adds the function body to a model whose graph has the node."""
    function = onnx_ir.serde.deserialize_function(onnx.parser.parse_function(_BODY))
    model.functions[function.identifier()] = function
    return model


def inlined(model: onnx_ir.Model) -> onnx_ir.Model:
    """Puts the body in place of every node."""
    model = onnx_ir.passes.common.InlinePass()(with_body(model)).model
    del model.opset_imports[DOMAIN]
    return model
