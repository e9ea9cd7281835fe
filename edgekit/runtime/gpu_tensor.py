"""The memory of a tensor that a GPU works on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.runtime.cuda import Cuda, Stream
from edgekit.specs import TensorSpec

if TYPE_CHECKING:
    from edgekit.runtime.gpu_preprocess import GpuPreprocessor


class GpuTensor:
    """The memory of an input or output: the host's, and the GPU's own unless it works in that.

    Attributes:
        name: of the tensor.
        array: the host's memory.
        address: of the memory that the GPU works in.
        is_newer_there: the GPU's memory holds an input that the host's does not.
        written_by: what wrote the input of the next run there.
    """

    def __init__(self, cuda: Cuda, spec: TensorSpec) -> None:
        self.name = spec.name
        self.is_newer_there = False
        self.written_by: GpuPreprocessor | None = None
        self._cuda = cuda
        memory = cuda.host_memory(spec.shape, spec.dtype, mapped=cuda.is_integrated)
        self.array = memory.array
        self._device = None
        if memory.address is None:
            self._device = cuda.device_memory(memory.array.nbytes)
            self.address = int(self._device)
        else:
            self.address = memory.address

    def to_device(self, stream: Stream) -> None:
        """Copy the host's content to the GPU, unless that has it or a newer one."""
        if self._device is not None and not self.is_newer_there:
            self._cuda.copy_to_device(self.address, self.array, stream)

    def to_host(self, stream: Stream) -> None:
        """Copy the GPU's content to the host, unless it is the same memory."""
        if self._device is not None:
            self._cuda.copy_to_host(self.array, self.address, stream)

    def free(self) -> None:
        """Give the GPU's memory back."""
        if self._device is not None:
            self._device.free()
