"""A float Keras model as one that trains with what int8 will do to it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from edgekit.converters.quantize.aware.observe import calibration_batches, observe
from edgekit.converters.quantize.aware.placement import Place, float_steps, place
from edgekit.converters.quantize.aware.read import FLOAT_SUFFIX, inputs_of, is_quantize_aware
from edgekit.converters.quantize.fold import fold_for_training
from edgekit.converters.quantize.graph import Graph, Step, Unsupported, copy_of, flatten, rebuild
from edgekit.converters.quantize.linear import is_linear
from edgekit.converters.quantize.parts import Parts
from edgekit.converters.quantize.ranges import Range, Scheme
from edgekit.errors import ModelError, UsageError, expect_one_of, require

if TYPE_CHECKING:
    import keras

_LOOPS = ("RNN", "Bidirectional", "TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
_LINEAR_SETTINGS = ("lora_enabled", "quantization_mode")


def quantize_aware(
    model: keras.Model,
    *,
    calibration: Any,
    scheme: Scheme = "litert",
    freeze_after: int | None = None,
) -> keras.Model:
    """Return a model that trains with what int8 will do to weights and activations.

    It is an ordinary Keras model with the inputs, outputs and weights of `model`: `compile`, `fit`,
    `save` and `convert(…, precision="int8")` take it. After Jacob et al., "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

    Args:
        model: a trained Keras 3 model, functional or sequential; nothing of it is touched.
        calibration: what the first ranges come from, at most 512 samples of it: an array [n, …]; a
            list of samples; a dict or tuple of arrays for several inputs; or an iterable of
            batches, such as a `tf.data.Dataset`.
        scheme: ``litert``, or ``tensorrt``, whose activations have the zero point 0.
        freeze_after: training steps after which BatchNormalization keeps its statistics; None:
            never.

    Raises:
        UsageError: a setting that cannot be.
        ModelError: a model or layer that cannot be trained so.
        DataError: a calibration set that cannot be used.

    >>> aware = edgekit.quantize_aware(model, calibration=images)
    >>> aware.compile("adam", "sparse_categorical_crossentropy")
    >>> aware.fit(images, labels, epochs=3)
    """
    expect_one_of("scheme", scheme, get_args(Scheme))
    if freeze_after is not None and freeze_after < 0:
        raise UsageError(f"`freeze_after` must be 0 or more training steps; got {freeze_after}")
    graph = _float_graph(model)
    places = place(graph)
    tensors = [*graph.inputs, *(tensor for step in graph.steps for tensor in step.outputs)]
    own = [t for t in tensors if id(t) in places and places[id(t)].kind == "own"]
    ranges = observe(graph, own, calibration_batches(graph, calibration))
    writer = _Writer(model, graph, places, ranges, scheme, freeze_after)
    _warn_of(float_steps(graph))
    return writer.model()


def _float_graph(model: Any) -> Graph:
    """Return a private copy that trains like `model`, one layer an operator."""
    keras: Any = require("keras", "convert")
    if not isinstance(model, keras.Model):
        raise UsageError(f"`model` must be a Keras 3 model; got {type(model).__name__}")
    if is_quantize_aware(model):
        raise ModelError(f"{model.name} is quantize-aware already; give the float model")
    try:
        flat, _ = flatten(model, inputs_of(model), shares=True)
    except Unsupported as error:
        raise ModelError(f"quantization-aware training cannot take {error}") from error
    for step in flat.steps:
        _check(keras, step.layer)
    graph, _ = fold_for_training(flat)
    return graph


def _check(keras: Any, layer: Any) -> None:
    what = f"{layer.name} ({type(layer).__name__})"
    if isinstance(layer, tuple(getattr(keras.layers, name) for name in _LOOPS)):
        raise ModelError(
            f"quantization-aware training cannot take {what}, which runs a loop; convert the "
            "trained model with precision int8 instead"
        )
    for setting in _LINEAR_SETTINGS:
        if getattr(layer, setting, None):
            raise ModelError(
                f"quantization-aware training cannot take {what}: its weights are kept in another "
                f"form ({setting}); give the plain float model"
            )


def _warn_of(steps: list[Step]) -> None:
    names = [f"{step.layer.name} ({type(step.layer).__name__})" for step in steps]
    if names:
        warnings.warn(
            f"these layers stay float inside the int8 model: {', '.join(names)}", stacklevel=3
        )


class _Writer:
    """Writes the quantize-aware model of a float graph.

    Args:
        model: the user's, for the structure and the names of its inputs and outputs.
        graph: as `fold_for_training` gives it.
        places: of its tensors.
        ranges: observed ones, by the tensors' ids.
        scheme: of the grids.
        freeze_after: of BatchNormalization.
    """

    def __init__(
        self,
        model: Any,
        graph: Graph,
        places: Mapping[int, Place],
        ranges: Mapping[int, Range],
        scheme: Scheme,
        freeze_after: int | None,
    ) -> None:
        from edgekit.converters.quantize.aware import layers

        self._keras: Any = require("keras", "convert")
        self._layers = layers
        self._source, self._graph = model, graph
        self._places, self._ranges = places, ranges
        self._scheme, self._freeze_after = scheme, freeze_after
        self._parts = Parts()
        self._names = graph.names()
        self._used: set[str] = {tensor.name for tensor in graph.inputs}
        self._output_names = _output_names(model, graph)
        self._quantizers: dict[int, Any] = {}
        self._inputs: dict[int, Any] = {}

    def model(self) -> Any:
        """Return the model."""
        new = rebuild(self._graph, self._emit)
        outputs = [self._inputs.get(id(tensor), tensor) for tensor in new.outputs]
        for index, (tensor, name) in enumerate(zip(outputs, self._output_names, strict=True)):
            if tensor._keras_history.operation.name != name:
                outputs[index] = new.call(self._keras.layers.Identity(name=name), tensor)
        if isinstance(self._source, self._keras.Sequential):
            return self._keras.Model(new.inputs[0], outputs[0], name=self._source.name)
        pack = self._keras.tree.pack_sequence_as
        return self._keras.Model(
            pack(self._source._inputs_struct, new.inputs),
            pack(self._source._outputs_struct, outputs),
            name=self._source.name,
        )

    def _emit(self, new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._inputs:
            self._quantize_inputs(new)
        args, kwargs = self._keras.tree.map_structure(
            lambda leaf: self._inputs.get(id(leaf), leaf), (args, kwargs)
        )
        result = self._call(new, step, args, kwargs)
        flat = self._keras.tree.flatten(result)
        for index, (old, tensor) in enumerate(zip(step.outputs, flat, strict=True)):
            flat[index] = self._quantized(new, old, tensor)
        return self._keras.tree.pack_sequence_as(result, flat)

    def _call(self, new: Graph, step: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call what takes the place of the step's layer."""
        layer = step.layer
        name = self._inner_name(step)
        if is_linear(step):
            return self._parts.call(
                new,
                step,
                "",
                lambda: self._layers.QuantizedWeights(
                    copy_of(layer), name=name, trainable=layer.trainable
                ),
                *args,
                weights=layer.get_weights(),
            )
        if type(layer).__name__ == "BatchNormalization":
            weights = layer.get_weights()
            return self._parts.call(
                new,
                step,
                "",
                lambda: self._layers.FreezingBatchNormalization.from_config(
                    {**layer.get_config(), "name": name, "freeze_after": self._freeze_after}
                ),
                *args,
                weights=[*weights, np.zeros((), np.int32)],
            )
        return self._parts.repeat(new, step, args, kwargs, name=name)

    def _inner_name(self, step: Step) -> str:
        """Return the layer's name, or another one if an output of the model needs that."""
        name = str(step.layer.name)
        if name not in self._output_names:
            return name
        places = [self._places.get(id(tensor)) for tensor in step.outputs]
        is_last = any(tensor is output for tensor in step.outputs for output in self._graph.outputs)
        is_answer = is_last and all(p is None or p.kind != "own" and not p.rounds for p in places)
        return name if is_answer else f"{name}{FLOAT_SUFFIX}"

    def _quantize_inputs(self, new: Graph) -> None:
        for old, tensor in zip(self._graph.inputs, new.inputs, strict=True):
            self._inputs[id(tensor)] = self._quantized(new, old, tensor)

    def _quantized(self, new: Graph, old: Any, tensor: Any) -> Any:
        """Return a tensor rounded to the grid that `old` has."""
        found = self._places.get(id(old))
        is_answer = any(old is output for output in self._graph.outputs)
        if found is None or (found.kind == "fixed" and is_answer):
            # Rounded probabilities have no gradient where they round to 0, and a loss needs one.
            return tensor
        if found.kind == "same":
            quantizer = self._quantizers.get(found.source or 0)
            if quantizer is None:
                return tensor
            self._quantizers[id(old)] = quantizer
            return new.call(quantizer, tensor, follows=False) if found.rounds else tensor
        quantizer = self._quantizers[id(old)] = self._new_quantizer(old, found)
        result = new.call(quantizer, tensor)
        if found.fixed is None:
            seen = self._ranges[id(old)]
            quantizer.set_weights([np.float32(seen.min), np.float32(seen.max)])
        return result

    def _new_quantizer(self, old: Any, found: Place) -> Any:
        name = f"{self._names[id(old)].replace(':', '_')}_quantized"
        for index, output in enumerate(self._graph.outputs):
            if output is old:
                name = self._output_names[index]
        return self._layers.FakeQuantize(
            scheme=self._scheme,
            fixed=None if found.fixed is None else (found.fixed.min, found.fixed.max),
            widest=found.is_final,
            name=self._unique(name),
        )

    def _unique(self, name: str) -> str:
        base, count = name, 1
        while name in self._used:
            count += 1
            name = f"{base}_{count}"
        self._used.add(name)
        return name


def _output_names(model: Any, graph: Graph) -> list[str]:
    """Return the names of the outputs, as losses and metrics know them, each once."""
    names = [str(name) for name in getattr(model, "output_names", [model.layers[-1].name])]
    if len(set(names)) == len(graph.outputs):
        return names
    return [f"{names[0]}_{number}" for number in range(len(graph.outputs))]
