"""Rules about operators: which the parser knows, and which of their forms it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edgekit.converters.onnx.lint.files import TYPES
from edgekit.converters.onnx.lint.finding import Finding
from edgekit.converters.onnx.lint.scope import Scope, label, names, type_name

if TYPE_CHECKING:
    import onnx

SUPPORTED = names(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BlackmanWindow Cast CastLike Ceil Celu Clip Concat Constant ConstantOfShape
    Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div Dropout Einsum
    Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
    ImageScaler InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
    LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean
    MeanVarianceNormalization Min Mish Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu
    Pad ParametricSoftplus Pow QuantizeLinear RMSNormalization RNN RandomNormal RandomNormalLike
    RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu
    Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round STFT ScaledTanh Scan Scatter
    ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh TensorScatter ThresholdedRelu
    Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
    """
)
"""The matrix of onnx-tensorrt, docs/operators.md, as of TensorRT 10.15."""

NOT_ON_RTX = names("DeformConv NonMaxSuppression NonZero")
"""In the matrix, but TensorRT-RTX 1.7 has no kernel for them."""

ONLY_ON_RTX = names("CausalConvWithState LinearAttention SimplifiedLayerNormalization Swish")
"""Not in the matrix, but the parser of TensorRT-RTX 1.7 knows them."""

# Inputs by place whose types must agree; DOUBLE counts as FLOAT. Float types may differ elsewhere
# (Clip, Pow, Pad, BatchNormalization), because the parser casts there.
_SAME_TYPE: dict[str, tuple[int, ...] | None] = {
    "Conv": (0, 1, 2), "ConvTranspose": (0, 1, 2), "Where": (1, 2),
} | dict.fromkeys(
    names(
        "Add Sub Mul Div Max Min Concat Gemm MatMul PRelu Equal Greater Less GreaterOrEqual "
        "LessOrEqual"
    )
)  # fmt: skip

_RESIZE_COORDINATES = names(
    "half_pixel pytorch_half_pixel tf_half_pixel_for_nn asymmetric align_corners"
)


def check(scope: Scope) -> Iterator[Finding]:
    """Yield the operators of `scope` that TensorRT has not, or not so."""
    functions = {(f.domain, f.name) for f in scope.model.functions}
    has_half_scales = False
    for node in scope.nodes:
        if (node.domain, node.op_type) in functions:
            continue
        if node.op_type not in SUPPORTED | ONLY_ON_RTX:
            yield _unknown(node)
            continue
        if node.domain not in ("", "ai.onnx"):
            yield _domain(node)
        if node.op_type in NOT_ON_RTX | ONLY_ON_RTX:
            yield _not_everywhere(node)
        if node.op_type == "DequantizeLinear" and _has_early_half_scale(scope, node):
            has_half_scales = True
            yield Finding(
                "note",
                "half-scale",
                label(node),
                "a float16 scale: TensorRT takes it, but ONNX has it from opset 19 on, so ONNX "
                "Runtime refuses the file",
                "export with opset 19 or later, or with float32 scales and a Cast",
            )
        if not has_half_scales:  # before opset 19 types are then not those that ONNX infers
            yield from _mixed_types(scope, node)
        yield from _form(scope, node)


def _has_early_half_scale(scope: Scope, node: onnx.NodeProto) -> bool:
    scale = scope.dtype(node.input[1]) if len(node.input) > 1 else None
    return scope.opset < 19 and scale in ("FLOAT16", "BFLOAT16")


def _unknown(node: onnx.NodeProto) -> Finding:
    if node.op_type.endswith("_TRT"):
        return Finding(
            "note",
            "plugin",
            label(node),
            f"{node.op_type} is a plugin: it builds only where a library that has it is loaded "
            "(libnvinfer_plugin); TensorRT-RTX has none",
            "compute it outside the model if it must run elsewhere too",
        )
    domain = f"{node.domain}." if node.domain not in ("", "ai.onnx") else ""
    return Finding(
        "refused",
        "operator",
        label(node),
        f"TensorRT has no operator {domain}{node.op_type}",
        _REMEDIES.get(node.op_type, "express it in operators of docs/tensorrt-rules.md"),
    )


_FLOAT_AGAIN = "start from the float model and write QuantizeLinear and DequantizeLinear instead"
_REMEDIES = dict.fromkeys(
    names("QLinearConv QLinearMatMul QLinearAdd ConvInteger MatMulInteger DynamicQuantizeLinear"),
    _FLOAT_AGAIN,
) | {"FusedConv": "export without ONNX Runtime's optimizations, which make it"}


def _not_everywhere(node: onnx.NodeProto) -> Finding:
    has, lacks = "TensorRT 10.15", "TensorRT-RTX 1.7"
    if node.op_type in ONLY_ON_RTX:
        has, lacks = lacks, has
    return Finding(
        "note",
        "not-everywhere",
        label(node),
        f"{has} has {node.op_type}, {lacks} has not",
        "compute it outside the model if it must run on both",
    )


def _domain(node: onnx.NodeProto) -> Finding:
    return Finding(
        "note",
        "domain",
        label(node),
        f"TensorRT ignores the domain {node.domain!r} and reads the standard {node.op_type}",
        "check that the two mean the same, or export with standard operators",
    )


