"""ONNX Runtime on the CPU, and on NVIDIA GPUs where its build and the machine allow it.

Providers are tried in the order TensorRT, CUDA, CPU, and what a session then truly has is said in
`executes`; to keep to the CPU on a machine with a GPU, hide the GPU: ``CUDA_VISIBLE_DEVICES=``.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError, ModelError, UsageError, require
from edgekit.runtime.backends import first_line
from edgekit.runtime.backends._onnx import OnnxSummary, check_onnx, onnx_spec
from edgekit.runtime.closing import Closing
from edgekit.specs import TensorSpec

READS = ("onnx",)

_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
_TITLES = {_CPU: "CPU", _CUDA: "CUDA", _TENSORRT: "TensorRT"}
_FATAL = 4  # log severity
_DTYPES = {
    "float": "float32",
    "double": "float64",
    **{name: name for name in ("float16", "bool", "int8", "int16", "int32", "int64")},
    **{name: name for name in ("uint8", "uint16", "uint32", "uint64")},
}


def import_onnxruntime() -> ModuleType:
    """Return ONNX Runtime, which reports nothing to its maker.

    As it is imported, 1.31 writes a device id and a database into ``~/.cache/Microsoft`` and starts
    a thread that uploads them, unless this variable forbids it before; 1.23 knew nothing of it.

    Raises:
        MissingPackage: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return require("onnxruntime", "onnx")


class Backend(Closing):
    """An .onnx file in an inference session; see `edgekit.runtime.backends.Backend`.

    Inputs and outputs are bound to memory of this object once: a run allocates nothing, and takes
    half the time that ``session.run`` takes around a small model. The outputs are copied from there
    into the caller's, because binding those anew for each run costs twice the copy.

    Args:
        model_path: the .onnx file.
        threads: CPU threads.
        profile_prefix: times each node, into a file whose path begins so; see ONNX Runtime's
            ``enable_profiling``.
    """

    def __init__(self, model_path: Path, threads: int, profile_prefix: str | None = None) -> None:
        ort = import_onnxruntime()
        summary = check_onnx(model_path)
        self.threads = threads
        try:
            session = _open_session(ort, model_path, threads, summary, profile_prefix)
        except Exception as error:  # the common base of its exceptions
            raise ModelError(
                f"ONNX Runtime {ort.__version__} cannot load {model_path}: {_reason(error)}"
            ) from error
        providers = ", ".join(_TITLES.get(name, name) for name in session.get_providers())
        self.executes = f"ONNX Runtime {ort.__version__}, {providers}"
        self.inputs = tuple(_spec(node, model_path) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, model_path) for node in session.get_outputs())
        self._inputs = [np.zeros(spec.shape, spec.dtype) for spec in self.inputs]
        # An input that is an output too is not written by the engine.
        handed_through = dict(zip((spec.name for spec in self.inputs), self._inputs, strict=True))
        self._outputs = [
            handed_through.get(spec.name, np.zeros(spec.shape, spec.dtype)) for spec in self.outputs
        ]
        self._session = session
        self._binding = session.io_binding()
        value_over = ort.OrtValue.ortvalue_from_numpy
        for spec, array in zip(self.inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(spec.name, value_over(array))
        for spec, array in zip(self.outputs, self._outputs, strict=True):
            if spec.name not in handed_through:
                self._binding.bind_ortvalue_output(spec.name, value_over(array))

    def input_buffer(self, index: int) -> NDArray[Any]:
        """Return the array that the input is bound to."""
        self._check_open()
        return self._inputs[index]

    def run(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Infer from the input buffers into `outputs`."""
        self._check_open()
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # the common base of its exceptions
            raise BackendError(f"ONNX Runtime failed to run the model: {_reason(error)}") from error
        for computed, out in zip(self._outputs, outputs, strict=True):
            out[...] = computed

    def end_profiling(self) -> Path:
        """Return the file of times of a backend that was opened with `profile_prefix`."""
        self._check_open()
        return Path(self._session.end_profiling())

    def close(self) -> None:
        """Release the session."""
        self._binding = self._session = None
        self._inputs, self._outputs = [], []

    def _check_open(self) -> None:
        if self._session is None:
            raise UsageError("the model is closed; open it again")


def _open_session(
    ort: ModuleType,
    model_path: Path,
    threads: int,
    summary: OnnxSummary,
    profile_prefix: str | None,
) -> Any:
    """Return a session of the best provider that this machine can use.

    A provider is listed if it was compiled in; whether its libraries and a GPU are there shows
    only when a session is made, which then fails, or silently does without it.
    """
    available = ort.get_available_providers()
    candidates = [name for name in (_TENSORRT, _CUDA) if name in available]
    if candidates:
        ort.set_default_logger_severity(_FATAL)  # it prints what it could not load
    for first in candidates:
        usable = candidates[candidates.index(first) :]
        wanted = [(name, _options(name, model_path, summary)) for name in usable]
        try:
            session = _session(ort, model_path, threads, [*wanted, _CPU], profile_prefix)
        except Exception:  # noqa: S112 - the next provider is tried, and `executes` says which ran
            continue
        if first in session.get_providers():
            return session
    return _session(ort, model_path, threads, [_CPU], profile_prefix)


def _session(
    ort: ModuleType,
    model_path: Path,
    threads: int,
    providers: list[Any],
    profile_prefix: str | None,
) -> Any:
    options = ort.SessionOptions()
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads would spin. Measured at two threads and 30 inferences a second: 40 ms of CPU
    # for each instead of 8; on an idle machine they took 3.1 ms instead of 5.6, beside other
    # programs longer.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without `enable_fallback=0` it prints, and goes on with another provider.
    return ort.InferenceSession(str(model_path), options, providers=providers, enable_fallback=0)


def _options(provider: str, model_path: Path, summary: OnnxSummary) -> dict[str, Any]:
    """Return a GPU provider's options; unverified, no GPU was at hand."""
    if provider == _CUDA:
        return {"use_tf32": 0}  # its default would compute float32 with 10 bits of mantissa
    # Its own names of cached engines do not depend on the weights, so each model has a folder.
    digest = hashlib.sha256(model_path.read_bytes()).hexdigest()
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(caches / "edgekit" / "onnxruntime-tensorrt" / digest[:32]),
        "trt_int8_enable": "QuantizeLinear" in summary.operators,
        "trt_fp16_enable": summary.has_float16,
    }


def _spec(node: Any, model_path: Path) -> TensorSpec:
    dtype = _DTYPES.get(str(node.type).removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        raise ModelError(
            f"{model_path}: {node.name!r} is {node.type}; expected one of "
            f"{', '.join(f'tensor({name})' for name in _DTYPES)}: convert the model again"
        )
    return onnx_spec(node.name, node.shape, dtype, model_path)


def _reason(error: Exception) -> str:
    """Return its message without the number and name of the status."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))[:500]
