"""A private copy of a Keras model in which each layer is called exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import require
from edgekit.specs import TensorSpec


class Unsupported(Exception):
    """A model that the pass leaves as it is; the message says why."""


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one layer.

    Attributes:
        layer: a Keras layer, or an operation of `keras.ops`.
        args: positional arguments, with symbolic tensors in them.
        kwargs: likewise.
        result: symbolic tensors, in the layer's own structure.
    """

    layer: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    @property
    def inputs(self) -> list[Any]:
        """The symbolic tensors that go in."""
        return _tensors((self.args, self.kwargs))

    @property
    def outputs(self) -> list[Any]:
        """The symbolic tensors that come out."""
        return _tensors(self.result)

    def run(self, values: dict[int, Any]) -> list[Any]:
        """Call the layer on the tensors that `values` has for its symbolic ones."""
        args, kwargs = _swapped((self.args, self.kwargs), values)
        result: list[Any] = _keras().tree.flatten(self.layer(*args, **kwargs))
        return result


@dataclass(eq=False)
class Graph:
    """Steps in an order in which they can run.

    Attributes:
        inputs: symbolic tensors, in the order of the model.
        outputs: likewise, flattened as Keras does.
        steps: each layer in exactly one of them.
    """

    inputs: list[Any]
    outputs: list[Any] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a new layer on symbolic tensors of this graph and keep the step."""
        result = layer(*args, **kwargs)
        self.steps.append(Step(layer, args, kwargs, result))
        return result

    def users(self) -> dict[int, list[Step | None]]:
        """Return the steps that take each tensor, by its id; None stands for a model output."""
        found: dict[int, list[Step | None]] = {}
        for step in self.steps:
            for tensor in step.inputs:
                found.setdefault(id(tensor), []).append(step)
        for tensor in self.outputs:
            found.setdefault(id(tensor), []).append(None)
        return found

    def makers(self) -> dict[int, Step]:
        """Return the step that makes each tensor, by its id."""
        return {id(tensor): step for step in self.steps for tensor in step.outputs}

    def names(self) -> dict[int, str]:
        """Return each tensor's name, by its id: that of its layer, numbered where it has more."""
        names = {id(tensor): str(tensor.name) for tensor in self.inputs}
        for step in self.steps:
            outputs = step.outputs
            for number, tensor in enumerate(outputs):
                single = len(outputs) == 1
                names[id(tensor)] = step.layer.name if single else f"{step.layer.name}:{number}"
        return names

    def model(self) -> Any:
        """Return the graph as a Keras model that takes and gives flat lists."""
        return _keras().Model(list(self.inputs), list(self.outputs))


def flatten(
    model: Any, inputs: Sequence[TensorSpec], *, shares: bool = False
) -> tuple[Graph, tuple[str, ...]]:
    """Copy a functional or sequential model: nested ones inlined, shared layers one a call.

    The second result names the shared layers.

    Args:
        model: a Keras 3 model; nothing of it is touched.
        inputs: its inputs with fixed dimensions, in the order of `model.inputs`.
        shares: a shared layer stays one, in several steps, as training needs it.

    Raises:
        Unsupported: a model or layer that cannot be copied.
    """
    copier = _Copier(shares)
    graph = copier.copy(
        model,
        [((None, *spec.shape[1:]), spec.dtype) for spec in inputs],
        [spec.name for spec in inputs],
    )
    return graph, tuple(
        f"{path} is called {count} times; each call gets weights of its own"
        for path, count in copier.calls.items()
        if count > 1
    )


def rebuild(
    graph: Graph, emit: Callable[[Graph, Step, tuple[Any, ...], dict[str, Any]], Any]
) -> Graph:
    """Build a graph anew, step by step.

    Args:
        graph: stays as it is.
        emit: takes the new graph, a step of the old one and that step's arguments in the new one;
            it calls layers on the new graph and returns the result.
    """
    keras = _keras()
    new = Graph(
        [keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in graph.inputs]
    )
    new.outputs = _replay(graph, new, new.inputs, emit)
    return new


def _replay(
    graph: Graph,
    new: Graph,
    tensors: list[Any],
    emit: Callable[[Graph, Step, tuple[Any, ...], dict[str, Any]], Any],
) -> list[Any]:
    values = {id(old): tensor for old, tensor in zip(graph.inputs, tensors, strict=True)}
    for step in graph.steps:
        args, kwargs = _swapped((step.args, step.kwargs), values)
        result = emit(new, step, args, kwargs)
        for old, tensor in zip(step.outputs, _tensors(result), strict=True):
            values[id(old)] = tensor
    return [values[id(tensor)] for tensor in graph.outputs]


def copy_of(layer: Any, **changes: Any) -> Any:
    """Return a layer with the same settings and no weights yet."""
    return type(layer).from_config({**layer.get_config(), **changes})


