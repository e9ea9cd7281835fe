"""The process that profiles a LiteRT model through the C interface of `libLiteRt.so`.

The interface is that of LiteRT 2.1.6 to 2.3, `litert/c/*.h` in
https://github.com/google-ai-edge/LiteRT.
Functions are bound by name, types stay opaque where they can, and what comes back is judged before
it is believed.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError
from edgekit.profiling.operators._timing import Budget, Run, in_turns, mean_of_faster_half, mean_run
from edgekit.runtime.backends.litert import Backend

_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_TENSOR_TYPE_BYTES = 4096  # LiteRtRankedTensorType takes some hundred
# What an event is of: an operator that LiteRT runs itself, or a kernel of a delegate.
_DEFAULT, _OPERATOR, _KERNEL = 1 << 0, 1 << 1, 1 << 3
_KINDS = {1 << bit for bit in range(9)}
_MOST_EVENTS = 100_000
_CONTROL_FLOW = ("WHILE", "IF", "CALL", "STABLEHLO_COMPOSITE", "STABLEHLO_WHILE")

Pointer = ctypes.c_void_p
_Size = ctypes.c_size_t
_Release = ctypes.CFUNCTYPE(None, Pointer)


class _Event(ctypes.Structure):
    """`ProfiledEventData`: 104 bytes, three numbers of memory before and after."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    ]


class NotUnderstoodError(Exception):
    """The library of this version is not as the one that this file was written for."""


