"""`Preprocessor` on a CUDA GPU: one kernel from a frame in its memory to the model's input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BackendError, UsageError
from edgekit.runtime.gpu_plan import FrameLayout, make_plan, packed_layout
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Preprocess, TensorSpec

if TYPE_CHECKING:
    from edgekit.runtime.cuda import Cuda, DeviceMemory, HostMemory, Stream

KERNEL = Path(__file__).parent / "kernels" / "preprocess.cu"
FUNCTION = "preprocess"
BLOCK = (32, 8, 1)  # a warp along a row, so that neighbours read and write neighbours

_CHECKED_SHAPES = ((480, 640, 3), (37, 31))  # a picture to shrink and a small grey one


def reason_for_cpu(preprocess: Preprocess, spec: TensorSpec) -> str | None:
    """Return why the kernel cannot do what `preprocess` says for the input `spec`, or None.

    >>> reason_for_cpu(Preprocess(size=(8, 8)), TensorSpec("x", (1, 8, 8, 3), "float32"))
    """
    if preprocess.size is None or preprocess.layout == "as_is":
        return f"the input {spec.name!r} is no picture"
    if preprocess.resize == "tile":
        return "tiles are cut from the frame in the host's memory"
    if preprocess.interpolation != "linear":
        return f"the kernel resizes with interpolation=linear, not {preprocess.interpolation}"
    if np.dtype(spec.dtype).itemsize not in (1, 2, 4):
        return f"the kernel writes elements of 1, 2 or 4 bytes, not {spec.dtype}"
    return None


class GpuPreprocessor:
    """Writes frames into a model's input in the memory of a GPU, as `Preprocessor` does on a CPU.

    It only gives orders to a stream: what an earlier order of it reads or writes must be done with
    before the next one, as it is after `Stream.synchronize`. One camera's frames have one layout;
    another layout costs the upload of a new plan, some kilobytes.

    Args:
        preprocessor: what does it on the CPU.
        cuda: the GPU; compiles the kernel with nvcc, or takes it from `cubin`.
        cubin: the kernel compiled for this GPU: nvcc -arch=sm_87 -cubin preprocess.cu (an Orin).

    Raises:
        UsageError: the kernel cannot do it, see `reason_for_cpu`.
        EnvironmentLacks: there is no nvcc.
        BackendError: what CUDA or nvcc reports.
    """

    def __init__(self, preprocessor: Preprocessor, cuda: Cuda, cubin: bytes | None = None) -> None:
        if reason := reason_for_cpu(preprocessor.preprocess, preprocessor.spec):
            raise UsageError(f"the GPU cannot preprocess: {reason}")
        self._preprocessor = preprocessor
        self._cuda = cuda
        self._plan: DeviceMemory | None = None
        self._planned: FrameLayout | None = None
        self._host: HostMemory | None = None
        self._device: DeviceMemory | None = None
        with cuda.active():
            self._module: Any = cuda.module(cubin or KERNEL.read_text("utf-8"))
            self._kernel: Any = self._module.get_function(FUNCTION)
            # Passed before the frame is copied, and when the input is written.
            self._marks = [cuda.event() for _ in range(2)]

    def __call__(self, frame: NDArray[np.uint8], output: int, stream: Stream) -> None:
        """Copy a frame to the GPU, unless it works in the host's memory, and preprocess it there.

        Args:
            frame: uint8 BGR [h, w, 3], BGRA [h, w, 4] or grey [h, w] or [h, w, 1].
            output: address of the input in the GPU's memory.
            stream: that this becomes work of.

        Raises:
            DataError: a frame of another shape or dtype.
            BackendError: what CUDA reports.
        """
        layout = packed_layout(frame)
        begin, end = self._marks
        with self._cuda.active():
            host = self._staged(frame)
            begin.record(stream)
            if self._device is not None:
                self._cuda.copy_to_device(int(self._device), host.array, stream)
            pixels = host.address if self._device is None else int(self._device)
            assert pixels is not None
            self.from_memory(layout, pixels, 0, output, stream)
            end.record(stream)

    @property
    def last_ms(self) -> float:
        """How long the GPU took for the last frame of the host, its copy included; it is done."""
        begin, end = self._marks
        with self._cuda.active():
            return end.time_since(begin)

    def from_memory(
        self, layout: FrameLayout, pixels: int, chroma: int, output: int, stream: Stream
    ) -> None:
        """Preprocess a frame that lies in the GPU's memory, such as a hardware decoder's.

        Args:
            layout: of the frame.
            pixels: its address, or that of NV12's first plane.
            chroma: address of NV12's second plane; else 0.
            output: address of the input.
            stream: that this becomes work of.

        Raises:
            BackendError: what CUDA reports.
        """
        assert self._preprocessor.preprocess.size is not None
        height, width = self._preprocessor.preprocess.size
        with self._cuda.active():
            if self._plan is None or layout != self._planned:
                self._make_plan(layout, stream)
            addresses = (pixels, chroma, int(self._plan or 0), output)
            grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]), 1)
            self._cuda.launch(
                self._kernel, grid, BLOCK, stream, *(np.uint64(address) for address in addresses)
            )

    def close(self) -> None:
        """Give the memory back; nothing may be under way in it."""
        with self._cuda.active():
            for memory in (self._plan, self._device):
                if memory is not None:
                    memory.free()
            # What is released with its last name is released here, where the GPU is this thread's.
            self._plan = self._device = self._host = self._planned = None
            self._module = self._kernel = None
            self._marks = []

    def _make_plan(self, layout: FrameLayout, stream: Stream) -> None:
        plan = np.frombuffer(make_plan(self._preprocessor, layout), np.uint8)
        # Forgotten first: there may be too little memory for the next one.
        former, self._plan, self._planned = self._plan, None, None
        if former is not None:
            former.free()
        self._plan = self._cuda.device_memory(plan.nbytes)
        self._cuda.copy_to_device(int(self._plan), plan, stream)
        stream.synchronize()  # the copy reads from `plan`
        self._planned = layout

    def _staged(self, frame: NDArray[np.uint8]) -> HostMemory:
        """Copy a frame, its rows side by side, into memory that the GPU can read or copy from."""
        if self._host is None or self._host.array.shape != frame.shape:
            is_mapped = self._cuda.is_integrated
            former, self._device, self._host = self._device, None, None
            if former is not None:
                former.free()
            if not is_mapped:
                self._device = self._cuda.device_memory(frame.nbytes)
            self._host = self._cuda.host_memory(frame.shape, np.uint8, mapped=is_mapped)
        self._host.array[...] = frame
        return self._host


def check_against_cpu(
    on_cpu: Preprocessor,
    write: Callable[[NDArray[np.uint8]], object],
    read: Callable[[], NDArray[Any]],
) -> None:
    """Compare what a GPU makes of two frames with what the CPU makes of them.

    They are always the same noise, of which each pixel counts, so that a wrong address or weight is
    seen. One grey level may be between them: some builds of OpenCV for ARM resize with other
    rounding.

    Args:
        on_cpu: what does it on the CPU.
        write: has the GPU write a frame into the model's input.
        read: returns that input.

    Raises:
        BackendError: they differ by more.
    """
    random = np.random.default_rng(0)
    there = np.empty(on_cpu.spec.shape, on_cpu.spec.dtype)
    grey_level = float(np.abs(np.diff(on_cpu.table.astype(np.float64), axis=0)).max())
    for shape in _CHECKED_SHAPES:
        frame = random.integers(0, 256, shape, np.uint8)
        on_cpu(frame, there)
        write(frame)
        with np.errstate(invalid="ignore"):  # what is no number is found below
            distances = np.abs(read().astype(np.float64) - there.astype(np.float64))
        difference = float(distances.max())
        if not difference <= 1.01 * grey_level:  # NaN is not either
            raise BackendError(
                f"the GPU preprocesses a frame {list(shape)} otherwise than the CPU: they differ "
                f"by {difference:.4g}, at most one grey level ({grey_level:.4g}) is expected"
            )
