"""CUDA behind one small interface: memory, streams, events and kernels of the first GPU.

`open_cuda` gives it on pycuda. TensorRT takes addresses and stream handles as integers, so another
binding (cuda-python) takes pycuda's place by having what `Cuda` lists. Terms and rules are those of
the driver API, https://docs.nvidia.com/cuda/cuda-driver-api/; which GPU is the first one is said by
``CUDA_VISIBLE_DEVICES``.
"""

from __future__ import annotations

import atexit
import functools
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from edgekit.errors import BackendError, EnvironmentLacks, require
from edgekit.runtime.backends import first_line
from edgekit.runtime.engines.gpu import first_gpu

Extent = tuple[int, int, int]

_CUDA_TOOLS = "/usr/local/cuda/bin"


class Stream(Protocol):
    """Work that the GPU does in order; `handle` is its `CUstream`."""

    handle: int

    def synchronize(self) -> None:
        """Wait until all of it is done."""


class Event(Protocol):
    """A point in a stream's work, which has a time once the GPU has passed it."""

    def record(self, stream: Any) -> Any:
        """Put it behind what the stream has to do now."""

    def time_since(self, start: Any) -> float:
        """Return the milliseconds from `start`, another event; both have been passed."""


class DeviceMemory(Protocol):
    """Memory of the GPU; `int()` gives its address."""

    def __int__(self) -> int:
        """Return the address."""

    def free(self) -> None:
        """Give it back; nothing may use it any more."""


class Module(Protocol):
    """Compiled kernels."""

    def get_function(self, name: str) -> Any:
        """Return the kernel `name`, for `Cuda.launch`."""


@dataclass(frozen=True)
class HostMemory:
    """Page-locked memory of the host, given back when nobody holds `array` or a view of it.

    Attributes:
        array: the memory, in the shape and dtype asked for.
        address: where the GPU sees it; None: it is not mapped.
    """

    array: NDArray[Any]
    address: int | None


