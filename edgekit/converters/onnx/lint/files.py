"""Rules about the model as a whole: opset, inputs, tensors stored in and beside the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.converters.onnx.lint.finding import Finding
from edgekit.converters.onnx.lint.scope import Scope, label, names, type_name
from edgekit.converters.onnx.read import external_file, stored_at

if TYPE_CHECKING:
    import onnx

OPSETS = range(9, 26)
"""https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html (11.x)."""

TYPES = names(
    "FLOAT FLOAT16 BFLOAT16 DOUBLE INT64 INT32 INT8 UINT8 BOOL INT4 FLOAT8E4M3FN FLOAT4E2M1"
)
"""Element types that the parser takes: onnx-tensorrt, docs/operators.md."""

# Inputs by place that set a shape: a network that is to be built without an optimization profile
# must know them.
_SHAPES = {
    "Reshape": (1,), "Expand": (1,), "Tile": (1,), "TopK": (1,), "Pad": (1,), "OneHot": (1,),
    "Squeeze": (1,), "Unsqueeze": (1,), "ConstantOfShape": (0,), "Resize": (2, 3),
    "Slice": (1, 2, 3, 4), "Range": (0, 1, 2), "Split": (1,), "CumSum": (1,),
}  # fmt: skip


def check(scope: Scope, folder: Path | None) -> Iterator[Finding]:
    """Yield what is wrong with the model whose outermost graph is `scope`."""
    model = scope.model
    yield from _opset(scope)
    stored = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name not in stored:
            yield from _input(scope, value)
    for inner in scope.walk():
        yield from _structure(inner)
        for name, tensor in inner.tensors():
            yield from _tensor(name, tensor, folder)
    if not model.graph.output:
        yield Finding(
            "refused", "no-output", "model", "the graph has no output", "export the model again"
        )


def _structure(scope: Scope) -> Iterator[Finding]:
    made = [name for node in scope.nodes for name in node.output if name]
    made += [tensor.name for tensor in scope.graph.initializer]
    problems = [
        (label(node), f"it takes {name!r}, which nothing makes")
        for node in scope.nodes
        for name in node.input
        if name and not scope.knows(name)
    ]
    problems += [
        (name, "an output that nothing makes") for name in scope.outputs if not scope.knows(name)
    ]
    problems += [
        (name, f"a tensor that is made {count} times")
        for name, count in Counter(made).items()
        if count > 1
    ]
    if (knot := _cycle(scope)) is not None:
        problems.append((label(knot), "it needs its own output"))
    for node, problem in problems:
        yield Finding("refused", "broken-graph", node, problem, "export the model again")


def _cycle(scope: Scope) -> onnx.NodeProto | None:
    """Return a node that waits for itself, or None."""
    makers = {name: index for index, node in enumerate(scope.nodes) for name in node.output}
    needs = {
        index: {makers[name] for name in node.input if name and name in makers}
        for index, node in enumerate(scope.nodes)
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        index: int = error.args[1][0]
        return scope.nodes[index]
    return None


def _opset(scope: Scope) -> Iterator[Finding]:
    if scope.opset not in OPSETS:
        yield Finding(
            "note",
            "opset",
            "model",
            f"opset {scope.opset} is outside {OPSETS[0]}..{OPSETS[-1]}, for which NVIDIA answers; "
            "the parser reads it as the nearest it knows",
            "export with opset 17, which TensorRT 8.6 and later read",
        )


def _input(scope: Scope, value: onnx.ValueInfoProto) -> Iterator[Finding]:
    dtype = scope.dtype(value.name)
    shape = scope.shape(value.name)
    if dtype not in TYPES:
        yield Finding(
            "refused",
            "element-type",
            value.name,
            f"input of type {dtype}, which TensorRT has not",
            "export with float32, float16, int32, int64, int8, uint8 or bool inputs",
        )
    elif dtype in ("DOUBLE", "INT64"):
        yield _wide(value.name, dtype)
    if shape is None:
        yield Finding(
            "refused",
            "missing-shape",
            value.name,
            "input without a shape: TensorRT cannot tell even its rank",
            "export with fixed input shapes",
        )
    elif any(size is None or size < 0 for size in shape):
        yield Finding(
            "refused",
            "dynamic-shape",
            value.name,
            f"input of open shape {_shape_text(value)}: without an optimization profile the "
            "builder gives no engine",
            "fix the dimensions (--input-shape), or build with a profile",
        )
    for node in scope.readers(value.name):
        places = [i for i, name in enumerate(node.input) if name == value.name]
        if set(places) & set(_SHAPES.get(node.op_type, ())):
            yield Finding(
                "refused",
                "dynamic-shape",
                value.name,
                f"input that sets a shape, in {node.op_type}: without an optimization profile the "
                "builder gives no engine",
                "make it a constant, or build with a profile",
            )


def _tensor(name: str, tensor: onnx.TensorProto, folder: Path | None) -> Iterator[Finding]:
    location = external_file(tensor)
    if location is not None and stored_at(tensor, folder) is None:
        yield Finding(
            "refused",
            "external-data",
            name,
            f"its values are in {location!r}, which is no plain file in the model's folder; it was "
            "not read",
            "put the file beside the model, or save the model with its weights inside",
        )
    dtype = type_name(tensor.data_type)
    if dtype not in TYPES:
        yield Finding(
            "refused",
            "element-type",
            name,
            f"stored tensor of type {dtype}, which TensorRT has not",
            "export it as float32, float16, int32, int64, int8, uint8 or bool",
        )
    elif dtype == "DOUBLE":
        yield _wide(name, dtype)


def _wide(name: str, dtype: str) -> Finding:
    if dtype == "DOUBLE":
        return Finding(
            "note",
            "wide-type",
            name,
            "DOUBLE is computed as FLOAT by TensorRT, so outputs differ from ONNX Runtime's",
            "export in float32",
        )
    return Finding(
        "note",
        "wide-type",
        name,
        "INT64 input: TensorRT before 10 takes it as INT32",
        "export with int32 inputs if older devices are meant",
    )


def _shape_text(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "x".join(str(d.dim_value) if d.dim_value > 0 else d.dim_param or "?" for d in dims)
