"""The graph of an .onnx file, read without the package `onnx`; and shapes that it does not hold.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import MissingPackage, ModelError
from edgekit.profiling.cost._graph import Tensor
from edgekit.runtime.backends._onnx import check_onnx
from edgekit.runtime.backends.onnxruntime import import_onnxruntime
from edgekit.runtime.protobuf import DamagedMessage, Message, message_field

_MODEL_GRAPH, _NODES, _GRAPH_OUTPUTS, _VALUE_NAME = 7, 1, 12, 1
_DTYPES = (
    *("", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool"),
    *("float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
    *("float8", "float8", "float8", "float8", "uint4", "int4", "float4", "float8", "uint2", "int2"),
)
_OF_RUNTIME = {"float": "float32", "double": "float64"}
_NEEDS_TENSORS = dict.fromkeys(("QuantizeLinear", "DequantizeLinear", "Relu", "Clip"), 1)
_FATAL = 4  # log severity


@dataclass
class OnnxNode:
    """One operator: names of the tensors it reads and writes, and the graphs in it."""

    kind: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    bodies: list[OnnxGraph]


@dataclass
class OnnxGraph:
    """One graph.

    Attributes:
        nodes: in the order they run; constants are none.
        tensors: what is known of them by name; dimensions that are open are 1.
        inputs, outputs: names.
        has_open: whether a dimension is open.
        numbers: constants that are one int64.
    """

    nodes: list[OnnxNode] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    has_open: bool = False
    numbers: dict[str, int] = field(default_factory=dict)


def read_graph(path: Path) -> OnnxGraph:
    """Return the graph in a file; where shapes are not in it, ONNX Runtime infers them if it can.

    Raises:
        ModelError: the file cannot be read, is damaged, or leads to other files.
    """
    check_onnx(path)
    content = path.read_bytes()
    try:
        graph = _graph(Message(content, 0, len(content)).message(_MODEL_GRAPH))
    except DamagedMessage as error:
        raise ModelError(f"{path} is a damaged .onnx file ({error})") from error
    made = [name for node in graph.nodes for name in node.outputs]
    unknown = [name for name in made if name not in graph.tensors]
    if unknown:
        _infer(content, graph, unknown)
    return graph


def _graph(message: Message) -> OnnxGraph:
    graph = OnnxGraph(
        inputs=[value.text(1) for value in message.messages(11)],
        outputs=[value.text(1) for value in message.messages(12)],
    )
    for slot in (13, 11, 12):
        for value in message.messages(slot):
            _add_value(graph, value)
    for stored in message.messages(5):
        _add_constant(graph, stored.text(8), stored)
    for sparse in message.messages(15):
        values = sparse.message(1)
        _add_constant(graph, values.text(8), values)
    for node in message.messages(_NODES):
        _add_node(graph, node)
    return graph


def _add_value(graph: OnnxGraph, value: Message) -> None:
    tensor_type = value.message(2).message(1)
    if not tensor_type.has(2):
        return
    shape = []
    for dimension in tensor_type.message(2).messages(1):
        size = dimension.integer(1, -1)
        graph.has_open |= size < 0
        shape.append(size if size >= 0 else 1)
    graph.tensors[value.text(1)] = Tensor(value.text(1), tuple(shape), _dtype(tensor_type, 1))


def _add_constant(graph: OnnxGraph, name: str, stored: Message) -> None:
    shape = tuple(stored.integers(1))
    if min(shape, default=0) < 0:
        raise DamagedMessage("a stored tensor of negative size")
    graph.tensors[name] = Tensor(name, shape, _dtype(stored, 2), is_constant=True)
    if graph.tensors[name].dtype == "int64" and graph.tensors[name].elements == 1:
        raw, listed = stored.content(9), stored.integers(7)
        number = int.from_bytes(raw, "little", signed=True) if len(raw) == 8 else None
        if number is not None or listed:
            graph.numbers[name] = listed[0] if number is None else number


def _dtype(message: Message, slot: int) -> str:
    code = message.integer(slot, 0)
    return _DTYPES[code] if 0 <= code < len(_DTYPES) else ""


def _add_node(graph: OnnxGraph, node: Message) -> None:
    kind, outputs = node.text(4), node.texts(2)
    attributes = node.messages(5)
    if kind == "Constant" and outputs:
        stored = next((a.message(5) for a in attributes if a.has(5)), None)
        if stored is not None:
            _add_constant(graph, outputs[0], stored)
        else:  # numbers in an attribute: bounds, axes and shapes
            graph.tensors[outputs[0]] = Tensor(outputs[0], (), "int64", is_constant=True)
        return
    bodies = [_graph(body) for a in attributes for slot in (6, 11) for body in a.messages(slot)]
    inputs, named = node.texts(1), [name for name in outputs if name]
    needs = _NEEDS_TENSORS.get(kind, 0)
    if len([name for name in inputs[:needs] if name]) < needs or len(named) < needs:
        raise DamagedMessage(f"an operator {kind} without input or output")
    graph.nodes.append(OnnxNode(kind, node.text(7), inputs, named, bodies))


def _infer(content: bytes, graph: OnnxGraph, names: list[str]) -> None:
    """Add what ONNX Runtime says of tensors once they are outputs; without it, they stay unknown.

    A message that is written behind another is merged into it, so the file needs no rewriting.
    """
    extra = b"".join(
        message_field(_GRAPH_OUTPUTS, message_field(_VALUE_NAME, name.encode()))
        for name in dict.fromkeys(names)
        if name not in graph.outputs
    )
    try:
        runtime = import_onnxruntime()
    except MissingPackage:
        return
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    try:
        session = runtime.InferenceSession(
            content + message_field(_MODEL_GRAPH, extra),
            options,
            providers=["CPUExecutionProvider"],
        )
    except Exception:  # noqa: BLE001 - every status is a class; what it cannot read stays unknown
        return
    for output in session.get_outputs():
        if output.name in graph.tensors or output.shape is None:
            continue
        is_open = [not isinstance(size, int) for size in output.shape]
        graph.has_open |= any(is_open)
        shape = tuple(1 if one else size for one, size in zip(is_open, output.shape, strict=True))
        dtype = str(output.type).removeprefix("tensor(").removesuffix(")")
        graph.tensors[output.name] = Tensor(output.name, shape, _OF_RUNTIME.get(dtype, dtype))