def _mixed_types(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type not in _SAME_TYPE:
        return
    places = _SAME_TYPE[node.op_type] or range(len(node.input))
    types = [scope.dtype(node.input[i]) for i in places if i < len(node.input) and node.input[i]]
    known = list(dict.fromkeys(t.replace("DOUBLE", "FLOAT") for t in types if t))
    if len(known) > 1:
        yield Finding(
            "refused",
            "mixed-types",
            label(node),
            f"{node.op_type} of {' and '.join(known)}: TensorRT casts nothing by itself",
            "cast the inputs to one type",
        )


def _form(scope: Scope, node: onnx.NodeProto) -> Iterator[Finding]:
    for form in _FORMS.get(node.op_type, ()):
        problem = form(scope, node)
        if problem is not None:
            yield Finding(
                "refused", "operator-form", label(node), f"{node.op_type} {problem[0]}", problem[1]
            )


_Problem = tuple[str, str] | None
_Form = Callable[[Scope, "onnx.NodeProto"], _Problem]


def _one_output(scope: Scope, node: onnx.NodeProto) -> _Problem:
    if any(node.output[1:]):
        return "with more than one output", "drop the outputs behind the first"
    return None


def _no_dilations(scope: Scope, node: onnx.NodeProto) -> _Problem:
    dilations = scope.attribute(node, "dilations", [])
    if any(d != 1 for d in dilations):
        return f"with dilations {list(dilations)}", "pool without dilations"
    return None


def _is(name: str, refused: Callable[[Any], bool], default: Any, remedy: str) -> _Form:
    """Return the form that refuses some values of attribute `name`."""

    def form(scope: Scope, node: onnx.NodeProto) -> _Problem:
        value = scope.attribute(node, name, default)
        return (f"with {name} {value!r}", remedy) if refused(value) else None

    return form


def _cast(scope: Scope, node: onnx.NodeProto) -> _Problem:
    to = type_name(int(scope.attribute(node, "to", 0)))
    return None if to in TYPES else (f"to {to}, which TensorRT has not", "cast to int32 or float32")


def _constant(scope: Scope, node: onnx.NodeProto) -> _Problem:
    kinds = {a.name for a in node.attribute} & {"sparse_value", "value_string", "value_strings"}
    return (f"with {kinds.pop()}", "store a plain tensor of numbers") if kinds else None


def _training(scope: Scope, node: onnx.NodeProto) -> _Problem:
    mode = scope.values(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if mode is not None and mode.any():
        return "in training mode", "export for inference"
    return None


def _resize(scope: Scope, node: onnx.NodeProto) -> _Problem:
    coordinates = scope.attribute(node, "coordinate_transformation_mode", "half_pixel")
    nearest = scope.attribute(node, "nearest_mode", "round_prefer_floor")
    if coordinates not in _RESIZE_COORDINATES:
        return (
            f"with coordinate_transformation_mode {coordinates!r}",
            f"use one of {', '.join(sorted(_RESIZE_COORDINATES))}",
        )
    if coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        return f"tf_half_pixel_for_nn with nearest_mode {nearest!r}", "use round_prefer_floor"
    return None


def _deconvolution(scope: Scope, node: onnx.NodeProto) -> _Problem:
    strides = scope.attribute(node, "strides", [])
    dilations = scope.attribute(node, "dilations", [])
    if any(s != 1 for s in strides) and any(d != 1 for d in dilations):
        return "with strides and dilations", "use either; resize first, then convolve"
    return None


def _spatial(scope: Scope, node: onnx.NodeProto) -> _Problem:
    shape = scope.shape(node.input[0]) if node.input else None
    if shape is not None and not 3 <= len(shape) <= 5:
        return f"of a tensor of rank {len(shape)}", "use 1, 2 or 3 spatial dimensions"
    return None


def _directions(count: int) -> _Form:
    """Return the form that refuses other activations backwards than forwards."""

    def form(scope: Scope, node: onnx.NodeProto) -> _Problem:
        used = [bytes(name).lower() for name in scope.attribute(node, "activations", [])]
        if scope.attribute(node, "direction", "forward") != "bidirectional" or len(used) < count:
            return None
        if used[:count] != used[count:]:
            return "with other activations backwards than forwards", "use the same for both"
        return None

    return form


def _stored_axes(scope: Scope, node: onnx.NodeProto) -> _Problem:
    if len(node.input) > 1 and node.input[1] and not scope.is_constant(node.input[1]):
        return "with axes that are computed", "store the axes in the model"
    return None


def _einsum(scope: Scope, node: onnx.NodeProto) -> _Problem:
    equation = str(scope.attribute(node, "equation", ""))
    strange = set(equation) - set("abcdefghijklmnopqrstuvwxyz->., ")
    return (f"with {equation!r}", "use small letters as subscripts") if strange else None


_NORMS = _is("p", lambda p: p not in (1, 2), 2, "use p 1 or 2")
_FORMS: dict[str, tuple[_Form, ...]] = {
    "AveragePool": (_no_dilations, _spatial),
    "BatchNormalization": (
        _is("training_mode", bool, 0, "export for inference"),
        _one_output,
    ),
    "Cast": (_cast,),
    "Constant": (_constant,),
    "Conv": (_spatial,),
    "ConvTranspose": (_spatial, _deconvolution),
    "Dropout": (_training,),
    "Einsum": (_einsum,),
    "GRU": (_directions(2),),
    "LSTM": (_is("input_forget", bool, 0, "export without coupled gates"), _directions(3)),
    "LayerNormalization": (_one_output,),
    "LpNormalization": (_NORMS,),
    "LpPool": (_NORMS, _no_dilations),
    "MaxPool": (_one_output, _no_dilations, _spatial),
    "RNN": (_directions(1),),
    "Resize": (
        _resize,
        _is("antialias", bool, 0, "resize without antialiasing"),
        _is("keep_aspect_ratio_policy", lambda p: p != "stretch", "stretch", "give both sizes"),
    ),
    "ScatterND": (_is("reduction", lambda r: r != "none", "none", "scatter without reduction"),),
    "Squeeze": (_stored_axes,),
    "Unsqueeze": (_stored_axes,),
} | {name: (_stored_axes,) for name in SUPPORTED if name.startswith("Reduce")}
