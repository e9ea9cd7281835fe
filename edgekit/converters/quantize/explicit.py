"""One layer an operator: so each tensor that will be int8 has a name and a range of its own.

Separable convolutions become two, fused activations layers of their own, sums and products of
several tensors chains of two. SiLU and hard-sigmoid become what TensorFlow's converter makes of
them; hard-swish, GELU, ELU, LeakyReLU and PReLU are one operator already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgekit.converters.quantize.graph import Graph, Step, copy_of, rebuild
from edgekit.converters.quantize.linear import is_linear
from edgekit.converters.quantize.parts import Parts
from edgekit.errors import require

_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")
_CHAINS = {"Add": "Add", "Average": "Add", "Multiply": "Multiply"}
_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Silu": "silu",
    "Elu": "elu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
}
_CONSTANTS = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide")
_NUMBERS = (int, float, np.number)
_Rule = Callable[["_Writer", Graph, Step, Any, str], Any]


def explicit(graph: Graph) -> Graph:
    """Return a graph of the same function in which each layer is one operator, where it can be.

    A layer that is in several steps stays one layer, and so do its parts.
    """
    writer = _Writer()

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = _rule_for(step)
        if rule is None:
            return writer.parts.repeat(new, step, args, kwargs)
        tensor = args[1] if isinstance(args[0], _NUMBERS) else args[0]
        return rule(writer, new, step, tensor, step.layer.name)

    return graph if all(_rule_for(step) is None for step in graph.steps) else rebuild(graph, emit)


def activation_name(layer: Any) -> str | None:
    """Return the name that an activation layer's function has in Keras; None: it is none of these.

    A ReLU with a slope is a ``leaky_relu``; with other bounds than none and 6 it is none of these.
    """
    kind = type(layer).__name__
    if kind == "Activation":
        return getattr(layer.activation, "__name__", None)
    if kind == "ReLU" and not layer.threshold:
        if layer.negative_slope:
            return "leaky_relu" if layer.max_value is None else None
        return {None: "relu", 6: "relu6"}.get(layer.max_value)
    return {"LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu", "Softmax": "softmax"}.get(
        kind
    )


def is_of_keras(layer: Any) -> bool:
    """Whether a layer or operation is Keras' own."""
    return type(layer).__module__.partition(".")[0] == "keras"


def _rule_for(step: Step) -> _Rule | None:
    """Return what writes the step anew, or None where it is one operator already."""
    kind = type(step.layer).__name__
    if not is_of_keras(step.layer) or step.kwargs:
        return None
    if kind in _CONSTANTS and len(step.args) == 2:
        return None if _scale_of(step) is None else _with_constant
    if len(step.args) != 1:
        return None
    if kind in _SEPARABLE:
        return _separable
    if is_linear(step):
        return _with_activation if _has_activation(step.layer) else None
    if kind in _CHAINS:
        is_pair = len(step.inputs) == 2 and kind != "Average"
        return None if is_pair or len(step.inputs) < 2 else _chain
    if kind == "AveragePooling2D":
        return _mean if _pools_everything(step) else None
    if kind in _OPERATIONS:
        return _operation
    return {"silu": _silu, "hard_sigmoid": _hard_sigmoid}.get(activation_name(step.layer) or "")


class _Writer:
    """Puts layers in the place of others."""

    def __init__(self) -> None:
        self.keras: Any = require("keras", "convert")
        self.parts = Parts()

    def add(self, graph: Graph, step: Step, layer: Any, *args: Any) -> Any:
        """Call a layer without weights; its name tells the parts of a step apart."""
        return self.parts.call(graph, step, layer.name, lambda: layer, *args)

    def activate(self, graph: Graph, step: Step, activation: Any, name: str, tensor: Any) -> Any:
        """Call an activation, one layer an operator."""
        regularizer = getattr(step.layer, "activity_regularizer", None)
        made = self.keras.layers.Activation(activation, name=name, activity_regularizer=regularizer)
        rule = {"silu": _silu, "hard_sigmoid": _hard_sigmoid}.get(activation_name(made) or "")
        if rule is None or regularizer is not None:
            return self.add(graph, step, made, tensor)
        return rule(self, graph, step, tensor, name)


def _has_activation(layer: Any) -> bool:
    linear = require("keras", "convert").activations.linear
    return layer.activation not in (None, linear)


