"""Keras 3 models: in memory, .keras files, and the .h5 files that Keras 3 still reads."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.converters.sources.graph import (
    FrozenGraph,
    fixed_inputs,
    freeze,
    graph_name,
    one_line,
)
from edgekit.converters.sources.legacy import open_legacy
from edgekit.converters.sources.recurrent import without_loops
from edgekit.converters.sources.trusted_config import check_config
from edgekit.errors import EdgeKitError, EnvironmentLacks, ModelError, UsageError, require

_CONFIG_LIMIT = 64 << 20
_EXPANSION_LIMIT = 100


def open_keras(
    path: Path,
    scratch: Path,
    input_shape: tuple[int, ...] | None,
    custom_objects: dict[str, Any],
) -> FrozenGraph:
    """Open a .keras or .h5 file; see `open_source`.

    Files that only Keras 2 understands come back as ``keras_legacy``, without `model`.
    """
    is_zip = path.suffix.lower() == ".keras"
    config = _zip_config(path) if is_zip else _hdf5_config(path)
    keras = _keras()
    _refuse_keras_2_zip(config, path)
    # Registers our own layers, which quantize-aware models have.
    require("edgekit.converters.quantize.aware.layers", "convert")
    check_config(config, custom_objects, str(path))
    try:
        model = keras.saving.load_model(
            path, custom_objects=custom_objects, compile=False, safe_mode=True
        )
    except Exception as error:
        if not is_zip and not custom_objects:
            return open_legacy(path, scratch, input_shape)
        raise ModelError(
            f"Keras {keras.__version__} cannot load {path}: {one_line(error)}"
        ) from error
    return keras_source(model, input_shape, str(path))


def keras_source(
    model: Any, input_shape: tuple[int, ...] | None, where: str = "the Keras model"
) -> FrozenGraph:
    """Freeze a Keras 3 model; see `open_source`.

    Raises:
        UsageError: `model` is no Keras 3 model.
    """
    keras = _keras()
    if not isinstance(model, keras.Model):
        raise UsageError(
            f"`model` must be a path or a Keras 3 model; got {type(model).__module__}."
            f"{type(model).__name__}; save models of tf_keras as .h5 or SavedModel first"
        )
    tensors = getattr(model, "inputs", None) or []  # a model of Python code has none
    if not tensors and input_shape is None:
        raise ModelError(
            f"{where} does not say what it takes; call it once before saving, or say the shape "
            f"with --input-shape, for example --input-shape 1x224x224x3"
        )
    specs: list[tuple[str, tuple[int | None, ...] | None, str]]
    specs = [(str(t.name).split(":")[0], tuple(t.shape), str(t.dtype)) for t in tensors]
    inputs = fixed_inputs(specs or [("input", None, "float32")], input_shape, where)
    call, names = _flat_call(keras, model, inputs, where)
    return freeze("keras", with_constants(model, call), inputs, names, model)


def with_constants(model: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` such that a trace of it holds the model's weights as constants.

    To freeze variables after the trace takes longer and twice the memory. Nor may a trace change a
    state: a recurrent_dropout draws a seed even where it drops nothing.
    """
    tf, keras = require("tensorflow", "convert"), _keras()
    values = [(variable, variable.numpy()) for variable in model.variables]

    def constant(*tensors: Any) -> Any:
        mapping = [(variable, tf.constant(value)) for variable, value in values]
        with keras.StatelessScope(state_mapping=mapping):
            return call(*tensors)

    return constant


def loop_free(source: FrozenGraph) -> FrozenGraph:
    """Trace a Keras 3 source again, its LSTM layers as fused operators, other loops unrolled.

    The converter sees fused operators only by way of a SavedModel, and there leaves variables in
    place; so the weights are traced as constants.

    Raises:
        ModelError: a recurrent layer can be neither fused nor unrolled.
    """
    tf, keras, model = require("tensorflow", "convert"), _keras(), source.model
    call, _ = _flat_call(keras, model, source.inputs, "the Keras model")
    constant = with_constants(model, call)

    def named(*tensors: Any) -> dict[str, Any]:
        answers = constant(*tensors)
        return {f"outputs_{index}": tf.identity(answer) for index, answer in enumerate(answers)}

    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"inputs_{index}")
        for index, spec in enumerate(source.inputs)
    ]
    owner = tf.Module()
    owner.call = tf.function(named, input_signature=signature, autograph=False)
    try:
        with without_loops(model):
            concrete = owner.call.get_concrete_function()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"the Keras model cannot be traced unrolled: {one_line(error)}") from error
    return replace(source, concrete=concrete, owner=owner)


