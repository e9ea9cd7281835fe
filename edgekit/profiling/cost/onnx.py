"""What an .onnx file costs, by its graph.

A QuantizeLinear with its DequantizeLinear is no work of its own but says in which integers engines
keep a tensor: weights and activations between them count in that size. What stands around them at
the model's ends, where floats truly become integers, is a layer.

What operators multiply is as defined in https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

import math
from collections import ChainMap, Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.profiling.cost._graph import Node, Tensor, cost_of_graph
from edgekit.profiling.cost._onnx_file import OnnxGraph, OnnxNode, read_graph
from edgekit.profiling.results import Cost

_Shapes = Sequence[tuple[int, ...]]
_Multiplications = Callable[[_Shapes, tuple[int, ...]], int]

_DECIDED_LATER = "how often it runs is decided while it runs; its operators are counted once"
_AT_MOST = "its operators are counted for {} runs, the most that it may have"
_COUNTABLE = 1 << 20  # a loop without a limit has the largest number as its limit
_NO_DEFINITION = "not an operator of ONNX's own: its multiplications are not known"
_NOT_COUNTED = "its multiplications are not counted: they depend on more than shapes"
_NO_SHAPES = "its shapes are neither in the file nor inferred; ONNX Runtime may: edgekit[onnx]"
_DEPENDS = frozenset(("Einsum", "DFT", "STFT", "Attention"))
# Engines compute them within the operator before, in its memory.
_ACTIVATIONS = frozenset(("Relu", "Clip"))
# Their constants are sizes and scales.
_NONE = frozenset(("Resize", "Upsample", "QuantizeLinear", "DequantizeLinear"))


def read(path: Path) -> Cost:
    """Return what the .onnx file at `path` costs.

    Raises:
        ModelError: it cannot be read, is damaged, or leads to other files.
    """
    graph = read_graph(path)
    bodies: list[list[Node]] = []
    tensors: ChainMap[str, Tensor] = ChainMap()
    nodes = _nodes(graph, tensors, bodies)
    kept = [tensors[name] for name in (*graph.inputs, *graph.outputs) if name in tensors]
    notes = ("open dimensions count as 1",) if graph.has_open else ()
    return cost_of_graph(nodes, bodies, kept, path.stat().st_size, notes)


def _nodes(
    graph: OnnxGraph, tensors: ChainMap[str, Tensor], bodies: list[list[Node]], runs: int = 1
) -> list[Node]:
    """Return a graph's operators, which run `runs` times; those of graphs in it go to `bodies`."""
    tensors.update(graph.tensors)
    for node in graph.nodes:
        for name in (*node.inputs, *node.outputs):
            if name and name not in tensors:
                tensors[name] = Tensor(name, None, "")
    numbers = _keep_in_integers(graph, tensors)
    nodes = []
    for node in graph.nodes:
        most = _most_runs(node, graph)
        for body in node.bodies:
            often = runs * (1 if most is None else most)
            bodies.append(_nodes(body, tensors.new_child(), bodies, often))
        if _is_pair(node) and tensors[node.inputs[0]] is tensors[node.outputs[0]]:
            continue
        said = replace(_node(node, tensors, numbers), runs=runs)
        if node.bodies:
            note = _DECIDED_LATER if most is None else _AT_MOST.format(most)
            said = replace(said, macs=0, note=note)
        nodes.append(said)
    return nodes


def _most_runs(node: OnnxNode, graph: OnnxGraph) -> int | None:
    """Return the most that a loop's body runs, which its first input says; None: not known."""
    most = graph.numbers.get(node.inputs[0]) if node.kind == "Loop" and node.inputs else None
    return most if most is not None and 0 <= most <= _COUNTABLE else None


def _keep_in_integers(graph: OnnxGraph, tensors: ChainMap[str, Tensor]) -> set[str]:
    """Let tensors be those that Q/DQ pairs say; return the names of constants in integers."""
    readers = _readers(graph)
    quantized = Counter(node.inputs[0] for node in graph.nodes if _is_pair(node, "QuantizeLinear"))
    given = set(graph.inputs)
    numbers: set[str] = set()
    for node in graph.nodes:
        if _is_pair(node, "QuantizeLinear"):
            source, target = node.inputs[0], node.outputs[0]
            if source not in given and readers[source] == quantized[source]:
                if "int" not in tensors[source].dtype:
                    is_constant = tensors[source].is_constant
                    tensors[source] = replace(tensors[target], is_constant=is_constant)
                tensors[target] = tensors[source]
        elif _is_pair(node, "DequantizeLinear") and node.outputs[0] not in graph.outputs:
            source, target = node.inputs[0], node.outputs[0]
            tensors[target] = tensors[source]
        else:
            continue
        if tensors[target].is_constant:
            numbers.update((source, target))
    for node in reversed(graph.nodes):
        if node.kind in _ACTIVATIONS and readers[node.inputs[0]] == 1:
            before, after = tensors[node.inputs[0]], tensors[node.outputs[0]]
            if node.inputs[0] not in given and "int" in after.dtype:
                tensors[node.inputs[0]] = replace(before, dtype=after.dtype)
    return numbers


