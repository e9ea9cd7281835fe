"""Models of Keras 2 that Keras 3 refuses, through tf_keras in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.converters.sources.graph import FrozenGraph, fixed_inputs, one_line
from edgekit.converters.sources.saved_model import freeze_signature
from edgekit.errors import ModelError, require
from edgekit.isolated import Progress, run_isolated


def open_legacy(path: Path, scratch: Path, input_shape: tuple[int, ...] | None) -> FrozenGraph:
    """Open a .h5 file of Keras 2; its configuration must have been checked.

    tf_keras and Keras 3 cannot share a process, so a child writes a SavedModel into `scratch`.

    Raises:
        ModelError: tf_keras cannot read it either, or a dimension stays open.
    """
    folder = scratch / "keras_legacy"
    names = run_isolated(
        "edgekit.converters.sources.legacy:write_saved_model",
        {
            "path": str(path),
            "folder": str(folder),
            "input_shape": None if input_shape is None else list(input_shape),
        },
        what=f"reading {path} with tf_keras",
        environment={"TF_USE_LEGACY_KERAS": "1"},
    )
    return freeze_signature(
        folder, "keras_legacy", None, str(path), (names["inputs"], names["outputs"])
    )


def write_saved_model(
    path: str,
    folder: str,
    input_shape: list[int] | None,
    on_progress: Progress | None = None,
) -> dict[str, list[str]]:
    """Be the child: load `path` with tf_keras and write it as SavedModel with batch 1.

    Returns:
        the names of ``inputs`` and ``outputs`` in the model's order.
    """
    del on_progress  # every isolated job is given one
    tf = require("tensorflow", "convert")
    tf_keras = require("tf_keras", "convert")
    try:
        model = tf_keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(
            f"neither Keras 3 nor tf_keras {tf_keras.__version__} can load {path}: "
            f"{one_line(error)}"
        ) from error
    specs = [(t.name.split(":")[0], tuple(t.shape), t.dtype.name) for t in model.inputs]
    shape = None if input_shape is None else tuple(input_shape)
    inputs = fixed_inputs(specs, shape, path)
    outputs = _unique(list(model.output_names))

    def call(**tensors: Any) -> Any:
        given = [tensors[spec.name] for spec in inputs]
        answer = model(given[0] if len(given) == 1 else given, training=False)
        return dict(zip(outputs, tf.nest.flatten(answer), strict=True))

    signature = {s.name: tf.TensorSpec(s.shape, s.dtype, name=s.name) for s in inputs}
    concrete = tf.function(call, autograph=False).get_concrete_function(**signature)
    tf.saved_model.save(model, folder, signatures={"serving_default": concrete})
    return {"inputs": [spec.name for spec in inputs], "outputs": outputs}


def _unique(names: list[str]) -> list[str]:
    if len(set(names)) == len(names):
        return names
    return [f"{name}_{index}" for index, name in enumerate(names)]
