"""A prepared graph as TensorFlow traces it, with the output of each layer as an output of its own.

So the tensors of layers can be told in what a converter makes of it, whatever it renames.
"""

from __future__ import annotations

from typing import Any

from edgekit.converters.quantize.graph import Graph
from edgekit.converters.quantize.walk import fused_tensors, is_fused_relu
from edgekit.converters.sources.graph import FrozenGraph, freeze
from edgekit.converters.sources.keras import with_constants
from edgekit.errors import require

# Layers that only move values, so that their output needs no range; to ask TensorFlow's converter
# for their output would keep it from dropping the operator.
_MOVING = ("Flatten", "Reshape", "Permute", "RepeatVector", "Identity")
# Layers whose last operator is a sum, which the converter gives the ReLU behind it.
_ENDING_IN_SUM = ("LayerNormalization", "GroupNormalization")


def traced_by_layers(source: FrozenGraph, graph: Graph) -> tuple[FrozenGraph, list[str]]:
    """Return the `model_by_layers` of a graph frozen, and what its outputs are called.

    Args:
        source: what the graph is a copy of.
        graph: prepared.
    """
    keras: Any = require("keras", "convert")
    model, labels = model_by_layers(graph)

    def call(*tensors: Any) -> Any:
        return keras.tree.flatten(model(list(tensors), training=False))

    return freeze(source.kind, with_constants(model, call), source.inputs, labels), labels


def model_by_layers(graph: Graph) -> tuple[Any, list[str]]:
    """Return the graph as a Keras model, and what its outputs are called.

    Behind the model's own outputs come those of all layers that need a range, but for those that
    are fused with the next layer.
    """
    keras: Any = require("keras", "convert")
    names = graph.names()
    hidden = fused_tensors(graph) | _fused_sums(graph) | {id(tensor) for tensor in graph.outputs}
    taps = [
        tensor
        for step in graph.steps
        if type(step.layer).__name__ not in _MOVING
        for tensor in step.outputs
        if id(tensor) not in hidden
    ]
    # A name of its own, or Keras would number it and no file be like another.
    model = keras.Model(list(graph.inputs), [*graph.outputs, *taps], name="model")
    return model, [names[id(tensor)] for tensor in (*graph.outputs, *taps)]


def _fused_sums(graph: Graph) -> set[int]:
    """Return the ids of tensors of layers of several operators that the converter fuses away."""
    users = graph.users()
    return {
        id(step.outputs[0])
        for step in graph.steps
        if type(step.layer).__name__ in _ENDING_IN_SUM
        and is_fused_relu(users.get(id(step.outputs[0]), []))
    }
