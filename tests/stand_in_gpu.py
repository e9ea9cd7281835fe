"""Stand-ins for pycuda's driver and TensorRT's runtime, for machines without a GPU.

No CUDA and nothing of NVIDIA's: "GPU memory" is the host's, work on a stream is done when somebody
waits for it, and an engine's content is the .onnx itself, which ONNX Runtime computes. They refuse
what the real ones refuse (no active context, freed memory, tensors without memory), so that tests
see whether the backend does things in order. test_tensorrt_api.py checks their names against the
real ones.
"""

import ctypes
import enum
import functools
import importlib.machinery
import types
import weakref

import numpy as np

from edgekit.runtime.backends.onnxruntime import import_onnxruntime
from edgekit.runtime.gpu_preprocess import KERNEL


class Driver(types.ModuleType):
    """`pycuda.driver`; `calls` is what was asked of it, `memory` what is allocated."""

    class Error(Exception):
        pass

    class MemoryError(Error):  # noqa: A001 - pycuda's name
        pass

    class LogicError(Error):
        pass

    class device_attribute(enum.Enum):  # noqa: N801
        INTEGRATED = 18

    class host_alloc_flags:  # noqa: N801
        DEVICEMAP = 2

    def __init__(self, integrated=False, capacity=1 << 30, kernel=None):
        super().__init__("pycuda.driver")
        self.__spec__ = importlib.machinery.ModuleSpec("pycuda.driver", None)
        self.integrated, self.capacity, self.kernel = integrated, capacity, kernel
        self.calls, self.memory, self.stack, self.mistakes = [], {}, [], []
        driver = self

        class Context:
            def push(self):
                driver.stack.append(self)

            @staticmethod
            def pop():
                driver.stack.pop()

            def detach(self):
                pass

        class Device:
            def __init__(self, number):
                assert number == 0

            def name(self):
                return "Stand-in GPU"

            def compute_capability(self):
                return (8, 7)

            def get_attribute(self, attribute):
                return int({Driver.device_attribute.INTEGRATED: driver.integrated}[attribute])

            def retain_primary_context(self):
                return Context()

        class Stream:
            def __init__(self, flags=0):
                driver.told("Stream")
                self.handle, self.work = id(self), []
                driver.streams[self.handle] = self

            def synchronize(self):
                driver.told("synchronize")
                while self.work:
                    self.work.pop(0)()

        class Event:
            def __init__(self, flags=0):
                driver.told("Event")
                self.passed = None

            def record(self, stream=None):
                driver.told("record")
                self.passed = None

                def passes():
                    driver.clock_ms += 1
                    self.passed = driver.clock_ms

                stream.work.append(passes)
                return self

            def time_since(self, start):
                driver.told("time_since")
                if self.passed is None or start.passed is None:
                    raise Driver.LogicError("cuEventElapsedTime failed: device not ready")
                return float(self.passed - start.passed)

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.streams, self.clock_ms = {}, 0

    def told(self, call):
        if not self.stack:
            raise Driver.LogicError(f"{call} failed: invalid device context")
        self.calls.append(call)

    def init(self, flags=0):
        pass

    def mem_alloc(self, byte_count):
        self.told("mem_alloc")
        if sum(map(len, self.memory.values())) + byte_count > self.capacity:
            raise Driver.MemoryError("cuMemAlloc failed: out of memory")
        return Allocation(self, byte_count)

    def mem_get_info(self):
        self.told("mem_get_info")
        return self.capacity - sum(map(len, self.memory.values())), self.capacity

    def pagelocked_empty(self, shape, dtype, order="C", mem_flags=0):
        self.told("pagelocked_empty")
        array = np.asarray(HostAllocation(shape, dtype, mem_flags))
        if mem_flags & self.host_alloc_flags.DEVICEMAP:
            content = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
            self.memory[array.ctypes.data] = content
            weakref.finalize(array.base, self.memory.pop, array.ctypes.data)
        return array

    def memcpy_htod_async(self, dest, src, stream=None):
        self.told("memcpy_htod_async")
        self.copies(dest, src, stream, lambda there, here, size: ctypes.memmove(there, here, size))

    def memcpy_dtoh_async(self, dest, src, stream=None):
        self.told("memcpy_dtoh_async")
        self.copies(src, dest, stream, lambda there, here, size: ctypes.memmove(here, there, size))

    def memcpy_dtod_async(self, dest, src, size, stream=None):
        self.told("memcpy_dtod_async")
        there, here = self.content(dest, size), self.content(src, size)
        stream.work.append(lambda: ctypes.memmove(there, here, size))

    def copies(self, address, array, stream, move):
        """Copy when the stream gets to it, from or to what is at the addresses then."""
        self.content(address, array.nbytes)
        pointer, size, held = array.ctypes.data, array.nbytes, weakref.ref(array)

        def copy():
            if held() is None:
                raise Driver.LogicError("a copy from or to memory of the host that is gone")
            move(self.content(address, size), pointer, size)

        stream.work.append(copy)

    def module_from_buffer(self, buffer):
        self.told("module_from_buffer")
        raise Driver.LogicError("cuModuleLoadDataEx failed: device kernel image is invalid")

    def spoil(self, output):
        """Change what the kernel wrote."""

    def content(self, address, byte_count):
        """Return the memory at an address of the "GPU"."""
        content = self.memory.get(address)
        if content is None or len(content) < byte_count:
            raise Driver.LogicError("invalid argument")
        return content


