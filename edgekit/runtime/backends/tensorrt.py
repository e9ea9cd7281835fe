"""TensorRT on an NVIDIA GPU, from the engine that this machine builds of the .onnx and keeps.

Unverified on a GPU: none was at hand. Its API is checked against the bindings of each version.
"""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError, DataError, ModelError, UsageError
from edgekit.runtime.backends import first_line
from edgekit.runtime.backends._onnx import onnx_spec
from edgekit.runtime.closing import Closing
from edgekit.runtime.cuda import Event, open_cuda
from edgekit.runtime.engines import engine_for
from edgekit.runtime.engines.builder import engine_logger
from edgekit.runtime.engines.gpu import first_gpu
from edgekit.runtime.engines.versions import api_of, import_flavour
from edgekit.runtime.gpu_tensor import GpuTensor
from edgekit.specs import TensorSpec

if TYPE_CHECKING:
    from edgekit.runtime.gpu_preprocess import GpuPreprocessor
    from edgekit.runtime.preprocess import Preprocessor

READS = ("onnx",)

_PREPROCESSES = ", frames preprocessed on the GPU"  # in `executes`

_DTYPES = {  # names in TensorRT's DataType, which lacks some in some versions
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


class RunTimes(msgspec.Struct, frozen=True):
    """How long the GPU was busy with a run, by CUDA events, in milliseconds.

    Attributes:
        compute_ms: the network alone.
        total_ms: with the copies to and from the GPU, and its preprocessing of the inputs.
    """

    compute_ms: float
    total_ms: float


def available() -> bool:
    """Tell whether TensorRT, pycuda and a GPU are here, without importing either package."""
    return is_available("tensorrt")


def is_available(flavour: str) -> bool:
    """Tell whether the module `flavour`, pycuda and a GPU are here."""
    return all(find_spec(name) for name in (flavour, "pycuda")) and first_gpu() is not None


class Backend(Closing):
    """An engine with an execution context; see `edgekit.runtime.backends.Backend`.

    A run is one order to the GPU: inputs over, network, outputs back, on a stream of its own. On
    an integrated GPU nothing is copied: it works in the host's memory. An input that the GPU itself
    preprocessed lies there already.

    Raises:
        EnvironmentLacks: no GPU, or a TensorRT that is too old.
        ModelError: TensorRT cannot build the engine.
        BackendError: it cannot load it, or the GPU has no memory for it.
    """

    flavour = "tensorrt"

    def __init__(self, model_path: Path, threads: int) -> None:
        self.threads = 1  # the GPU does the work
        self._module = import_flavour(self.flavour)
        self._title = api_of(self._module).name
        self._cuda = open_cuda()  # before the build, which takes minutes
        content = engine_for(model_path, self.flavour).content
        self._log = engine_logger(self._module)
        self._runtime: Any = None
        self._engine: Any = None
        self._context: Any = None
        self._stream: Any = None
        self._marks: list[Event] = []
        self._sources: list[GpuTensor] = []
        self._results: list[GpuTensor] = []
        self._preprocessors: list[GpuPreprocessor] = []
        self._preprocess_ms = 0.0  # of the last run
        self._is_busy = False  # the stream has orders that nobody waited for
        self._has_run = False
        try:
            with self._cuda.active():
                self._open(content, model_path)
        except BaseException as error:
            with self._cuda.active():
                traceback.clear_frames(error.__traceback__)  # they hold what is to be released
            self.close()
            raise
        self.executes = (
            f"{self._title}, {self._cuda.name} ({self._cuda.compute_capability})"
            f"{', zero-copy' if self._cuda.is_integrated else ''}"
        )

    def _open(self, content: bytes, model_path: Path) -> None:
        with self._refusals(f"cannot load the engine of {model_path}"):
            # For operators that the parser made plugins of; without a logger, which it would keep.
            self._module.init_libnvinfer_plugins(None, "")
            self._runtime = self._module.Runtime(self._log)
            self._engine = _granted(self._runtime.deserialize_cuda_engine(content))
            self._context = _granted(self._engine.create_execution_context())
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = self._module.TensorIOMode.INPUT
        is_input = {name: self._engine.get_tensor_mode(name) == inputs for name in names}
        specs = {name: _spec(self._engine, name, model_path) for name in names}
        self.inputs = tuple(specs[name] for name in names if is_input[name])
        self.outputs = tuple(specs[name] for name in names if not is_input[name])
        self._stream = self._cuda.stream()
        # Passed before the copies to the GPU, the network, the copies back, and after them.
        self._marks = [self._cuda.event() for _ in range(4)]
        for specs_of, tensors in ((self.inputs, self._sources), (self.outputs, self._results)):
            for spec in specs_of:
                # One by one, so that `close` frees what there is.
                tensors.append(GpuTensor(self._cuda, spec))
        self._set_addresses(self._context)

    def input_buffer(self, index: int) -> NDArray[Any]:
        """Return page-locked memory, which the GPU copies from or, integrated, reads itself.

        It holds the input, also one that the GPU wrote, and what is written there is the input.
        """
        self._check_open()
        tensor = self._sources[index]
        if tensor.is_newer_there:
            with self._cuda.active():
                self._is_busy = True
                tensor.to_host(self._stream)
                self._wait()
            tensor.is_newer_there, tensor.written_by = False, None
        return tensor.array

    def preprocessor(self, index: int, on_cpu: Preprocessor) -> Callable[[NDArray[np.uint8]], bool]:
        """Return what has the GPU preprocess frames into an input; see `backends.Backend`.

        It is seen to do what the CPU does before it is returned. It gives orders and waits for
        none of them: the run that follows does.

        Raises:
            UsageError: the GPU's kernel cannot do it.
            EnvironmentLacks: no nvcc, which compiles the kernel.
            BackendError: it computes something else here than the CPU, or what CUDA reports.
        """
        # Here, for it imports OpenCV, which an engine does without.
        from edgekit.runtime.gpu_preprocess import GpuPreprocessor, check_against_cpu

        self._check_open()
        self._preprocessors.append(GpuPreprocessor(on_cpu, self._cuda))
        write = functools.partial(self._write, self._preprocessors[-1], index)
        check_against_cpu(on_cpu, write, lambda: self.input_buffer(index))
        if not self.executes.endswith(_PREPROCESSES):
            self.executes += _PREPROCESSES
        return write

    def _write(self, gpu: GpuPreprocessor, index: int, frame: NDArray[np.uint8]) -> bool:
        self._check_open()
        tensor = self._sources[index]
        with self._cuda.active():
            self._wait()  # the frame before may still be read
            self._is_busy = True
            try:
                gpu(frame, tensor.address, self._stream)
            except DataError:  # the CPU takes it, or says what it is
                return False
        tensor.is_newer_there, tensor.written_by = True, gpu
        return True

    def run(self, outputs: Sequence[NDArray[Any]]) -> None:
        """Infer from the input buffers into `outputs`."""
        self._check_open()
        with self._at_work():
            self._execute(self._context)
        self._has_run = True
        for tensor, out in zip(self._results, outputs, strict=True):
            out[...] = tensor.array

    @property
    def last_times_ms(self) -> RunTimes:
        """How long the GPU took for the last run."""
        self._check_open()
        if not self._has_run:
            raise UsageError("there are no times before the first run")
        begin, copied, computed, end = self._marks
        with self._cuda.active():
            run_ms = end.time_since(begin)
            return RunTimes(computed.time_since(copied), self._preprocess_ms + run_ms)

    def layer_times(self) -> list[tuple[str, float]]:
        """Run what the input buffers hold once more, and return each layer's name and milliseconds.

        The layers are those of the engine, in the order it executes them: fused, and named after
        what they were fused from. The GPU stops after each, so their sum is more than a run's time.
        """
        self._check_open()
        profiler = _profiler(self._module)
        with self._at_work():
            self._execute_with(profiler)
        self._has_run = False  # the marks are those of a slower run
        times: list[tuple[str, float]] = profiler.times_ms
        return times

    def _execute_with(self, profiler: Any) -> None:
        with self._refusals("cannot time its layers"):
            # A context of its own: one that had a profiler may be slower from then on.
            context = _granted(self._engine.create_execution_context())
            context.profiler = profiler
        self._set_addresses(context)
        self._execute(context)

    def close(self) -> None:
        """Release the context, the engine and their memory, in this order."""
        if self._runtime is None:
            return
        # What failed before fails again, and must not keep the rest from being released.
        with suppress(BackendError), self._cuda.active():
            self._wait()
        with self._cuda.active():
            # What was made from another goes before it, memory when nothing works in it any more.
            self._context = None
            self._engine = None
            self._runtime = None
            while self._preprocessors:
                self._preprocessors.pop().close()
            for tensors in (self._sources, self._results):
                while tensors:  # no name keeps one beyond the context, where it would leak
                    tensors.pop().free()
            self._marks = []
            self._stream = None

    def _set_addresses(self, context: Any) -> None:
        with self._refusals("does not take the memory of its tensors"):
            for tensor in (*self._sources, *self._results):
                _granted(context.set_tensor_address(tensor.name, tensor.address))

    def _execute(self, context: Any) -> None:
        begin, copied, computed, end = self._marks
        self._is_busy = True
        begin.record(self._stream)
        for tensor in self._sources:
            tensor.to_device(self._stream)
        copied.record(self._stream)
        with self._refusals("failed to run the model"):
            _granted(context.execute_async_v3(self._stream.handle))
        computed.record(self._stream)
        for tensor in self._results:
            tensor.to_host(self._stream)
        end.record(self._stream)
        self._wait()
        # Now, for their marks are used again by the next frame.
        self._preprocess_ms = sum(t.written_by.last_ms for t in self._sources if t.written_by)
        for tensor in self._sources:
            tensor.written_by = None

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._cuda.active():
            try:
                yield
            except BaseException as error:
                # Its frames hold a context: who keeps the error would keep that beyond `close`.
                traceback.clear_frames(error.__traceback__)
                raise

    def _wait(self) -> None:
        """Wait until the GPU has done all that it was told to do."""
        if self._is_busy:
            self._stream.synchronize()
            self._is_busy = False

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """Raise `BackendError` with what TensorRT logged, where it refuses.

        The engine is ours by its hash, so that it is no wrong model that cannot be loaded.
        """
        self._log.errors.clear()
        try:
            yield
        except (_RefusedError, TypeError, RuntimeError) as error:  # of its bindings
            why = "; ".join(self._log.errors[-3:]) or first_line(error)
            raise BackendError(f"{self._title} {what}: {why[:500]}") from error

    def _check_open(self) -> None:
        if self._runtime is None:
            raise UsageError("the model is closed; open it again")


class _RefusedError(Exception):
    """TensorRT returned None or False."""


def _granted(answer: Any) -> Any:
    """Return what TensorRT made; where it cannot, it returns None or False, and logs why."""
    if answer is None or answer is False:
        raise _RefusedError("no reason given")
    return answer


def _spec(engine: Any, name: str, model_path: Path) -> TensorSpec:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise ModelError(
            f"{model_path}: {name!r} is {kind}; expected one of {', '.join(_DTYPES)}: "
            "convert the model again"
        )
    return onnx_spec(name, tuple(engine.get_tensor_shape(name)), _DTYPES[kind], model_path)


def _profiler(module: Any) -> Any:
    """Return TensorRT's profiler: it keeps `times_ms`, (name, milliseconds) of each layer."""

    class Profiler(module.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProfiler.__init__(self)
            self.times_ms: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times_ms.append((layer_name, ms))

    return Profiler()