def repeat(
    graph: Graph,
    step: Step,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    name: str | None = None,
) -> Any:
    """Do a step again in another graph, with a copy of its layer, under another `name` if given."""
    copy = copy_of(step.layer, **({} if name is None else {"name": name}))
    result = graph.call(copy, *args, **kwargs)
    if isinstance(step.layer, _keras().Layer):
        _give_weights(copy, step.layer)
    return result


def run(graph: Graph, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Return the graph's outputs for a batch."""
    outputs = graph.model()([*inputs], training=False)
    return [np.asarray(output) for output in _keras().tree.flatten(outputs)]


class _Copier:
    """Copies a model and the models in it.

    Attributes:
        calls: how often each layer with weights was called, by its path.
    """

    def __init__(self, shares: bool) -> None:
        self.calls: dict[str, int] = {}
        self._names: set[str] = set()
        self._shared: dict[int, Any] | None = {} if shares else None

    def copy(
        self,
        model: Any,
        inputs: Sequence[tuple[tuple[int | None, ...], Any]],
        names: Sequence[str | None],
    ) -> Graph:
        """Return a graph of a model's layers for inputs of these shapes, dtypes and names."""
        keras = _keras()
        is_graph = isinstance(model, keras.Sequential) or hasattr(model, "operations")
        if not is_graph or not model.inputs:
            raise Unsupported(
                f"{model.name} ({type(model).__name__}) is written as Python code, not as a graph "
                "of layers"
            )
        graph = Graph(
            [
                keras.Input(batch_shape=shape, dtype=dtype, name=name)
                for (shape, dtype), name in zip(inputs, names, strict=True)
            ]
        )
        self._names |= {name for name in names if name is not None}

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            return self._call(graph, layer, args, kwargs)

        # A view without compile state; it shares the layers and adds no calls to them.
        view = keras.Model(list(model.inputs), list(model.outputs))
        clone = keras.models.clone_model(
            view,
            input_tensors=list(graph.inputs),
            clone_function=lambda layer: layer,
            call_function=call,
        )
        graph.outputs = list(clone.outputs)
        return graph

    def _call(self, graph: Graph, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        keras = _keras()
        if isinstance(layer, keras.Model):
            tensors = keras.tree.flatten(args)
            specs = [(tensor.shape, tensor.dtype) for tensor in tensors]
            inner = self.copy(layer, specs, [None] * len(specs))
            outputs = _replay(inner, graph, tensors, _same_layer)
            return keras.tree.pack_sequence_as(layer.output, outputs)
        known = None if self._shared is None else self._shared.get(id(layer))
        copy = _copy(layer, self._names) if known is None else known
        if self._shared is not None:
            self._shared[id(layer)] = copy
        try:
            result = graph.call(copy, *args, **kwargs)
            if known is None and isinstance(layer, keras.Layer):
                _give_weights(copy, layer)
            if isinstance(layer, keras.Layer):
                self.calls[layer.path] = self.calls.get(layer.path, 0) + bool(layer.weights)
        except Exception as error:
            raise Unsupported(f"{layer.name} ({type(layer).__name__}): {error}") from error
        return result


def _same_layer(graph: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return graph.call(step.layer, *args, **kwargs)


def _copy(layer: Any, names: set[str]) -> Any:
    keras = _keras()
    if isinstance(layer, keras.Layer):
        _check_layer(keras, layer)
    try:
        config = layer.get_config()
        name = base = str(config.get("name", layer.name))
        count = 1
        while name in names:
            count += 1
            name = f"{base}_{count}"
        names.add(name)
        return type(layer).from_config({**config, "name": name})
    except Exception as error:
        raise Unsupported(
            f"{layer.name} ({type(layer).__name__}) cannot be copied: {error}"
        ) from error


def _check_layer(keras: Any, layer: Any) -> None:
    what = f"{layer.name} ({type(layer).__name__})"
    if getattr(layer, "mask_zero", False) or isinstance(layer, keras.layers.Masking):
        raise Unsupported(f"{what} masks steps of a sequence")
    if getattr(layer, "stateful", False):
        raise Unsupported(f"{what} keeps a state between calls")
    if layer.compute_dtype not in ("float32", "int32", "int64"):
        raise Unsupported(f"{what} computes in {layer.compute_dtype}")
    if getattr(layer, "data_format", None) == "channels_first":
        raise Unsupported(f"{what} has its channels first")


def _give_weights(copy: Any, layer: Any) -> None:
    copy.set_weights(layer.get_weights())
    if hasattr(copy, "finalize_state"):  # Normalization derives constants from its weights
        copy.finalize_state()


def _tensors(structure: Any) -> list[Any]:
    keras = _keras()
    return [t for t in keras.tree.flatten(structure) if isinstance(t, keras.KerasTensor)]


def _swapped(structure: Any, values: dict[int, Any]) -> Any:
    return _keras().tree.map_structure(lambda leaf: values.get(id(leaf), leaf), structure)


def _keras() -> Any:
    return require("keras", "convert")