def with_open_batch(source: FrozenGraph) -> FrozenGraph:
    """Trace a Keras 3 source again, of any number of samples at once.

    tf2onnx tells an LSTM from other loops by how Keras writes it for an open batch.
    """
    tf, keras, model = require("tensorflow", "convert"), _keras(), source.model
    call, _ = _flat_call(keras, model, source.inputs, "the Keras model")
    signature = [
        tf.TensorSpec((None, *spec.shape[1:]), spec.dtype, name=graph_name(spec.name))
        for spec in source.inputs
    ]
    traced = tf.function(with_constants(model, call), input_signature=signature, autograph=False)
    return replace(source, concrete=traced.get_concrete_function())


def _flat_call(keras: Any, model: Any, inputs: tuple[Any, ...], where: str) -> tuple[Any, Any]:
    """Return the model as a function from tensors to a flat list, and its outputs' names."""
    structure = getattr(model, "_inputs_struct", None)  # dictionaries stay dictionaries

    def call(*tensors: Any) -> Any:
        packed: Any = tensors[0] if len(tensors) == 1 else list(tensors)
        if structure is not None:
            packed = keras.tree.pack_sequence_as(structure, list(tensors))
        return keras.tree.flatten(model(packed, training=False))

    try:
        shapes = [keras.KerasTensor(spec.shape, dtype=spec.dtype) for spec in inputs]
        packed: Any = shapes[0] if len(shapes) == 1 else shapes
        if structure is not None:
            packed = keras.tree.pack_sequence_as(structure, shapes)
        answer = model.compute_output_spec(packed)
    except Exception as error:
        raise ModelError(
            f"{where} does not accept inputs of shape "
            f"{', '.join(str(spec.shape) for spec in inputs)}: {one_line(error)}"
        ) from error
    count = len(keras.tree.flatten(answer))
    if isinstance(answer, dict):
        # Flattening sorts dictionaries by key, and so do we.
        names = sorted(answer)
    else:
        names = list(getattr(model, "output_names", None) or [])
    if len(set(names)) != count:
        names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return call, names


def _keras() -> Any:
    require("tensorflow", "convert")
    keras = require("keras", "convert")
    if not str(keras.__version__).startswith("3"):
        raise EnvironmentLacks(
            f"Keras 3 is needed, {keras.__version__} is installed; pip install 'edgekit[convert]'"
        )
    if keras.backend.backend() != "tensorflow":
        raise EnvironmentLacks(
            f"Keras runs on {keras.backend.backend()} here; conversion needs its TensorFlow "
            f"backend: set KERAS_BACKEND=tensorflow"
        )
    return keras


def _refuse_keras_2_zip(config: Any, path: Path) -> None:
    module = str(config.get("module", "")) if isinstance(config, dict) else ""
    if module.startswith(("tf_keras.", "keras.engine.", "keras.src.engine.")):
        raise ModelError(
            f"{path} was saved by Keras 2 in its .keras format, which Keras 3 cannot load; load it "
            f"with the Keras 2 or tf_keras it came from and save it as .h5 or SavedModel"
        )


def _zip_config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                large = entry.file_size > _CONFIG_LIMIT
                if large and entry.file_size > _EXPANSION_LIMIT * max(1, entry.compress_size):
                    raise ModelError(
                        f"{path} holds {entry.filename} of {entry.file_size} bytes packed into "
                        f"{entry.compress_size}; no Keras model packs so well, so it is refused"
                    )
            if archive.getinfo("config.json").file_size > _CONFIG_LIMIT:
                raise ModelError(f"{path}: config.json is larger than {_CONFIG_LIMIT} bytes")
            return json.loads(archive.read("config.json"))
    except EdgeKitError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds on damaged files
        raise _damaged(path, error) from error


def _hdf5_config(path: Path) -> Any:
    h5py = require("h5py", "convert")
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
            if text is None:
                raise ModelError(
                    f"{path} holds weights without a model (no model_config); save the whole "
                    f"model with model.save(), or load the weights in Python and pass the model"
                )
            return json.loads(text)
    except EdgeKitError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ModelError:
    what = "nested too deeply" if isinstance(error, RecursionError) else one_line(error)
    return ModelError(f"{path} is damaged or incomplete ({what}); copy or save it again")
