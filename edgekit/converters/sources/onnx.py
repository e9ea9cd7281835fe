"""ONNX files as source models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.onnx.read import external_file, read_model, stored_at, tensors_of
from edgekit.converters.onnx.simplify import fix_shape, simplify
from edgekit.converters.sources.graph import checked_inputs, fixed_inputs, one_line
from edgekit.errors import ModelError, require
from edgekit.runtime.backends import default_threads
from edgekit.runtime.backends.onnxruntime import import_onnxruntime
from edgekit.specs import TensorSpec

OLDEST_OPSET = 13
"""The first in which Q/DQ may have a scale a channel."""
_STANDARD = ("", "ai.onnx")
_INTEGER = (
    "ConvInteger",
    "DequantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
)
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class OnnxSource:
    """One ONNX file as a source model.

    Attributes:
        model: an `onnx.ModelProto`, simplified, with all dimensions fixed.
        inputs: batch 1, named as in the file.
        outputs: likewise.
        session: ONNX Runtime's on it.
        kind: ``onnx``.
    """

    model: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    session: Any
    kind: str = "onnx"

    @property
    def precision(self) -> str:
        """What it is: ``int8`` with Q/DQ or operators on integers, ``fp16``, or ``fp32``."""
        onnx: Any = require("onnx", "convert")
        if any(node.op_type in _INTEGER for node in self.model.graph.node):
            return "int8"
        half = onnx.TensorProto.FLOAT16
        return "fp16" if any(i.data_type == half for i in self.model.graph.initializer) else "fp32"

    def predict(self, inputs: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """Return the outputs for one sample; see `SourceModel.predict`."""
        arrays = checked_inputs(self.inputs, inputs)
        names = [spec.name for spec in self.inputs]
        found: list[NDArray[Any]] = self.session.run(None, dict(zip(names, arrays, strict=True)))
        return tuple(np.asarray(array) for array in found)


def open_onnx(path: Path, input_shape: tuple[int, ...] | None) -> OnnxSource:
    """Open an .onnx file; see `open_source`.

    Raises:
        ModelError: damaged, too old, with operators of its own, with data that lies outside its
            folder, or with open dimensions.
        MissingPackage: onnx or ONNX Runtime is not installed.
    """
    model = _read(path)
    _check_opset(model, path)
    onnx: Any = require("onnx", "convert")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    _check_domains(model, path)
    constants = {initializer.name for initializer in model.graph.initializer}
    given = [tensor for tensor in model.graph.input if tensor.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(given)
    specs = fixed_inputs([_described(onnx, tensor) for tensor in given], input_shape, str(path))
    _fix(model, specs)
    try:
        model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:
        raise ModelError(f"{path} contradicts itself: {one_line(error)}") from error
    return onnx_source(simplify(model), specs, str(path))


def onnx_source(model: Any, inputs: tuple[TensorSpec, ...], where: str) -> OnnxSource:
    """Return a model with fixed dimensions as a source."""
    session = open_session(model, where)
    return OnnxSource(model, inputs, _outputs(session, inputs, where), session)


def open_session(model: Any, what: str) -> Any:
    """Open an `onnx.ModelProto` in ONNX Runtime on the CPU.

    Raises:
        ModelError: ONNX Runtime does not take it.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = default_threads()
    try:
        return runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # every status of ONNX Runtime is a class of its own
        raise ModelError(f"ONNX Runtime cannot load {what}: {one_line(error)}") from error


def _read(path: Path) -> Any:
    """Return the model in a file, with what it keeps in other files of the same folder."""
    onnx: Any = require("onnx", "convert")
    model = read_model(path)
    for tensor in tensors_of(model):
        location = external_file(tensor)
        if location is not None and stored_at(tensor, path.parent) is None:
            raise ModelError(
                f"{path}: the data of {tensor.name[:80]!r} is in {location[:80]!r}; only files in "
                f"the model's own folder are read: save the model in one file, or beside its data"
            )
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise ModelError(f"{path}: its external data cannot be read: {one_line(error)}") from error
    return model


def _check_opset(model: Any, path: Path) -> None:
    version = next((o.version for o in model.opset_import if o.domain in _STANDARD), 0)
    if version < OLDEST_OPSET:
        raise ModelError(
            f"{path} has opset {version or 'none'}; {OLDEST_OPSET} or newer is needed: export it "
            f"again, or convert it with onnx.version_converter"
        )


def _check_domains(model: Any, path: Path) -> None:
    own = [f"{n.domain}.{n.op_type}" for n in model.graph.node if n.domain not in _STANDARD]
    if own:
        raise ModelError(
            f"{path} needs operators that are not ONNX's own ({', '.join(sorted(set(own))[:5])}); "
            f"export it with standard operators alone"
        )


def _described(onnx: Any, tensor: Any) -> tuple[str, tuple[int | None, ...] | None, str]:
    kind = tensor.type.tensor_type
    if not tensor.type.HasField("tensor_type") or not kind.elem_type:
        raise ModelError(f"input {tensor.name[:80]!r} is no tensor of numbers")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    if not kind.HasField("shape"):
        return tensor.name, None, dtype
    sizes = (dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)
    return tensor.name, tuple(size or None for size in sizes), dtype


def _fix(model: Any, specs: Sequence[TensorSpec]) -> None:
    """Write the fixed dimensions into the model, and drop what was inferred from open ones."""
    for tensor, spec in zip(model.graph.input, specs, strict=True):
        fix_shape(tensor, spec.shape)
    for output in model.graph.output:
        if output.type.HasField("tensor_type"):  # else it would become one
            output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]


def _outputs(session: Any, inputs: Sequence[TensorSpec], where: str) -> tuple[TensorSpec, ...]:
    names = [output.name for output in session.get_outputs()]
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in inputs}
    try:
        arrays = session.run(None, zeros)
    except Exception as error:  # every status of ONNX Runtime is a class of its own
        raise ModelError(f"ONNX Runtime cannot run {where}: {one_line(error)}") from error
    for name, array in zip(names, arrays, strict=True):
        if not isinstance(array, np.ndarray):  # a sequence or a map
            raise ModelError(f"output {name[:80]!r} is no tensor: {type(array).__name__}")
        if array.dtype.kind not in "fiub" or not array.size:
            raise ModelError(f"output {name[:80]!r} is no tensor of numbers: {array.dtype}")
    return tuple(
        TensorSpec(name=name, shape=array.shape, dtype=array.dtype.name)
        for name, array in zip(names, arrays, strict=True)
    )
