"""OpenVINO on the CPU, in float32 and integers; `openvino_bf16` lets it round to bfloat16."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError, ModelError, UsageError, require
from edgekit.runtime.backends._onnx import check_onnx, onnx_spec
from edgekit.runtime.closing import Closing
from edgekit.runtime.tflite import describe_tflite
from edgekit.specs import TensorSpec

READS = ("litert", "onnx")

_Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]


class Backend(Closing):
    """A .tflite or .onnx file in one infer request; see `edgekit.runtime.backends.Backend`.

    The request is given arrays of this object as its inputs once, and its own output memory is
    copied into the caller's, so that a run allocates nothing: giving it the caller's anew for each
    run costs more than the copy.

    Args:
        model_path: the .tflite or .onnx file.
        threads: CPU threads.
        is_profiled: keep the time that each layer takes, for `layer_times`.
    """

    precision = "f32"
    """What floating-point layers are asked to compute in. OpenVINO's own default is bfloat16 where
    the CPU has it, which no golden sample of a deep float32 model would pass."""

    def __init__(self, model_path: Path, threads: int, is_profiled: bool = False) -> None:
        self._is_profiled = is_profiled
        described = _describe(model_path)
        openvino = _import_openvino()
        version = openvino.__version__.partition("-")[0]
        try:
            model = openvino.Core().read_model(str(model_path))
            self.inputs, self.outputs = described or _onnx_specs(model, model_path)
            if model.is_dynamic():  # a .tflite keeps the shape to run with beside the open one
                model.reshape({i: list(spec.shape) for i, spec in enumerate(self.inputs)})
            compiled = self._compile(openvino, model, threads)
            self._request = compiled.create_infer_request()
            self._keeps_state = bool(self._request.query_state())
            self._inputs = [np.zeros(spec.shape, spec.dtype) for spec in self.inputs]
            for index, array in enumerate(self._inputs):
                self._request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
            places = range(len(self.outputs))
            self._outputs = [self._request.get_output_tensor(index).data for index in places]
        except RuntimeError as error:
            raise ModelError(
                f"OpenVINO {version} cannot load {model_path}: {_reason(error)}; "
                f"try another backend"
            ) from error
        self.threads = int(compiled.get_property("INFERENCE_NUM_THREADS"))
        effective = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.executes = f"OpenVINO {version}, CPU, {effective}"

    def input_buffer(self, index: int) -> NDArray[Any]:
        """Return the array that the engine reads."""
        self._check_open()
        return self._inputs[index]

    def run(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Infer from the input buffers into `outputs`."""
        self._check_open()
        try:
            if self._keeps_state:
                self._request.reset_state()
            self._request.infer(share_outputs=True)  # else it copies them once more
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed to run the model: {_reason(error)}") from error
        for computed, out in zip(self._outputs, outputs, strict=True):
            out[...] = computed

    def layer_times(self) -> tuple[list[Any], Any]:
        """Return OpenVINO's own times of its layers, and the graph of them, of a profiled backend.

        Returns:
            One ``ProfilingInfo`` a layer, means over all runs so far; the ``Model`` that it runs.
        """
        self._check_open()
        try:
            graph = self._request.get_compiled_model().get_runtime_model()
            return self._request.get_profiling_info(), graph
        except RuntimeError as error:
            raise BackendError(f"OpenVINO does not tell its layers: {_reason(error)}") from error

    def close(self) -> None:
        """Release the engine."""
        self._request = None
        self._inputs, self._outputs = [], []

    def _compile(self, openvino: ModuleType, model: Any, threads: int) -> Any:
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": self.precision,
            # Every process would pin its threads to the same first cores: two models of one thread
            # on two cores took 37 ms a run each instead of 18.
            "ENABLE_CPU_PINNING": False,
            "PERF_COUNT": self._is_profiled,
        }
        return openvino.compile_model(model, "CPU", settings)

    def _check_open(self) -> None:
        if self._request is None:
            raise UsageError("the model is closed; open it again")


def _describe(model_path: Path) -> _Specs | None:
    """Check the file before OpenVINO, which guesses the format of what it cannot read.

    Returns what a .tflite says of its inputs and outputs, scales included, which OpenVINO does not
    tell; None for an .onnx file.
    """
    if model_path.suffix != ".tflite":
        check_onnx(model_path)
        return None
    try:
        content = model_path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model {model_path}: {error.strerror}") from error
    description = describe_tflite(content, str(model_path))
    return description.inputs, description.outputs


def _import_openvino() -> ModuleType:
    """Return OpenVINO, imported without its telemetry.

    `import openvino` writes an id into ``~/intel`` and starts a process that reports the import;
    where its telemetry package is missing, it makes do with a stub of its own.
    """
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # Python's mark for "not to be imported"
    try:
        return require("openvino", "openvino")
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


def _onnx_specs(model: Any, model_path: Path) -> _Specs:
    def specs(ports: Sequence[Any]) -> tuple[TensorSpec, ...]:
        return tuple(
            onnx_spec(
                port.get_any_name(),
                [d.get_length() if d.is_static else str(d) for d in port.partial_shape],
                np.dtype(port.element_type.to_dtype()).name,
                model_path,
            )
            for port in ports
        )

    return specs(model.inputs), specs(model.outputs)


def _reason(error: Exception) -> str:
    """Return the last line: those before say where in OpenVINO's source it was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return re.sub(r"^(Check '.*' failed at \S+: |-- )", "", last)[:500]
