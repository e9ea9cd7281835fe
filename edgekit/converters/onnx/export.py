"""TensorFlow graph -> float ONNX, by tf2onnx."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgekit.converters.onnx.simplify import drop_unread, fix_shape, rename, simplify
from edgekit.converters.quantize.graph import Graph
from edgekit.converters.quantize.static import prepare_static
from edgekit.converters.quantize.taps import model_by_layers
from edgekit.converters.sources.channels_first import channels_first
from edgekit.converters.sources.graph import FrozenGraph, one_line
from edgekit.converters.sources.keras import with_open_batch
from edgekit.errors import ModelError, require

OPSET = 17
"""The newest that TensorRT 8.6 reads, as do all later ones."""
_FOR_XLA = "_XlaMustCompile"
_REORDERING = ("Transpose", "Identity")


def export_onnx(source: FrozenGraph) -> Any:
    """Return `source` as a float ONNX model, simplified, with pictures as NCHW.

    ONNX computes on pictures with their channels first, so inputs and outputs of rank 4 are turned
    around at the model's edges, where it costs nothing; `channels_first` is the source to match.

    Args:
        source: frozen, batch 1.

    Returns:
        An `onnx.ModelProto` whose inputs and outputs are named as those of the source.

    Raises:
        ModelError: tf2onnx cannot convert it.
    """
    names = [spec.name for spec in source.outputs]
    if source.model is not None and source.has_loops:
        return _finished(_of_concrete(with_open_batch(source).concrete), source, names)
    if source.model is not None:
        graph = prepare_static(source, None, ()).graph
        if graph is not None:
            return _finished(_of_keras(graph.model(), source), source, names)
    return _finished(_of_concrete(source.concrete), source, names)


def export_layers(source: FrozenGraph, graph: Graph) -> Any:
    """Return a prepared graph like `export_onnx`, its tensors and nodes named as its layers.

    Args:
        source: what the graph is a copy of.
        graph: prepared.
    """
    model, labels = model_by_layers(graph)
    return _finished(_of_keras(model, source), source, labels)


def _of_concrete(concrete: Any) -> Any:
    tf: Any = require("tensorflow", "convert")

    def call(*tensors: Any) -> Any:
        return tf.nest.flatten(concrete(*tensors))

    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.op.name) for tensor in concrete.inputs
    ]
    return _converted(call, signature, [t.name for t in concrete.inputs if len(t.shape) == 4])


def _of_keras(model: Any, source: FrozenGraph) -> Any:
    """Convert a model with its weights as inputs, which become constants only then.

    tf2onnx copies constants over and over: with them ResNet-50 took 8 GB and ten times as long.
    """
    tf: Any = require("tensorflow", "convert")
    keras: Any = require("keras", "convert")
    onnx: Any = require("onnx", "convert")
    given = {f"weight_{n}": v for n, v in enumerate(model.variables) if v.dtype == "float32"}
    others = [(v, v.numpy()) for v in model.variables if v.dtype != "float32"]
    count = len(source.inputs)

    def call(*tensors: Any) -> Any:
        mapping = [*zip(given.values(), tensors[count:], strict=True)]
        mapping += [(variable, tf.constant(value)) for variable, value in others]
        with keras.StatelessScope(state_mapping=mapping):
            return keras.tree.flatten(model(list(tensors[:count]), training=False))

    inputs = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{n}")
        for n, spec in enumerate(source.inputs)
    ]
    weights = [tf.TensorSpec(v.shape, v.dtype, name=name) for name, v in given.items()]
    pictures = [f"{spec.name}:0" for spec in inputs if len(spec.shape) == 4]
    proto = _converted(call, [*inputs, *weights], pictures)
    variables = {tensor.name: given.get(tensor.name.split(":")[0]) for tensor in proto.graph.input}
    edges = [tensor for tensor in proto.graph.input if variables[tensor.name] is None]
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(variable.numpy(), name)
        for name, variable in variables.items()
        if variable is not None
    )
    del proto.graph.input[:]
    proto.graph.input.extend(edges)
    return proto


def _converted(call: Callable[..., Any], signature: Sequence[Any], pictures: Sequence[str]) -> Any:
    tf: Any = require("tensorflow", "convert")
    tf2onnx: Any = require("tf2onnx", "convert")
    _teach_erfc()
    traced = tf.function(call, input_signature=signature, autograph=False)
    try:
        with _quiet():
            function = _readable(traced)
            outputs = function.get_concrete_function().outputs
            model, _ = tf2onnx.convert.from_function(
                function,
                signature,
                opset=OPSET,
                inputs_as_nchw=pictures,
                outputs_as_nchw=[tensor.name for tensor in outputs if len(tensor.shape) == 4],
            )
    except Exception as error:  # tf2onnx raises many kinds
        raise ModelError(f"tf2onnx cannot convert this model to ONNX: {one_line(error)}") from error
    _check_operators(model)
    return model


def _readable(function: Any) -> Any:
    """Return a function whose graph tf2onnx reads as it is meant.

    Without the mark for XLA, which keeps functions from being inlined: Keras 3 sets it on grouped
    convolutions, which TensorFlow otherwise cannot compute on a CPU. And with sums as sums.
    """
    tf: Any = require("tensorflow", "convert")
    concrete = function.get_concrete_function()
    definition = concrete.graph.as_graph_def()
    functions = definition.library.function
    nodes = [*definition.node, *(node for one in functions for node in one.node_def)]
    marked = [one for one in (*functions, *nodes) if _FOR_XLA in one.attr]
    for one in marked:
        del one.attr[_FOR_XLA]
    if not _restore_sums(concrete.graph, definition) and not marked:
        return function

    def call(*tensors: Any) -> Any:
        values = [*tensors, *concrete.captured_inputs]
        given = dict(zip([tensor.name for tensor in concrete.inputs], values, strict=True))
        wanted = [tensor.name for tensor in concrete.outputs]
        return tf.graph_util.import_graph_def(definition, given, wanted)

    return tf.function(call, input_signature=function.input_signature, autograph=False)


def _restore_sums(graph: Any, definition: Any) -> int:
    """Make sums of what Keras adds as a bias though it was computed; return how many there were.

    At batch 1 a map of 1x1 looks like a bias to `keras.ops.add`, so residual sums become BiasAdd,
    which tf2onnx gives to the convolution in front as a second bias.
    """
    makers = {node.name: node for node in definition.node}
    found = 0
    for node in definition.node:
        squeezed = makers.get(node.input[1].split(":")[0]) if node.op == "BiasAdd" else None
        if squeezed is None or squeezed.op != "Squeeze":
            continue
        value = squeezed.input[0]
        last = graph.get_operation_by_name(value.split(":")[0]).outputs[0].shape[-1]
        if _is_stored(makers, value) or last == 1:
            continue
        node.op, node.input[1] = "AddV2", value
        del node.attr["data_format"]
        found += 1
    return found


def _is_stored(makers: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor holds weights, given or constant, whatever their shape was before."""
    node = makers.get(name.split(":")[0])
    while node is not None and node.op in ("Reshape", "Squeeze", "Identity"):
        node = makers.get(node.input[0].split(":")[0])
    return node is None or node.op in ("Placeholder", "Const")


