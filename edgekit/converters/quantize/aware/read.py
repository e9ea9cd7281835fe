"""A quantize-aware model read back: its float graph, and the ranges that it has learned."""

from __future__ import annotations

from typing import Any

from edgekit.converters.quantize.aware.placement import (
    float_steps,
    keeps_grid,
    merges,
    place,
    range_on,
)
from edgekit.converters.quantize.fold import fold
from edgekit.converters.quantize.graph import (
    Graph,
    Step,
    Unsupported,
    copy_of,
    flatten,
    rebuild,
    repeat,
)
from edgekit.converters.quantize.ranges import Range, RangeTable, Scheme
from edgekit.errors import ModelError, require
from edgekit.specs import TensorSpec

FLOAT_SUFFIX = "_float"
"""What a layer's name ends with if an output of the model took it over."""

_MARKS = ("FakeQuantize", "Identity")


def is_quantize_aware(model: Any) -> bool:
    """Whether a Keras model, or one inside it, came from `quantize_aware`."""
    return any(
        type(layer).__name__ == "FakeQuantize"
        and type(layer).__module__ == "edgekit.converters.quantize.aware.layers"
        or (hasattr(layer, "layers") and is_quantize_aware(layer))
        for layer in model.layers
    )


def trained_table(model: Any) -> tuple[Graph, RangeTable]:
    """Return the float graph of a quantize-aware model, and its ranges by `Graph.names`.

    The graph has plain Keras layers with the trained float weights, BatchNormalization folded as
    `fold` does, and no fake quantization. Every tensor of an int8 operator has a range, but those
    that are fused away.

    Raises:
        ModelError: the model is not quantize-aware, or cannot be read.
    """
    if not is_quantize_aware(model):
        raise ModelError(
            f"{model.name} is not quantize-aware; make it so by edgekit.quantize_aware"
        )
    try:
        flat, _ = flatten(model, inputs_of(model))
    except Unsupported as error:
        raise ModelError(f"the quantize-aware model cannot be read: {error}") from error
    folded, _ = fold(_with_plain_layers(flat))
    graph, ranges = _without_fake_quantization(folded)
    table = RangeTable(
        scheme=_scheme(flat),
        origin="trained",
        tensors=_by_name(graph, ranges, _scheme(flat)),
        precisions={step.layer.name: "fp32" for step in float_steps(graph)},
    )
    return graph, table


def inputs_of(model: Any) -> tuple[TensorSpec, ...]:
    """Return the inputs of a functional or sequential model, batch 1.

    Raises:
        ModelError: it has none yet, or one with an open dimension.
    """
    if not model.inputs:
        raise ModelError(
            f"{model.name} does not say what it takes; give it an Input, or call it once"
        )
    specs = []
    for tensor in model.inputs:
        shape = tuple(tensor.shape[1:])
        if None in shape:
            raise ModelError(
                f"the input {tensor.name} of {model.name} has shape {list(tensor.shape)}; all "
                "dimensions but the batch must be fixed: build the model for one size"
            )
        specs.append(TensorSpec(tensor.name.split(":")[0], (1, *shape), str(tensor.dtype)))
    return tuple(specs)


def _with_plain_layers(graph: Graph) -> Graph:
    """Return the graph with Keras' layers in the place of ours, but for `FakeQuantize`."""
    keras: Any = require("keras", "convert")
    taken = {step.layer.name for step in graph.steps if type(step.layer).__name__ not in _MARKS}

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer, kind = step.layer, type(step.layer).__name__
        name = layer.name.removesuffix(FLOAT_SUFFIX)
        name = layer.name if name in taken else name
        if kind == "QuantizedWeights":
            copy, weights = copy_of(layer.layer, name=name), layer.get_weights()
        elif kind == "FreezingBatchNormalization":
            config = {**layer.get_config(), "name": name}
            config.pop("freeze_after")
            copy, weights = keras.layers.BatchNormalization(**config), layer.get_weights()[:-1]
        else:
            return repeat(new, step, args, kwargs, name=name)
        result = new.call(copy, *args)
        copy.set_weights(weights)
        return result

    return rebuild(graph, emit)


def _without_fake_quantization(graph: Graph) -> tuple[Graph, dict[int, Range]]:
    """Return the plain graph, and the range of each tensor that had one of its own, by its id."""
    ranges: dict[int, Range] = {}

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if type(step.layer).__name__ != "FakeQuantize":
            return repeat(new, step, args, kwargs)
        if kwargs.get("follows", True):
            ranges[id(args[0])] = step.layer.range()
        return args[0]

    return rebuild(graph, emit), ranges


def _scheme(graph: Graph) -> Scheme:
    found = next(step.layer for step in graph.steps if type(step.layer).__name__ == "FakeQuantize")
    scheme: Scheme = found.scheme
    return scheme


def _by_name(graph: Graph, trained: dict[int, Range], scheme: Scheme) -> dict[str, Range]:
    """Return the ranges by name: trained ones, and those that follow from the operators."""
    ranges = dict(trained)
    for key, found in place(graph).items():
        if found.kind == "fixed" and found.fixed is not None:
            ranges.setdefault(key, range_on(scheme, found.fixed.min, found.fixed.max))
        elif found.kind == "same" and found.source in ranges:
            ranges.setdefault(key, ranges[found.source])
    for step in reversed(graph.steps):
        if (merges(step) or keeps_grid(step)) and id(step.outputs[0]) in ranges:
            for tensor in step.inputs:
                ranges.setdefault(id(tensor), ranges[id(step.outputs[0])])
    return {name: ranges[key] for key, name in graph.names().items() if key in ranges}
