"""Which last layers of an int8 model give int16: what 8 bits would take from their answers.

The outputs of a network are read by people and programs, not by a next layer that averages errors
out. With 256 levels over the range of all logits, the two best classes are often one level, or
none, apart: on a MobileNet half of all answers that int8 changes are due to that last rounding.
LiteRT computes a layer of int8 weights and int16 activations in integers, too, but some 30 times as
slowly as an int8 one, so it is for layers that are next to nothing of the model's work.
"""

from __future__ import annotations

from collections import defaultdict

from edgekit.converters.tflite.flatbuffer import size_of
from edgekit.converters.tflite.graph import FloatGraph
from edgekit.converters.tflite.operators import OPERATORS

LARGEST_SHARE = 0.001  # of the multiplications: 3 % of the time, at 30 times the cost
_BEHIND = ("SOFTMAX", "LOGISTIC", "TANH", "RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def wide_layers(
    graph: FloatGraph, largest_share: float = LARGEST_SHARE, *, states: int = 0
) -> tuple[str, ...]:
    """Return the names of the layers that compute an output in 16 bits, in order of execution.

    An output qualifies where a dense layer, or a convolution of one place, makes it, with at most
    an activation or a reshape behind it.

    Args:
        graph: of the float model.
        largest_share: of the model's work that such a layer may be, 0..1.
        states: how many of the last outputs are states, which are not meant.
    """
    shares, found = work_shares(graph), set()
    outputs = graph.graph.outputs
    for output in graph.activations(outputs[: len(outputs) - states]):
        chain = _chain(graph, output)
        if chain and shares[chain[-1]] <= largest_share:
            found.update(chain)
    return tuple(name for name in shares if name in found)


def work_shares(graph: FloatGraph) -> dict[str, float]:
    """Return each layer's share of the work, in order: multiplications, else output values."""
    tensors = graph.graph.tensors
    work: defaultdict[str, float] = defaultdict(float)
    for operator, kind in zip(graph.operators, graph.kinds, strict=True):
        if not operator.outputs:
            continue
        amount = float(sum(size_of(tensors[index]) for index in operator.outputs))
        rule = OPERATORS.get(kind)
        if rule is not None and rule.weights is not None:
            weights = tensors[operator.inputs[rule.weights]]
            amount *= size_of(weights) / int(weights.shape[rule.axis])
        work[graph.label(operator.outputs[0])] += amount
    total = sum(work.values())
    return {name: amount / total for name, amount in work.items()}


def _chain(graph: FloatGraph, output: int) -> list[str]:
    """Return the names from an output back to the layer of weights that makes it; empty: none."""
    chain, index = [], output
    while graph.uses[index] == 1:
        found = graph.maker(index)
        if found is None:
            break
        operator, kind = found
        chain.append(graph.label(index))
        tensor = graph.graph.tensors[index]
        if kind == "FULLY_CONNECTED" or (
            kind == "CONV_2D" and size_of(tensor) == int(tensor.shape[-1])
        ):
            return chain
        if kind not in _BEHIND:
            break
        index = operator.inputs[0]
    return []