@functools.cache
def _teach_erfc() -> None:
    """Teach tf2onnx the operator of Keras' exact GELU, which it lacks: 1 - erf(x)."""
    onnx, handler = require("onnx", "convert"), require("tf2onnx.handler", "convert")

    class Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            (given,), (made,) = node.input, node.output
            shapes, types = [ctx.get_shape(made)], [ctx.get_dtype(made)]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(types[0])
            one = ctx.make_const(f"{node.name}/one", np.ones((), dtype))
            ctx.remove_node(node.name)
            erf = ctx.make_node("Erf", [given], shapes=shapes, dtypes=types)
            operands = [one.output[0], erf.output[0]]
            ctx.make_node("Sub", operands, outputs=[made], shapes=shapes, dtypes=types)

    handler.tf_op("Erfc")(Erfc)


def _check_operators(model: Any) -> None:
    """Refuse what tf2onnx left as it was: it hands on TensorFlow's operators that it lacks."""
    onnx: Any = require("onnx", "convert")
    kinds = sorted({node.op_type for node in model.graph.node if not node.domain})
    left = [kind for kind in kinds if not onnx.defs.has(kind, OPSET)]
    if left:
        raise ModelError(
            f"ONNX has nothing for this model's TensorFlow operators {', '.join(left[:5])}; build "
            f"it without them, or choose --format litert"
        )


def _finished(model: Any, source: FrozenGraph, labels: Sequence[str]) -> Any:
    """Return tf2onnx' model simplified, with names, and without the outputs of single layers.

    Args:
        model: with the outputs of `source`, and then those of layers.
        source: whose inputs it has.
        labels: names of all those outputs.
    """
    graph = model.graph
    count = len(source.outputs)
    layers = _roots(graph, [output.name for output in graph.output][count:])
    del graph.output[count:]
    drop_unread(graph)
    for tensors, specs in (
        (graph.input, channels_first(source).inputs),
        (graph.output, channels_first(source).outputs),
    ):
        for tensor, spec in zip(tensors, specs, strict=True):
            fix_shape(tensor, spec.shape)  # of an open batch as yet
    _rename_all(source, graph, layers, labels)
    padded = {output for node in graph.node if node.op_type == "Pad" for output in node.output}
    # A convolution pads by itself, once the padding need not be seen.
    kept = [label for label in labels if label not in padded]
    simple = simplify(model, kept)
    _number_rest(simple.graph, {*kept, *(spec.name for spec in source.inputs)})
    return simple


def _roots(graph: Any, tensors: Sequence[str]) -> list[str]:
    """Return the tensors that these are the values of, in whatever order."""
    makers = {output: node for node in graph.node for output in node.output}
    found = []
    for tensor in tensors:
        while tensor in makers and makers[tensor].op_type in _REORDERING:
            tensor = makers[tensor].input[0]
        found.append(tensor)
    return found


def _rename_all(
    source: FrozenGraph, graph: Any, layers: Sequence[str], labels: Sequence[str]
) -> None:
    """Name inputs and outputs as those of the source, and computed tensors as their layers."""
    outputs = [tensor.name for tensor in graph.output]
    pairs = list(zip([t.name for t in graph.input], [s.name for s in source.inputs], strict=True))
    pairs += zip([*outputs, *layers], labels, strict=True)
    made = {output for node in graph.node for output in node.output}
    edges = {tensor.name for tensor in (*graph.input, *graph.output)}
    # The first name stays: what two layers have in common is the output of the first.
    wanted = {tensor: name for tensor, name in reversed(pairs) if tensor in edges | made}
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
    # ONNX Runtime writes them in an order of its own.
    read = {name: number for number, name in enumerate(i for n in graph.node for i in n.input)}
    constants = sorted(graph.initializer, key=lambda tensor: read.get(tensor.name, -1))
    del graph.initializer[:]
    graph.initializer.extend(constants)


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
