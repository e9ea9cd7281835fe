"""Trained models of every kind, opened as one interface.

A source takes and gives one sample: batch dimension 1, all dimensions fixed. One file a kind:
`keras` (Keras 3), `legacy` (Keras 2, through tf_keras), `saved_model`, `tflite`, `onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.specs import TensorSpec

_KINDS = {
    ".keras": ("Keras model", b"PK\x03\x04"),
    ".h5": ("Keras HDF5 model", b"\x89HDF\r\n\x1a\n"),
    ".hdf5": ("Keras HDF5 model", b"\x89HDF\r\n\x1a\n"),
    ".tflite": ("LiteRT model", None),
    ".onnx": ("ONNX model", None),
}
_KNOWN = ".keras, .h5, .hdf5, .tflite, .onnx or a SavedModel folder"


class SourceModel(Protocol):
    """A trained model, ready to predict and to be converted.

    Attributes:
        kind: ``keras``, ``keras_legacy``, ``saved_model``, ``tflite`` or ``onnx``.
        inputs: batch 1, all dimensions fixed, in the order of the model.
        outputs: likewise.
    """

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...  # noqa: D102

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample.

        Args:
            inputs: one array an input, of its shape (batch 1) and dtype, in the order of `inputs`.

        Raises:
            ModelError: their number or a shape is not the model's.
        """
        ...


def open_source(
    model: Any,
    *,
    scratch: Path,
    input_shape: tuple[int, ...] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
) -> SourceModel:
    """Open a trained model without running code that came with it.

    Args:
        model: path of a .keras, .h5, .tflite or .onnx file or of a SavedModel folder, or a Keras 3
            model.
        scratch: an existing folder for intermediate files; it must outlive the source.
        input_shape: fixes open dimensions of a model with one input, batch first.
        custom_objects: name -> class or function, for what is not Keras' own.

    Raises:
        ModelError: no such model, damaged, of another format, or with open dimensions.
        UnsafeModelError: it holds code, or needs objects that `custom_objects` does not have.
        MissingPackage: TensorFlow or ai-edge-litert is not installed.
    """
    if not isinstance(model, str | Path):
        from edgekit.converters.sources.keras import keras_source

        return keras_source(model, input_shape)
    path = Path(model)
    if not path.exists():
        raise ModelError(f"no model at {path}; expected {_KNOWN}")
    if path.is_dir():
        return _open_folder(path, input_shape)
    _expect_kind(path)
    if path.suffix.lower() == ".tflite":
        from edgekit.converters.sources.tflite import open_tflite

        return open_tflite(path, input_shape)
    if path.suffix.lower() == ".onnx":
        from edgekit.converters.sources.onnx import open_onnx

        return open_onnx(path, input_shape)
    from edgekit.converters.sources.keras import open_keras

    return open_keras(path, scratch, input_shape, dict(custom_objects or {}))


def _open_folder(path: Path, input_shape: tuple[int, ...] | None) -> SourceModel:
    if not (path / "saved_model.pb").is_file():
        raise ModelError(f"{path} is a folder without saved_model.pb; expected {_KNOWN}")
    from edgekit.converters.sources.saved_model import open_saved_model

    return open_saved_model(path, input_shape)


def _expect_kind(path: Path) -> None:
    """Check that the file is of the kind that its name says."""
    suffix = path.suffix.lower()
    if suffix not in _KINDS:
        raise ModelError(f"{path} is of unknown kind {suffix!r}; expected {_KNOWN}")
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    what, mark = _KINDS[suffix]
    if mark is not None and not start.startswith(mark):
        found = next(
            (
                f"its content is that of {other}"
                for other, (_, m) in _KINDS.items()
                if m is not None and start.startswith(m)
            ),
            f"its first bytes are {start.hex()}" if start else "it is empty",
        )
        raise ModelError(f"{path} is not a {what}: {found}; expected {_KNOWN}")
