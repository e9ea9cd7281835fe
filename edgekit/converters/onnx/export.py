"""TensorFlow graph -> float ONNX, by tf2onnx."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgekit.converters.onnx.simplify import drop_unread, fix_shape, rename, simplify
from edgekit.converters.sources.channels_first import channels_first
from edgekit.converters.sources.graph import FrozenGraph, one_line
from edgekit.converters.sources.keras import with_open_batch
from edgekit.errors import ModelError, require

OPSET = 17
"""The newest that TensorRT 8.6 reads, as do all later ones."""
_REORDERING = ("Transpose", "Identity")


def export_onnx(source: FrozenGraph, output_count: int | None = None) -> Any:
    """Return `source` as a float ONNX model, simplified, with pictures as NCHW.

    ONNX computes on pictures with their channels first, so inputs and outputs of rank 4 are turned
    around at the model's edges, where it costs nothing; `channels_first` is the source to match.

    Args:
        source: frozen, batch 1.
        output_count: how many of its outputs are those of the model; the others are layers whose
            tensors and nodes get their names, as far as they are still there.

    Returns:
        An `onnx.ModelProto` whose inputs and outputs are named as those of the source.

    Raises:
        ModelError: tf2onnx cannot convert it.
    """
    loops = source.model is not None and source.has_loops
    model = _converted(with_open_batch(source) if loops else source)
    graph = model.graph
    count = len(graph.output) if output_count is None else output_count
    layers = _roots(graph, [output.name for output in graph.output][count:])
    del graph.output[count:]
    drop_unread(graph)
    for tensor in graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    for tensor, spec in zip(graph.output, channels_first(source).outputs, strict=False):
        fix_shape(tensor, spec.shape)  # of an open batch as yet
    _rename_all(source, graph, layers)
    padded = {output for node in graph.node if node.op_type == "Pad" for output in node.output}
    # A convolution pads by itself, once the padding need not be seen.
    kept = [spec.name for spec in source.outputs if spec.name not in padded]
    simple = simplify(model, kept)
    _number_rest(simple.graph, {*kept, *(spec.name for spec in source.inputs)})
    return simple


def _converted(source: FrozenGraph) -> Any:
    tf: Any = require("tensorflow", "convert")
    tf2onnx: Any = require("tf2onnx", "convert")
    concrete = source.concrete

    def call(*tensors: Any) -> Any:
        return tf.nest.flatten(concrete(*tensors))

    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.op.name) for tensor in concrete.inputs
    ]
    function = tf.function(call, input_signature=signature, autograph=False)
    outputs = function.get_concrete_function().outputs
    try:
        with _quiet():
            model, _ = tf2onnx.convert.from_function(
                function,
                signature,
                opset=OPSET,
                inputs_as_nchw=[tensor.name for tensor in concrete.inputs if _is_picture(tensor)],
                outputs_as_nchw=[tensor.name for tensor in outputs if _is_picture(tensor)],
            )
    except Exception as error:  # tf2onnx raises many kinds
        raise ModelError(f"tf2onnx cannot convert this model to ONNX: {one_line(error)}") from error
    return model


def _is_picture(tensor: Any) -> bool:
    return len(tensor.shape) == 4


def _roots(graph: Any, tensors: Sequence[str]) -> list[str]:
    """Return the tensors that these are the values of, in whatever order."""
    makers = {output: node for node in graph.node for output in node.output}
    found = []
    for tensor in tensors:
        while tensor in makers and makers[tensor].op_type in _REORDERING:
            tensor = makers[tensor].input[0]
        found.append(tensor)
    return found


def _rename_all(source: FrozenGraph, graph: Any, layers: Sequence[str]) -> None:
    """Name inputs and outputs as those of the source, and computed tensors as their layers."""
    outputs = [tensor.name for tensor in graph.output]
    pairs = [*zip([t.name for t in graph.input], source.inputs, strict=True)]
    pairs += zip([*outputs, *layers], source.outputs, strict=True)
    made = {output for node in graph.node for output in node.output}
    edges = {tensor.name for tensor in (*graph.input, *graph.output)}
    # The first name stays: what two layers have in common is the output of the first.
    wanted = {t: spec.name for t, spec in reversed(pairs) if t in edges or t in made}
    # A tensor inside that happens to have one of these names gives way.
    taken = set(wanted.values())
    rename(graph, {name: f"{name}/inner" for name in made - set(wanted) if name in taken})
    rename(graph, wanted)
    for node in graph.node:
        node.name = node.output[0]


def _number_rest(graph: Any, named: set[str]) -> None:
    """Name what no layer computes by kind and place: tf2onnx counts on from model to model.

    No layer's name has a colon, so that these can be told from layers in a range table.
    """
    names = {}
    for number, node in enumerate(graph.node):
        for place, output in enumerate(node.output):
            if output and output not in named:
                names[output] = f"{node.op_type}:{number}" + (f":{place}" if place else "")
        for place, given in enumerate(node.input):
            names.setdefault(given, f"{node.op_type}:{number}:input:{place}")
    made = {output for node in graph.node for output in node.output}
    stored = {initializer.name for initializer in graph.initializer}
    rename(
        graph, {old: new for old, new in names.items() if old in made | stored and old not in named}
    )
    for node in graph.node:
        node.name = next(name for name in node.output if name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence tf2onnx' running account, and what it does that numpy warns of."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