class Cuda(Protocol):
    """A GPU. All its methods but `active` are for use ``with cuda.active():``.

    Attributes:
        name: as the driver says it.
        compute_capability: like "8.7".
        is_integrated: it works in the host's memory, as that of a Jetson does.
    """

    name: str
    compute_capability: str
    is_integrated: bool

    def active(self) -> AbstractContextManager[None]:
        """Make it this thread's GPU for a while; what CUDA reports there is a `BackendError`."""

    def stream(self) -> Stream:
        """Return a new stream."""

    def event(self) -> Event:
        """Return a new event that takes times."""

    def used_memory(self) -> int:
        """Return how many bytes of its memory are in use, by all that uses it."""

    def device_memory(self, byte_count: int) -> DeviceMemory:
        """Allocate memory of the GPU."""

    def host_memory(
        self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False
    ) -> HostMemory:
        """Allocate page-locked memory, which copies need to overlap; `mapped`: the GPU sees it."""

    def copy_to_device(self, target: int, source: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to an address of the GPU, when the stream gets to it."""

    def copy_to_host(self, target: NDArray[Any], source: int, stream: Stream) -> None:
        """Copy from an address of the GPU into a contiguous array, when the stream gets to it."""

    def copy_on_device(self, target: int, source: int, byte_count: int, stream: Stream) -> None:
        """Copy from one address of the GPU to another, when the stream gets to it."""

    def module(self, code: str | bytes) -> Module:
        """Return kernels from CUDA C++ source (needs nvcc), or from a cubin or PTX (bytes)."""

    def launch(
        self, function: Any, grid: Extent, block: Extent, stream: Stream, *arguments: Any
    ) -> None:
        """Start a kernel of `module`.

        Args:
            function: what `Module.get_function` returned.
            grid: blocks, x, y, z.
            block: threads of a block, x, y, z.
            stream: that it becomes work of.
            *arguments: numpy scalars (addresses as `numpy.uint64`), or a `numpy.void` for a struct.
        """


@functools.cache
def open_cuda() -> Cuda:
    """Return the first GPU; one object for the whole process.

    Raises:
        EnvironmentLacks: no driver, or no GPU that it shows.
        MissingPackage: no pycuda.
    """
    if first_gpu() is None:
        raise EnvironmentLacks(
            "CUDA finds no NVIDIA GPU here: no driver (libcuda.so.1), or none that it shows "
            "(CUDA_VISIBLE_DEVICES); edgekit doctor says more, --backend onnxruntime runs without"
        )
    return PyCuda()


class PyCuda:
    """`Cuda` on pycuda, https://documen.tician.de/pycuda/driver.html.

    It holds the device's primary context, which TensorRT uses too, until the process ends: pycuda
    leaves a context on the thread's stack when it releases a primary one. What it allocates goes
    ``with cuda.active():`` too; elsewhere only the thread that called `open_cuda` can free it.
    """

    def __init__(self) -> None:
        driver = require("pycuda.driver", "jetson")
        self._driver = driver
        try:
            driver.init()
            device = driver.Device(0)
            self._context = device.retain_primary_context()
        except driver.Error as error:
            raise EnvironmentLacks(f"CUDA cannot use its first GPU: {first_line(error)}") from error
        # Without it, pycuda takes the context at exit for one that it made, and prints a warning.
        atexit.register(self._context.detach)
        major, minor = device.compute_capability()
        self.name = str(device.name())
        self.compute_capability = f"{major}.{minor}"
        self.is_integrated = bool(device.get_attribute(driver.device_attribute.INTEGRATED))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make it this thread's GPU for a while."""
        try:
            self._context.push()
            try:
                yield
            finally:
                self._driver.Context.pop()
        except self._driver.MemoryError as error:
            raise BackendError(
                f"{self.name} has too little free memory: {first_line(error)}; close what else "
                "uses it, or take a smaller model"
            ) from error
        except self._driver.Error as error:
            raise BackendError(f"CUDA failed on {self.name}: {first_line(error)}") from error

    def stream(self) -> Stream:
        """Return a new stream."""
        stream: Stream = self._driver.Stream()
        return stream

    def event(self) -> Event:
        """Return a new event that takes times."""
        event: Event = self._driver.Event()
        return event

    def used_memory(self) -> int:
        """Return how many bytes of its memory are in use."""
        free, total = self._driver.mem_get_info()
        return int(total - free)

    def device_memory(self, byte_count: int) -> DeviceMemory:
        """Allocate memory of the GPU."""
        memory: DeviceMemory = self._driver.mem_alloc(byte_count)
        return memory

    def host_memory(
        self, shape: Sequence[int], dtype: DTypeLike, *, mapped: bool = False
    ) -> HostMemory:
        """Allocate page-locked memory."""
        flags = self._driver.host_alloc_flags.DEVICEMAP if mapped else 0
        # Flat, because pycuda reads the first of the dimensions, which a scalar has not.
        count = math.prod(shape)
        flat = self._driver.pagelocked_empty(count, np.dtype(dtype), mem_flags=flags)
        flat[...] = 0
        address = int(flat.base.get_device_pointer()) if mapped else None
        return HostMemory(flat.reshape(shape), address)

    def copy_to_device(self, target: int, source: NDArray[Any], stream: Stream) -> None:
        """Copy a contiguous array to an address of the GPU."""
        self._driver.memcpy_htod_async(target, source, stream)

    def copy_to_host(self, target: NDArray[Any], source: int, stream: Stream) -> None:
        """Copy from an address of the GPU into a contiguous array."""
        self._driver.memcpy_dtoh_async(target, source, stream)

    def copy_on_device(self, target: int, source: int, byte_count: int, stream: Stream) -> None:
        """Copy from one address of the GPU to another."""
        self._driver.memcpy_dtod_async(target, source, byte_count, stream)

    def module(self, code: str | bytes) -> Module:
        """Return kernels from source, cubin or PTX."""
        if isinstance(code, bytes):
            loaded: Module = self._driver.module_from_buffer(code)
            return loaded
        compiler = require("pycuda.compiler", "jetson")
        # JetPack has it where a service's PATH does not lead.
        nvcc = shutil.which("nvcc", path=f"{os.environ.get('PATH', os.defpath)}:{_CUDA_TOOLS}")
        try:
            # Source names its kernels `extern "C"` itself, so that nvcc alone compiles it too.
            compiled: Module = compiler.SourceModule(code, nvcc=nvcc or "nvcc", no_extern_c=True)
        except OSError as error:
            raise EnvironmentLacks(
                f"kernels are compiled by nvcc, which does not run ({first_line(error)}); "
                "it comes with JetPack and the CUDA toolkit: install it, or put it on PATH"
            ) from error
        return compiled

    def launch(
        self, function: Any, grid: Extent, block: Extent, stream: Stream, *arguments: Any
    ) -> None:
        """Start a kernel of `module`."""
        function(*arguments, grid=grid, block=block, stream=stream)
