"""What is in an .onnx file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgekit.converters.onnx.lint import lint
from edgekit.converters.onnx.lint.scope import Scope, with_types
from edgekit.converters.onnx.read import read_model, stored_at
from edgekit.isolated import Progress
from edgekit.specs import TensorSpec

if TYPE_CHECKING:
    import onnx

_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}


class OnnxDescription(msgspec.Struct, frozen=True):
    """What an .onnx file holds.

    Attributes:
        inputs: those that are not stored; an open dimension is -1, an unknown shape empty.
        outputs: in order.
        operators: how many of each, those of loops, branches and functions too.
        size_bytes: of the file and of the external data in its folder.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: dict[str, int]
    size_bytes: int


def inspect_file(path: str, on_progress: Progress | None = None) -> dict[str, Any]:
    """Return the description of the .onnx file at `path` and its findings, as JSON values.

    Meant for `run_isolated`: onnx infers shapes in native code, which ends the process on some
    damaged files (seen: a Slice of a negative dimension).
    """
    file = Path(path)
    model = read_model(file)
    findings = lint(model, file.parent)
    facts: dict[str, Any] = msgspec.to_builtins(describe(model, file))
    return facts | {"findings": msgspec.to_builtins(findings)}


def describe(model: onnx.ModelProto, path: Path) -> OnnxDescription:
    """Return what `model`, read from `path`, holds."""
    typed = with_types(model)
    scope = Scope(typed.graph, typed, path.parent)
    graphs = [*(inner.graph for inner in scope.walk()), *model.functions]
    counts = Counter(node.op_type for graph in graphs for node in graph.node)
    tensors = [tensor for inner in scope.walk() for _, tensor in inner.tensors()]
    files = {stored_at(tensor, path.parent) for tensor in tensors} - {None}
    stored = {tensor.name for tensor in model.graph.initializer}
    return OnnxDescription(
        inputs=tuple(_spec(scope, v.name) for v in model.graph.input if v.name not in stored),
        outputs=tuple(_spec(scope, value.name) for value in model.graph.output),
        operators=dict(counts.most_common()),
        size_bytes=sum(file.stat().st_size for file in (path, *files) if file is not None),
    )


def _spec(scope: Scope, name: str) -> TensorSpec:
    """Return input or output `name`; its grid is that of the Q/DQ it is joined to, if any."""
    declared = scope.shape(name) or ()
    dtype = scope.dtype(name) or "unknown"
    pair = next((n for n in scope.readers(name) if n.op_type == "DequantizeLinear"), None)
    maker = scope.producer(name)
    if maker is not None:
        pair = maker if maker.op_type == "QuantizeLinear" else None
    grid = [scope.values(given) for given in pair.input[1:3]] if pair is not None else []
    scale = grid[0] if grid else None
    zero = grid[1] if len(grid) > 1 else None
    is_single = scale is not None and scale.size == 1
    return TensorSpec(
        name=name,
        shape=tuple(-1 if size is None else size for size in declared),
        dtype=_NAMES.get(dtype, dtype.lower()),
        scale=float(scale.reshape(-1)[0]) if scale is not None and is_single else None,
        zero_point=(int(zero.reshape(-1)[0]) if zero is not None and zero.size else 0)
        if is_single
        else None,
    )
