"""Networks that learn: a copy, a narrower one, and the layers that stay as they are at first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from edgekit.converters.sources.graph import one_line
from edgekit.errors import ModelError, UsageError, require

_WIDTHS = ("filters", "units")
# They take the width that comes in; other layers with weights have widths of their own.
_FOLLOWING = (
    "BatchNormalization",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "LayerNormalization",
    "Normalization",
    "PReLU",
    "UnitNormalization",
)
_WRAPPERS = ("Bidirectional", "TimeDistributed")


def width_of(text: str) -> float | None:
    """Return the factor of ``width=0.5``; None: the text is a path.

    Raises:
        UsageError: it is no factor.
    """
    key, equals, value = text.partition("=")
    if key != "width" or not equals:
        return None
    try:
        width = float(value)
    except ValueError:
        width = 0.0
    if not 0 < width <= 1:
        raise UsageError(f"`student` width must be above 0 and at most 1; got {value!r}")
    return width


def copy_of_model(model: Any) -> Any:
    """Return a model of its own with the weights of `model`, which stays as it is.

    Raises:
        UsageError: no model of Keras 3.
        ModelError: one without a graph of layers.
    """
    if not isinstance(model, require("keras", "convert").Model):
        raise UsageError(
            "`student` must be a path, width=0.5 or a Keras 3 model; got "
            f"{type(model).__module__}.{type(model).__name__}"
        )
    copy = _cloned(model, _same, "copied")
    copy.set_weights(model.get_weights())
    return copy


def scaled(model: Any, width: float) -> Any:
    """Return the untrained network of `model` with `width` times its filters and units.

    The layers that give the outputs keep their width, and everything its name.

    Args:
        model: of Keras 3, functional or sequential.
        width: above 0, at most 1.

    Raises:
        ModelError: a layer has a width that cannot be scaled.
    """
    kept = {layer.name for layer in heads(model)}

    def narrower(layer: Any) -> Any:
        if layer.name in kept:
            return _same(layer)
        _check_scalable(layer)
        return type(layer).from_config(_narrower(layer.get_config(), width))

    return _cloned(model, narrower, f"made narrower (width={width:g})")


def heads(model: Any) -> list[Any]:
    """Return the layers with weights that are nearest to the outputs: what tells the classes."""
    found: dict[int, Any] = {}
    seen: set[int] = set()

    def walk(tensor: Any) -> None:
        layer, index, _ = tensor._keras_history
        if id(tensor) in seen:
            return
        seen.add(id(tensor))
        if getattr(layer, "layers", None) and getattr(layer, "outputs", None):
            for output in layer.outputs:  # a network inside
                walk(output)
        elif any(name in layer.get_config() for name in _WIDTHS) or _is_wrapper(layer):
            found[id(layer)] = layer
        else:
            for before in layer._inbound_nodes[index].input_tensors:
                walk(before)

    for output in model.outputs:
        walk(output)
    return list(found.values())


def frozen_layers(model: Any, pattern: str | None, last: Sequence[str]) -> list[Any]:
    """Return the layers that stay as they are at first.

    Args:
        model: the student.
        pattern: of their names, comma-separated, as ``block1_*``; None: all but `last`.
        last: names of its heads.

    Raises:
        UsageError: no layer with weights has such a name, or every layer has.
    """
    weighted = [layer for layer in _leaves(model) if layer.weights]
    if pattern is None:
        found = [layer for layer in weighted if layer.name not in last]
    else:
        patterns = pattern.split(",")
        found = [one for one in weighted if any(fnmatchcase(one.name, p) for p in patterns)]
    left = {layer.name for layer in weighted if layer.trainable_weights and layer not in found}
    if not found or not left:
        which = "no layer" if not found else "every layer"
        names = ", ".join(layer.name for layer in weighted)
        raise UsageError(
            f"`freeze` {pattern or 'all but the last'!r} is {which}; there are {names}"
        )
    return found


def _leaves(model: Any) -> Iterator[Any]:
    """Yield the layers of a model and of those inside it."""
    for layer in model.layers:
        if getattr(layer, "layers", None) and getattr(layer, "outputs", None):
            yield from _leaves(layer)
        else:
            yield layer


def _is_wrapper(layer: Any) -> bool:
    return type(layer).__name__ in _WRAPPERS


def _same(layer: Any) -> Any:
    return type(layer).from_config(layer.get_config())


def _cloned(model: Any, function: Any, what: str) -> Any:
    """Return a functional model with `function(layer)` in place of each layer, also inside others.

    Keras' own recursion keeps the input shapes of the models inside.
    """
    keras: Any = require("keras", "convert")
    if not getattr(model, "inputs", None):
        raise ModelError(f"{model.name} has no graph of layers and cannot be {what}: give a file")
    copies: dict[int, Any] = {}

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in copies:
            inner = isinstance(layer, keras.Model) and getattr(layer, "inputs", None)
            shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(args)]
            copies[id(layer)] = network(layer, shapes) if inner else function(layer)
        return copies[id(layer)](*args, **kwargs)

    def network(old: Any, shapes: Sequence[tuple[int | None, ...]]) -> Any:
        graph = old
        if isinstance(old, keras.Sequential):
            graph = keras.Model(old.inputs[0], old.outputs[0], name=old.name)
        inputs = [
            keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor._keras_history[0].name)
            for tensor, shape in zip(old.inputs, shapes, strict=True)
        ]
        return keras.models.clone_model(
            graph,
            input_tensors=keras.tree.pack_sequence_as(graph.input, inputs),
            clone_function=lambda layer: layer,
            call_function=call,
        )

    try:
        return network(model, [tuple(tensor.shape) for tensor in model.inputs])
    except ModelError:
        raise
    except Exception as error:  # whatever a layer says to other shapes
        raise ModelError(f"{model.name} cannot be {what}: {one_line(error)}") from error


def _check_scalable(layer: Any) -> None:
    what = f"{layer.name} ({type(layer).__name__})"
    config = layer.get_config()
    if getattr(layer, "groups", 1) != 1 and "filters" in config:
        raise ModelError(
            f"{what} has {layer.groups} groups, which fix its width; give a student of your own"
        )
    is_known = type(layer).__module__.startswith("keras.")
    scales = any(name in config for name in _WIDTHS) or _is_wrapper(layer)
    if layer.weights and not (is_known and (scales or type(layer).__name__ in _FOLLOWING)):
        raise ModelError(
            f"{what} has a width of its own that cannot be scaled; give a student of your own"
        )


def _narrower(config: dict[str, Any], width: float) -> dict[str, Any]:
    """Return a layer's settings with fewer filters or units, those of wrapped layers too."""
    changed = dict(config)
    for name in _WIDTHS:
        if name in changed:
            changed[name] = max(1, round(changed[name] * width))
    for name in ("layer", "backward_layer"):
        if isinstance(changed.get(name), dict):
            inner = {k: v for k, v in changed[name].items() if k != "build_config"}
            changed[name] = inner | {"config": _narrower(inner["config"], width)}
    return changed