class Compiler(types.ModuleType):
    """`pycuda.compiler`, of a machine with nvcc if the driver has a `kernel`.

    That is the kernel's own source, compiled for the CPU; `Driver.spoil` may change what it wrote.
    """

    def __init__(self, driver):
        super().__init__("pycuda.compiler")
        self.__spec__ = importlib.machinery.ModuleSpec("pycuda.compiler", None)

        class SourceModule:
            def __init__(self, source, nvcc="nvcc", no_extern_c=False):
                driver.told("SourceModule")
                if driver.kernel is None:
                    raise OSError("error invoking 'nvcc --version': No such file: 'nvcc'")
                assert no_extern_c
                assert source == KERNEL.read_text("utf-8")
                self.is_loaded = True

            def get_function(self, name):
                driver.told("get_function")
                assert name == "preprocess"
                return functools.partial(launch, driver)

            def __del__(self):
                if hasattr(self, "is_loaded") and not driver.stack:
                    driver.mistakes.append("a module went without an active context")

        self.SourceModule = SourceModule


def launch(driver, *arguments, grid, block, stream):
    """Start the kernel, of four addresses, when the stream gets to it."""
    driver.told("launch")
    assert {type(argument) for argument in arguments} == {np.uint64}
    frame, chroma, plan, output = map(int, arguments)
    assert chroma == 0
    assert grid[2] == block[2] == 1

    def compute():
        for address in (frame, plan, output):
            driver.content(address, 1)
        driver.kernel(*grid[:2], *block[:2], frame, chroma, plan, output)
        driver.spoil(driver.content(output, 1))

    stream.work.append(compute)


class Allocation:
    """`pycuda.driver.DeviceAllocation`."""

    def __init__(self, driver, byte_count):
        self.driver = driver
        self.buffer = ctypes.create_string_buffer(b"\xa5" * byte_count, byte_count)
        driver.memory[int(self)] = self.buffer

    def __int__(self):
        return ctypes.addressof(self.buffer)

    def free(self):
        self.driver.told("free")
        del self.driver.memory[int(self)]


class HostAllocation:
    """`pycuda.driver.HostAllocation`."""

    def __init__(self, shape, dtype, mem_flags):
        self.memory, self.mapped = np.empty(shape, dtype), mem_flags & 2
        self.__array_interface__ = self.memory.__array_interface__

    def get_device_pointer(self):
        if not self.mapped:
            raise Driver.LogicError("cuMemHostGetDevicePointer failed: invalid argument")
        return self.memory.ctypes.data


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, INT64, BOOL, UINT8, BF16 = range(8)


ONNX_TYPES = {
    "tensor(float)": DataType.FLOAT,
    "tensor(float16)": DataType.HALF,
    "tensor(int8)": DataType.INT8,
    "tensor(int32)": DataType.INT32,
    "tensor(int64)": DataType.INT64,
    "tensor(bool)": DataType.BOOL,
    "tensor(uint8)": DataType.UINT8,
    "tensor(bfloat16)": DataType.BF16,
}
NUMPY = dict(zip(DataType, ("f4", "f2", "i1", "i4", "i8", "?", "u1", "u2"), strict=True))


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class IProfiler:
    pass


