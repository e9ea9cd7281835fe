"""What a .tflite costs, by its graph; nothing is executed.

What operators multiply follows from the shapes of weights and outputs, which are laid out as in
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.errors import ModelError
from edgekit.profiling.cost._graph import Node, Tensor, cost_of_graph
from edgekit.profiling.results import Cost
from edgekit.runtime.tflite import OperatorSpec, TensorDetail, TfliteDescription, describe_tflite

_Shapes = Sequence[tuple[int, ...]]
_Multiplications = Callable[[_Shapes, tuple[int, ...]], int]

_DECIDED_LATER = "how often it runs is decided while it runs; its operators are counted once"
_NO_DEFINITION = "not an operator of LiteRT's own: its multiplications are not known"
# A constant that is unpacked into its layer's weights once, when the model is opened.
_UNPACKS = frozenset(("DEQUANTIZE", "DENSIFY"))


def read(path: Path) -> Cost:
    """Return what the .tflite at `path` costs.

    Raises:
        ModelError: it cannot be read, or is damaged.
        MissingPackage: ai-edge-litert, which brings the names of operators, is not installed.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model {path}: {error.strerror}") from error
    return cost_of_tflite(describe_tflite(content, str(path)))


def cost_of_tflite(model: TfliteDescription) -> Cost:
    """Return what a model costs."""
    tensors = {
        id(t): Tensor(t.name, t.shape, t.dtype, is_constant=t.constant_bytes > 0)
        for t in model.tensors
    }
    parameters = {id(t) for t in model.tensors if t.constant_bytes and _holds_numbers(t)}
    graphs: list[list[Node]] = [[] for _ in range(model.subgraphs)]
    runs = _runs(model)
    for operator in model.operators:
        source, target = (*operator.inputs[:1], None)[0], (*operator.outputs[:1], None)[0]
        if operator.name in _UNPACKS and source and target and source.constant_bytes:
            tensors[id(target)] = tensors[id(source)]
            parameters |= {id(target)}
        else:
            node = _node(operator, tensors, parameters)
            is_loop = operator.loop is not None and _runs_of_loop(operator, model) is not None
            note = "" if is_loop else node.note
            node = replace(node, note=note, runs=runs[operator.subgraph])
            graphs[operator.subgraph].append(node)
    written = {id(tensor) for node in graphs[0] for tensor in node.outputs}
    names = {spec.name for spec in model.outputs}
    # What nothing writes is an input, which LiteRT keeps, or a state between one run and the next.
    kept = [
        tensor
        for node in graphs[0]
        for tensor in (*node.inputs, *node.outputs)
        if id(tensor) not in written or tensor.name in names
    ]
    return cost_of_graph(graphs[0], graphs[1:], kept, model.size_bytes)


def _runs(model: TfliteDescription) -> list[int]:
    """Return how often each subgraph runs in an inference; 1 where that is not known."""
    runs = [1] * model.subgraphs
    for operator in model.operators:
        if operator.loop is not None and operator.subgraph < min(operator.loop):
            times = _runs_of_loop(operator, model)
            for subgraph in operator.loop:
                runs[subgraph] = runs[operator.subgraph] * (1 if times is None else times)
    return runs


def _runs_of_loop(loop: OperatorSpec, model: TfliteDescription) -> int | None:
    """Return how often a loop's body runs; None where that is decided while it runs.

    It is known where all that the condition asks is whether counters are less than a constant,
    and the body adds one to each: so Keras writes recurrent layers.
    """
    if loop.loop is None:
        return None
    condition, body = loop.loop
    limits = []
    for operator in model.operators:
        if operator.subgraph != condition or operator.name == "LOGICAL_AND":
            continue
        counter, limit = (*operator.inputs, None, None)[:2]
        places = [i for i, tensor in enumerate(model.arguments[condition]) if tensor is counter]
        if operator.name != "LESS" or limit is None or limit.value is None or not places:
            return None
        place = places[0]
        start = loop.inputs[place] if place < len(loop.inputs) else None
        if start is None or start.value is None or not _adds_one(body, place, model):
            return None
        limits.append(max(0, limit.value - start.value))
    return min(limits, default=None)