def _readers(graph: OnnxGraph) -> Counter[str]:
    """Return how often each tensor is read, graphs within and the end of the model included."""
    readers = Counter(name for node in graph.nodes for name in node.inputs)
    readers.update(graph.outputs)
    readers.update(name for node in graph.nodes for body in node.bodies for name in _outer(body))
    return readers


def _is_pair(node: OnnxNode, *kinds: str) -> bool:
    return node.kind in (kinds or ("QuantizeLinear", "DequantizeLinear"))


def _outer(graph: OnnxGraph) -> set[str]:
    """Return the tensors of other graphs that a graph reads."""
    read = {name for node in graph.nodes for name in node.inputs}
    read.update(name for node in graph.nodes for body in node.bodies for name in _outer(body))
    made = {name for node in graph.nodes for name in node.outputs}
    return read - made - graph.tensors.keys()


def _node(node: OnnxNode, tensors: ChainMap[str, Tensor], numbers: set[str]) -> Node:
    given = [tensors[name] if name else None for name in node.inputs]
    outputs = tuple(tensors[name] for name in node.outputs)
    macs: int | None = 0
    note = ""
    if node.kind in _MACS:
        macs, note = _multiplications(_MACS[node.kind][1], given, outputs)
    elif node.domain not in ("", "ai.onnx") and node.kind not in _ELEMENT_BY_ELEMENT:
        macs, note = None, _NO_DEFINITION
    elif node.kind in _DEPENDS:
        macs, note = None, _NOT_COUNTED
    return Node(
        name=node.outputs[0] if node.outputs else "",
        kind=node.kind,
        inputs=tuple(tensor for tensor in given if tensor is not None),
        outputs=outputs,
        macs=macs,
        weights=tuple(_weights(node, given, numbers)),
        note=note,
        is_in_place=node.kind in _ACTIVATIONS,
    )


def _weights(node: OnnxNode, given: Sequence[Tensor | None], numbers: set[str]) -> Iterator[Tensor]:
    """Yield the parameters of an operator; a single number is a factor or a bound, not a weight."""
    slots = _MACS[node.kind][0] if node.kind in _MACS else range(len(given))
    for slot in slots:
        tensor = given[slot] if slot < len(given) else None
        if tensor is None or not tensor.is_constant:
            continue
        is_number = "float" in tensor.dtype or node.inputs[slot] in numbers
        if node.kind in _MACS or (is_number and tensor.elements > 1 and node.kind not in _NONE):
            yield tensor


def _multiplications(
    multiplies: _Multiplications, given: Sequence[Tensor | None], outputs: Sequence[Tensor]
) -> tuple[int | None, str]:
    shapes = [() if tensor is None else tensor.shape for tensor in (*given, *outputs[:1])]
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes):
        return None, _NO_SHAPES
    try:
        return multiplies(known[: len(given)], known[len(given)]), ""
    except IndexError:
        return None, "it has fewer inputs, outputs or dimensions than its definition"


def _convolution(weights: int) -> _Multiplications:
    """Each output is the sum over one filter [out, in / groups, …]."""
    return lambda inputs, output: math.prod(output) * math.prod(inputs[weights][1:])


def _transposed(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Each input is spread over a window of each output channel; filters [in, out / groups, …]."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _product(inputs: _Shapes, output: tuple[int, ...]) -> int:
    return math.prod(output) * inputs[0][-1]


def _gemm(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Of either side, each may be transposed."""
    return math.prod(output) * (math.prod(inputs[0]) // max(1, output[0]))


def _recurrent(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Both matrices [directions, gates, …] once a step and sequence; data [steps, batch, in]."""
    return math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2]))


# Where an operator's weights may stand, and what it multiplies.
_MACS: dict[str, tuple[tuple[int, ...], _Multiplications]] = {
    "Conv": ((1, 2), _convolution(1)),
    "FusedConv": ((1, 2), _convolution(1)),
    "ConvInteger": ((1,), _convolution(1)),
    "DeformConv": ((1, 3), _convolution(1)),
    "QLinearConv": ((3, 8), _convolution(3)),
    "ConvTranspose": ((1, 2), _transposed),
    "MatMul": ((0, 1), _product),
    "MatMulInteger": ((0, 1), _product),
    "QLinearMatMul": ((0, 3), _product),
    "Gemm": ((0, 1, 2), _gemm),
    "QGemm": ((0, 3, 6), _gemm),
    "LSTM": ((1, 2, 3, 7), _recurrent),
    "GRU": ((1, 2, 3), _recurrent),
    "RNN": ((1, 2, 3), _recurrent),
}
# Of ONNX Runtime's own operators those that work element by element.
_ELEMENT_BY_ELEMENT = frozenset(
    ("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearSoftmax", "Gelu")
    + ("QLinearAveragePool", "QLinearGlobalAveragePool", "QuantizeLinear", "DequantizeLinear")
)