class ProfiledModel:
    """A model in LiteRT's compiled-model interface, with its profiler on.

    Settings are those of the backend `litert`: the CPU, XNNPACK, so many threads. It is released
    with the process.
    """

    def __init__(self, library: str, model: str, threads: int) -> None:
        self._library = ctypes.CDLL(library)
        self._kept: list[Any] = []  # what the library points to
        self._environment = self._made("LiteRtCreateEnvironment", 0, None)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, model.encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        self._add(options, "runtime_options_string", "enable_profiling = true")
        self._add(options, "xnnpack", f"num_threads = {threads}")
        self._compiled = self._made(
            "LiteRtCreateCompiledModel", self._environment, self._model, options
        )
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        self._signature = self._made("LiteRtGetModelSignature", self._model, _Size(0))
        self.input_names, self._inputs = self._buffers("Input")
        _, self._outputs = self._buffers("Output")

    def fill(self, index: int, values: NDArray[Any]) -> None:
        """Write an input, contiguous; `NotUnderstoodError` if it has another size."""
        buffer, size = Pointer(self._inputs[index]), _Size()  # ctypes gives it as a bare number
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != values.nbytes:
            raise NotUnderstoodError(f"an input of {values.nbytes} bytes has {size.value} there")
        address = Pointer()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> Run:
        """Infer, and return what ran; `NotUnderstoodError` if it makes no sense."""
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        before_ns = time.perf_counter_ns()
        self._call(
            "LiteRtRunCompiledModel",
            self._compiled,
            _Size(0),
            _Size(len(self._inputs)),
            self._inputs,
            _Size(len(self._outputs)),
            self._outputs,
        )
        wall_us = (time.perf_counter_ns() - before_ns) / 1e3
        self._call("LiteRtStopProfiler", self._profiler)
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if not 0 < count.value <= _MOST_EVENTS:
            raise NotUnderstoodError(f"one inference gave {count.value} events")
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return understood(list(events), wall_us)

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NotUnderstoodError(f"it has no function {name}") from None
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status != 0:
            raise NotUnderstoodError(f"{name} gave status {status}")

    def _made(self, name: str, *arguments: object) -> Pointer:
        """Call what writes a handle to where its last argument points, and return the handle."""
        handle = Pointer()
        self._call(name, *arguments, ctypes.byref(handle))
        if not handle.value:
            raise NotUnderstoodError(f"{name} gave nothing")
        return handle

    def _add(self, options: Pointer, identifier: str, toml: str) -> None:
        payload = ctypes.create_string_buffer(f"{toml}\n".encode())
        release = _Release(lambda payload: None)  # Python's memory
        self._kept += [payload, release]
        opaque = self._made(
            "LiteRtCreateOpaqueOptions",
            identifier.encode(),
            ctypes.cast(payload, Pointer),
            release,
        )
        self._call("LiteRtAddOpaqueOptions", options, opaque)

    def _buffers(self, what: str) -> tuple[list[str], Any]:
        """Return the names of the inputs or outputs and new memory for them, as the model wants."""
        count = _Size()
        self._call(f"LiteRtGetNumSignature{what}s", self._signature, ctypes.byref(count))
        names, buffers = [], []
        for index in map(_Size, range(count.value)):
            tensor = self._made(f"LiteRtGetSignature{what}TensorByIndex", self._signature, index)
            name = ctypes.c_char_p()
            self._call("LiteRtGetTensorName", tensor, ctypes.byref(name))
            names.append((name.value or b"").decode(errors="replace"))
            kind = ctypes.create_string_buffer(_TENSOR_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            wanted = self._made(
                f"LiteRtGetCompiledModel{what}BufferRequirements", self._compiled, _Size(0), index
            )
            buffers.append(
                self._made(
                    "LiteRtCreateManagedTensorBufferFromRequirements",
                    self._environment,
                    kind,
                    wanted,
                )
            )
        return names, (Pointer * len(buffers))(*buffers)


def understood(events: Sequence[Any], wall_us: float) -> Run:
    """Return the operators among one inference's events, and the time of the whole.

    An operator with control flow counts as a whole, what ran inside of it not once more.

    Args:
        events: with the fields of `ProfiledEventData`.
        wall_us: what the inference took, by the clock around it.

    Raises:
        NotUnderstoodError: they cannot be what they seem.
    """
    found: list[tuple[str, float]] = []
    invoke_us = wall_us
    inside = False
    last_start_us = 0
    for event in events:
        if event.kind not in _KINDS:
            raise NotUnderstoodError(f"an event has the type {event.kind}")
        name = (event.tag or b"").decode(errors="replace")
        if event.kind == _DEFAULT and name == "Invoke":  # what is around it is not the model's
            invoke_us = min(event.elapsed_us, wall_us)
        if event.kind not in (_OPERATOR, _KERNEL):
            continue
        if not name or event.elapsed_us > 1.1 * wall_us + 100:
            raise NotUnderstoodError(f"{name!r} took {event.elapsed_us} of {wall_us:.0f} µs")
        if event.kind == _OPERATOR and event.subgraph == 0:
            if event.start_us < last_start_us:
                raise NotUnderstoodError(f"{name} began before what ran before it")
            last_start_us = event.start_us
            inside = name in _CONTROL_FLOW
            found.append((name, event.elapsed_us / 1e3))
        elif event.kind == _KERNEL and not inside:
            found.append((name, event.elapsed_us / 1e3))
    sum_us = 1e3 * sum(ms for _, ms in found)
    if not found or sum_us > 1.1 * wall_us + 100:
        raise NotUnderstoodError(f"{len(found)} operators took {sum_us:.0f} of {wall_us:.0f} µs")
    return Run(tuple(found), invoke_us / 1e3)


def measured(
    library: str,
    model: str,
    threads: int,
    folder: str,
    runs: int | None,
    duration_s: float,
    on_progress: object,
) -> dict[str, Any]:
    """Return name and mean ms of each kernel, and what an inference takes without the profiler.

    Args:
        library: path of ``libLiteRt.so``.
        model: path of the .tflite.
        threads: as the backend has.
        folder: holds an input each in ``0.npy``, ``1.npy`` …
        runs: as in `Budget`.
        duration_s: as in `Budget`.
        on_progress: not called.

    Raises:
        BackendError: the library is not as the one that is known here, or cannot be loaded.
    """
    try:
        return _measured(
            library, Path(model), threads, Path(folder), Budget(runs=runs, duration_s=duration_s)
        )
    except (NotUnderstoodError, OSError) as error:
        raise BackendError(
            f"LiteRT's library is not as the ones that EdgeKit knows (2.1.6 to 2.3): {error}; "
            "another version of ai-edge-litert may do"
        ) from error


def _measured(
    library: str, model: Path, threads: int, folder: Path, budget: Budget
) -> dict[str, Any]:
    profiled = ProfiledModel(library, str(model), threads)
    with Backend(model, threads) as backend:
        for index, spec in enumerate(backend.inputs):
            values = np.ascontiguousarray(np.load(folder / f"{index}.npy"))
            backend.input_buffer(index)[...] = values
            if spec.name not in profiled.input_names:
                raise NotUnderstoodError(f"it knows no input {spec.name!r}")
            profiled.fill(profiled.input_names.index(spec.name), values)
        outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
        plain_ms, found = in_turns(lambda: backend.run(outputs), profiled.run, budget)
    mean, count = mean_run(found)
    return {
        "kernels": mean.kernels,
        "infer_ms": mean.infer_ms,
        "plain_ms": mean_of_faster_half(plain_ms),
        "runs": count,
    }
