"""BatchNormalization into the weights beside it, as TensorFlow's converter would do it later.

It must happen before weights are rounded, or the converter would scale the rounded ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.graph import Graph, Step, copy_of, rebuild, repeat
from edgekit.converters.quantize.linear import (
    is_linear,
    kind_of,
    per_input,
    per_output,
    set_weights,
    weights_of,
)
from edgekit.errors import require

_SILENT = (
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "AlphaDropout",
    "GaussianDropout",
    "GaussianNoise",
    "ActivityRegularization",
)
_SEPARABLE = ("SeparableConv1D", "SeparableConv2D")


def fold(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """Return a graph with BatchNormalization folded, and what was left as it is.

    Separable convolutions become two, activations layers of their own, all linear layers have a
    bias, and layers that only act in training are gone.
    """
    keras = require("keras", "convert")
    silent = _without_training_layers(graph)
    plan = _Plan(silent)

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if step in plan.folded:
            return args[0]
        if type(step.layer).__name__ in _SEPARABLE:
            return _emit_separable(keras, new, step, args, plan.after.get(step))
        if _pools_everything(step):
            return new.call(
                keras.layers.GlobalAveragePooling2D(keepdims=True, name=step.layer.name), *args
            )
        if not is_linear(step):
            return repeat(new, step, args, kwargs)
        kernel, bias = weights_of(step.layer)
        if step in plan.before:
            scale, shift = _scale_and_shift(plan.before[step].layer)
            bias = bias + _response(step.layer, kernel, shift)
            kernel = kernel * per_input(step.layer, scale)
        return _emit_linear(new, step.layer, args[0], kernel, bias, plan.after.get(step))

    notes = tuple(
        f"{step.layer.name} (BatchNormalization) has no linear layer beside it that could take it: "
        "it stays a scale and a shift of its own"
        for step in silent.steps
        if type(step.layer).__name__ == "BatchNormalization" and step not in plan.folded
    )
    return rebuild(silent, emit), notes


class _Plan:
    """Which BatchNormalization goes into which linear layer.

    Attributes:
        after: linear step -> the normalization of its output.
        before: linear step -> the normalization of its input.
        folded: all those normalizations.
    """

    def __init__(self, graph: Graph) -> None:
        self.after: dict[Step, Step] = {}
        self.before: dict[Step, Step] = {}
        makers, users = graph.makers(), graph.users()
        for step in graph.steps:
            if not _is_plain_normalization(step):
                continue
            maker = makers.get(id(step.inputs[0]))
            if maker is not None and len(users[id(step.inputs[0])]) == 1 and _takes_after(maker):
                self.after[maker] = step
                continue
            (user, *others) = users.get(id(step.outputs[0]), [None])
            if user is not None and not others and _takes_before(user, step):
                self.before[user] = step
        self.folded = {*self.after.values(), *self.before.values()}


def _is_plain_normalization(step: Step) -> bool:
    return (
        type(step.layer).__name__ == "BatchNormalization"
        and _kept_axis(step) == len(step.inputs[0].shape) - 1
        and not step.kwargs.get("training")
        and len(step.inputs) == 1
    )


def _kept_axis(step: Step) -> int:
    """Return the axis that a BatchNormalization keeps, counted from the front."""
    axis = step.layer.axis
    axis = axis[0] if isinstance(axis, list | tuple) else axis
    return int(axis) % len(step.inputs[0].shape)


def _takes_after(step: Step) -> bool:
    keras = require("keras", "convert")
    known = is_linear(step) or type(step.layer).__name__ in _SEPARABLE
    return known and step.layer.activation in (None, keras.activations.linear)


def _takes_before(step: Step, normalization: Step) -> bool:
    """Whether a layer can take a normalization of its input exactly: a padding of zeros cannot."""
    if not is_linear(step) or "Transpose" in type(step.layer).__name__:
        return False
    if kind_of(step.layer) == "Dense":
        return True
    is_padded = step.layer.padding != "valid" and max(step.layer.kernel_size) > 1
    return not is_padded or not _scale_and_shift(normalization.layer)[1].any()


def _pools_everything(step: Step) -> bool:
    """Whether an average pooling has one output a channel: as a mean its output is finer.

    LiteRT's AVERAGE_POOL_2D must give its output the scale of its input, which an average of
    many values uses a small part of; MEAN has a scale of its own.
    """
    layer = step.layer
    return (
        type(layer).__name__ == "AveragePooling2D"
        and tuple(layer.pool_size) == tuple(step.inputs[0].shape[1:3])
        and tuple(step.outputs[0].shape[1:3]) == (1, 1)
    )


def _without_training_layers(graph: Graph) -> Graph:
    def is_silent(step: Step) -> bool:
        return type(step.layer).__name__ in _SILENT and not step.kwargs.get("training")

    def emit(new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0] if is_silent(step) else repeat(new, step, args, kwargs)

    return rebuild(graph, emit) if any(map(is_silent, graph.steps)) else graph


def _scale_and_shift(layer: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * np.asarray(layer.gamma)
    shift = -mean * scale
    if layer.center:
        shift = shift + np.asarray(layer.beta)
    return scale, shift


def _response(layer: Any, kernel: NDArray[Any], shift: NDArray[Any]) -> NDArray[Any]:
    """Return each output channel's answer to an input that is `shift` everywhere."""
    product = kernel * per_input(layer, shift)
    if "Depthwise" in type(layer).__name__:
        return np.asarray(product.reshape(-1, product.shape[-2] * product.shape[-1]).sum(0))
    return np.asarray(product.sum(axis=tuple(range(product.ndim - 1))))


def _emit_linear(
    graph: Graph,
    layer: Any,
    tensor: Any,
    kernel: NDArray[Any],
    bias: NDArray[Any],
    normalization: Step | None,
) -> Any:
    """Call a copy of `layer` without activation, then its activation as a layer of its own."""
    keras = require("keras", "convert")
    if normalization is not None:
        scale, shift = _scale_and_shift(normalization.layer)
        kernel, bias = kernel * per_output(layer, scale), bias * scale + shift
    activation = layer.activation
    copy = copy_of(layer, activation=None, use_bias=True)
    result = graph.call(copy, tensor)
    set_weights(copy, kernel, bias)
    if activation in (None, keras.activations.linear):
        return result
    name = f"{layer.name}_activation"
    return graph.call(keras.layers.Activation(activation, name=name), result)


def _emit_separable(
    keras: Any, graph: Graph, step: Step, args: tuple[Any, ...], normalization: Step | None
) -> Any:
    layer = step.layer
    dimensions = len(layer.kernel_size)
    depthwise = getattr(keras.layers, f"DepthwiseConv{dimensions}D")(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        dilation_rate=layer.dilation_rate,
        name=f"{layer.name}_depthwise",
    )
    between = graph.call(depthwise, *args)
    kernel = np.asarray(layer.depthwise_kernel)
    set_weights(depthwise, kernel, np.zeros(between.shape[-1]))
    pointwise = getattr(keras.layers, f"Conv{dimensions}D")(
        layer.filters, 1, activation=layer.activation, name=f"{layer.name}_pointwise"
    )
    pointwise.build(between.shape)
    bias = np.asarray(layer.bias) if layer.use_bias else np.zeros(layer.filters)
    kernel = np.asarray(layer.pointwise_kernel)
    set_weights(pointwise, kernel, bias)
    return _emit_linear(graph, pointwise, between, kernel, bias, normalization)