class Tensorrt(types.ModuleType):
    """`tensorrt`, of an engine that runs. `fails`: calls that refuse; `wrong`: added to outputs."""

    TensorIOMode, ILogger, IProfiler, DataType = TensorIOMode, ILogger, IProfiler, DataType

    def __init__(self, driver, name="tensorrt"):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.__version__ = "10.3.0"
        self.driver, self.fails, self.wrong = driver, {}, 0
        self.alive, self.mistakes, self.loggers = [], [], []
        trt = self

        class Runtime:
            def __init__(self, logger):
                self.logger = logger
                trt.loggers.append(logger)
                if trt.refuses("Runtime", logger):
                    raise TypeError("pybind11::init(): factory function returned nullptr")
                trt.alive.append("runtime")

            def deserialize_cuda_engine(self, serialized_engine):
                if trt.refuses("deserialize_cuda_engine", self.logger):
                    return None
                return Engine(trt, self.logger, serialized_engine)

            def __del__(self):
                trt.dies("runtime")

        self.Runtime = Runtime

    def init_libnvinfer_plugins(self, logger, namespace):
        assert logger is None
        return True

    def refuses(self, call, logger):
        if call in self.fails:
            logger.log(ILogger.Severity.ERROR, self.fails[call])
        return call in self.fails

    def dies(self, what):
        """Note that something goes; an exception would be lost in `__del__`."""
        if what not in self.alive:
            return
        if not self.driver.stack:
            self.mistakes.append(f"{what} went without an active context")
        self.alive.remove(what)
        self.driver.calls.append(f"{what} gone")


class Engine:
    def __init__(self, trt, logger, content):
        self.trt, self.logger = trt, logger
        self.session = import_onnxruntime().InferenceSession(content)
        given = [(node, TensorIOMode.INPUT) for node in self.session.get_inputs()]
        made = [(node, TensorIOMode.OUTPUT) for node in self.session.get_outputs()]
        self.nodes = {node.name: (node, mode) for node, mode in [*made, *given]}
        trt.alive.append("engine")

    @property
    def num_io_tensors(self):
        return len(self.nodes)

    def get_tensor_name(self, index):
        return list(self.nodes)[index]

    def get_tensor_mode(self, name):
        return self.nodes[name][1]

    def get_tensor_shape(self, name):
        return [-1 if isinstance(n, str) else n for n in self.nodes[name][0].shape]

    def get_tensor_dtype(self, name):
        return ONNX_TYPES[self.nodes[name][0].type]

    def create_execution_context(self):
        if self.trt.refuses("create_execution_context", self.logger):
            return None
        return ExecutionContext(self.trt, self)

    def __del__(self):
        self.trt.dies("engine")


class ExecutionContext:
    profiler = None

    def __init__(self, trt, engine):
        self.trt, self.engine, self.addresses = trt, engine, {}
        trt.alive.append("context")

    def set_tensor_address(self, name, memory):
        assert isinstance(memory, int)
        self.addresses[name] = memory
        return not self.trt.refuses("set_tensor_address", self.engine.logger)

    def execute_async_v3(self, stream_handle):
        if self.trt.refuses("execute_async_v3", self.engine.logger):
            return False
        self.trt.driver.calls.append("execute_async_v3")
        self.trt.driver.streams[stream_handle].work.append(self.compute)
        if self.profiler is not None:
            self.profiler.report_layer_time("the whole network", 0.5)
        return True

    def compute(self):
        session = self.engine.session
        outputs = session.run(None, {n.name: self.tensor(n.name) for n in session.get_inputs()})
        for node, output in zip(session.get_outputs(), outputs, strict=True):
            self.tensor(node.name)[...] = output + output.dtype.type(self.trt.wrong)

    def tensor(self, name):
        shape, dtype = (
            self.engine.get_tensor_shape(name),
            np.dtype(NUMPY[self.engine.get_tensor_dtype(name)]),
        )
        size = int(np.prod(shape, dtype=int)) * dtype.itemsize
        content = self.trt.driver.content(self.addresses[name], size)
        return np.frombuffer(content, dtype, count=size // dtype.itemsize).reshape(shape)

    def __del__(self):
        self.trt.dies("context")