def _adds_one(body: int, place: int, model: TfliteDescription) -> bool:
    """Return whether a loop's body adds 1 to one of its values."""
    given, made = model.arguments[body][place:], model.results[body][place:]
    return any(
        operator.name == "ADD"
        and operator.outputs[:1] == made[:1]
        and any(tensor is given[0] for tensor in operator.inputs)
        and any(tensor is not None and tensor.value == 1 for tensor in operator.inputs)
        for operator in model.operators
        if operator.subgraph == body and given
    )


def _holds_numbers(tensor: TensorDetail) -> bool:
    """Whether a constant is one of numbers; plain integers are shapes, axes and indices."""
    return bool(tensor.scales) or "float" in tensor.dtype


def _node(operator: OperatorSpec, tensors: dict[int, Tensor], parameters: set[int]) -> Node:
    multiplies = _MACS.get(operator.name)
    numbers = [t for t in operator.inputs if t is not None and id(t) in parameters]
    if multiplies is None:  # a single number is a factor or a bound, not a weight
        numbers = [t for t in numbers if math.prod(t.shape) > 1]
    macs: int | None = 0
    note = ""
    if operator.is_custom or operator.name.startswith("STABLEHLO_"):
        macs, note = None, _NO_DEFINITION
    elif operator.name in ("WHILE", "IF", "CALL_ONCE"):
        note = _DECIDED_LATER
    elif multiplies is not None:
        shapes = [() if t is None else t.shape for t in operator.inputs]
        try:
            macs = multiplies(shapes, operator.outputs[0].shape)
        except IndexError:
            macs, note = None, "it has fewer inputs, outputs or dimensions than its definition"
    return Node(
        name=operator.outputs[0].name if operator.outputs else "",
        kind=operator.name,
        inputs=tuple(tensors[id(t)] for t in operator.inputs if t is not None),
        outputs=tuple(tensors[id(t)] for t in operator.outputs),
        macs=macs,
        weights=tuple(tensors[id(t)] for t in numbers),
        note=note,
    )


def _of_outputs(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Each output is the sum over one filter [out, …, in / groups]."""
    return math.prod(output) * math.prod(inputs[1][1:])


def _depthwise(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Each output is the sum over one window; filters are [1, height, width, channels]."""
    return math.prod(output) * math.prod(inputs[1][1:-1])


def _convolution_3d(inputs: _Shapes, output: tuple[int, ...]) -> int:
    return math.prod(output) * math.prod(inputs[1][:-1])  # [depth, height, width, in, out]


def _transposed(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Each input is spread over a window of each output channel; `in` is the filters' last."""
    return math.prod(inputs[2]) * math.prod(inputs[1][:-1])


def _matrices(inputs: _Shapes, output: tuple[int, ...]) -> int:
    """Rows times columns times what is summed over, whichever side is transposed."""
    return math.prod(output) * (math.prod(inputs[0][-2:]) // max(1, output[-2]))


def _recurrent(*slots: int) -> _Multiplications:
    """Each matrix of weights once a step and sequence; products within gates are not counted."""

    def multiplications(inputs: _Shapes, output: tuple[int, ...]) -> int:
        matrices = [inputs[slot] for slot in slots if slot < len(inputs) and inputs[slot]]
        return math.prod(inputs[0][:-1]) * sum(math.prod(shape) for shape in matrices)

    return multiplications


_LSTM = _recurrent(*range(1, 9), 16)
_MACS: dict[str, _Multiplications] = {
    "CONV_2D": _of_outputs,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _convolution_3d,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D_TRANSPOSE": _transposed,
    "FULLY_CONNECTED": _of_outputs,
    "BATCH_MATMUL": _matrices,
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*range(1, 9), 16, *range(18, 26), 33, *range(40, 48)),
    "RNN": _recurrent(1, 2),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2),
    "BIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2, 5, 6, 10, 11),
    "SVDF": _recurrent(1, 2),
}