def _with_activation(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    layer = step.layer
    plain = writer.parts.call(
        graph,
        step,
        "",
        lambda: copy_of(layer, activation=None, activity_regularizer=None),
        tensor,
        weights=layer.get_weights(),
    )
    return writer.activate(graph, step, layer.activation, f"{name}_activation", plain)


def _separable(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    layer, layers = step.layer, writer.keras.layers
    dimensions = len(layer.kernel_size)
    between = writer.parts.call(
        graph,
        step,
        "depthwise",
        lambda: getattr(layers, f"DepthwiseConv{dimensions}D")(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate,
            use_bias=False,
            depthwise_regularizer=layer.depthwise_regularizer,
            depthwise_constraint=layer.depthwise_constraint,
            trainable=layer.trainable,
            name=f"{name}_depthwise",
        ),
        tensor,
        weights=[np.asarray(layer.depthwise_kernel)],
    )
    bias = [np.asarray(layer.bias)] if layer.use_bias else []
    result = writer.parts.call(
        graph,
        step,
        "pointwise",
        lambda: getattr(layers, f"Conv{dimensions}D")(
            layer.filters,
            1,
            use_bias=layer.use_bias,
            kernel_regularizer=layer.pointwise_regularizer,
            kernel_constraint=layer.pointwise_constraint,
            bias_regularizer=layer.bias_regularizer,
            bias_constraint=layer.bias_constraint,
            trainable=layer.trainable,
            name=f"{name}_pointwise",
        ),
        between,
        weights=[np.asarray(layer.pointwise_kernel), *bias],
    )
    if not _has_activation(layer):
        return result
    return writer.activate(graph, step, layer.activation, f"{name}_pointwise_activation", result)


def _chain(writer: _Writer, graph: Graph, step: Step, tensors: Any, name: str) -> Any:
    """Sum or multiply two at a time, as TensorFlow's converter does."""
    layers, kind = writer.keras.layers, type(step.layer).__name__
    result, *others = tensors
    for number, other in enumerate(others, 1):
        is_last = number == len(others) and kind != "Average"
        pair = getattr(layers, _CHAINS[kind])(name=name if is_last else f"{name}_{number}")
        result = writer.add(graph, step, pair, [result, other])
    if kind == "Average":
        share = layers.Rescaling(1 / len(tensors), name=name)
        result = writer.add(graph, step, share, result)
    return result


def _scale_of(step: Step) -> tuple[float, float] | None:
    """Return factor and summand of an operation of a tensor and a number; None for others."""
    first, second = step.args
    is_reversed = not step.inputs or first is not step.inputs[0]
    number = first if is_reversed else second
    is_float = all(str(tensor.dtype).startswith("float") for tensor in step.inputs)
    if len(step.inputs) != 1 or not isinstance(number, _NUMBERS) or not is_float:
        return None
    value, kind = float(number), type(step.layer).__name__
    if kind in ("Add", "Multiply"):
        return (1.0, value) if kind == "Add" else (value, 0.0)
    if kind == "Subtract":
        return (-1.0, value) if is_reversed else (1.0, -value)
    return None if is_reversed or not value else (1 / value, 0.0)


def _with_constant(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    scale, offset = _scale_of(step) or (1.0, 0.0)
    return writer.add(graph, step, writer.keras.layers.Rescaling(scale, offset, name=name), tensor)


def _silu(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    layers = writer.keras.layers
    sigmoid = layers.Activation("sigmoid", name=f"{name}_sigmoid")
    gate = writer.add(graph, step, sigmoid, tensor)
    return writer.add(graph, step, layers.Multiply(name=name), [tensor, gate])


def _hard_sigmoid(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    layers = writer.keras.layers
    shifted = writer.add(graph, step, layers.Rescaling(1.0, 3.0, name=f"{name}_shifted"), tensor)
    clipped = writer.add(graph, step, layers.ReLU(6.0, name=f"{name}_clipped"), shifted)
    return writer.add(graph, step, layers.Rescaling(1 / 6, name=name), clipped)


def _operation(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    activation = writer.keras.activations.get(_OPERATIONS[type(step.layer).__name__])
    return writer.activate(graph, step, activation, name, tensor)


def _mean(writer: _Writer, graph: Graph, step: Step, tensor: Any, name: str) -> Any:
    pool = writer.keras.layers.GlobalAveragePooling2D(keepdims=True, name=name)
    return writer.add(graph, step, pool, tensor)


def _pools_everything(step: Step) -> bool:
    """Whether an average pooling has one output a channel: as a mean its output is finer.

    LiteRT's AVERAGE_POOL_2D must give its output the scale of its input, which an average of
    many values uses a small part of; MEAN has a scale of its own.
    """
    layer = step.layer
    return tuple(layer.pool_size) == tuple(step.inputs[0].shape[1:3]) and tuple(
        step.outputs[0].shape[1:3]
    ) == (1, 1)
