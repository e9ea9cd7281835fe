"""`edgekit.runtime.cuda` over a stand-in for pycuda, and over the real one where a GPU is."""

import sys

import numpy as np
import pytest

from edgekit.errors import BackendError, EnvironmentLacks, MissingPackage
from edgekit.runtime import cuda as cuda_module
from edgekit.runtime.cuda import open_cuda
from edgekit.runtime.engines.gpu import first_gpu


@pytest.fixture
def stand_in(gpu_stand_in):
    return gpu_stand_in()


def round_trip(cuda, values):
    """Send `values` to the GPU's memory and back."""
    with cuda.active():
        stream = cuda.stream()
        there = cuda.host_memory(values.shape, values.dtype)
        back = cuda.host_memory(values.shape, values.dtype)
        there.array[...] = values
        memory = cuda.device_memory(values.nbytes)
        start, end = cuda.event(), cuda.event()
        start.record(stream)
        cuda.copy_to_device(int(memory), there.array, stream)
        cuda.copy_to_host(back.array, int(memory), stream)
        end.record(stream)
        stream.synchronize()
        assert end.time_since(start) > 0
        memory.free()
    return back.array


@pytest.mark.parametrize("values", [np.arange(6.0).reshape(2, 3), np.array(7, np.int64)])
def test_what_goes_to_the_gpu_comes_back(stand_in, values):
    np.testing.assert_array_equal(round_trip(open_cuda(), values), values, strict=True)
    assert stand_in.memory == {}


def test_it_says_which_gpu_it_is(gpu_stand_in):
    gpu_stand_in(integrated=True)
    cuda = open_cuda()
    assert (cuda.name, cuda.compute_capability, cuda.is_integrated) == ("Stand-in GPU", "8.7", True)
    assert open_cuda() is cuda


def test_it_says_how_much_of_its_memory_is_in_use(stand_in):
    cuda = open_cuda()
    with cuda.active():
        before = cuda.used_memory()
        memory = cuda.device_memory(5000)
        assert cuda.used_memory() >= before + 5000
        memory.free()
        assert cuda.used_memory() == before


def test_mapped_memory_is_the_hosts_and_other_memory_has_no_address(stand_in):
    cuda = open_cuda()
    with cuda.active():
        mapped = cuda.host_memory((2, 2), "float16", mapped=True)
        assert mapped.address == mapped.array.ctypes.data
        pinned = cuda.host_memory((2, 2), "float16")
    assert pinned.address is None
    assert pinned.array.tolist() == [[0, 0], [0, 0]]


def test_the_context_is_current_only_while_it_is_active(stand_in):
    cuda = open_cuda()
    with cuda.active(), cuda.active():
        assert len(stand_in.stack) == 2
    assert stand_in.stack == []
    with pytest.raises(ZeroDivisionError), cuda.active():
        raise ZeroDivisionError
    assert stand_in.stack == []


def test_what_cuda_reports_is_one_line_with_a_remedy(gpu_stand_in):
    gpu_stand_in(capacity=100)
    cuda = open_cuda()
    with (
        pytest.raises(BackendError, match=r"Stand-in GPU has too little free memory: .*; close"),
        cuda.active(),
    ):
        cuda.device_memory(101)
    with (
        pytest.raises(BackendError, match="CUDA failed on Stand-in GPU: .*image is invalid"),
        cuda.active(),
    ):
        cuda.module(b"no cubin")


def test_a_kernel_is_started_with_its_grid_and_stream(stand_in):
    cuda, calls = open_cuda(), []
    with cuda.active():
        stream = cuda.stream()
        cuda.launch(lambda *a, **k: calls.append((a, k)), (3, 2, 1), (16, 16, 1), stream, 1, 2)
    assert calls == [((1, 2), {"grid": (3, 2, 1), "block": (16, 16, 1), "stream": stream})]


def test_source_without_nvcc_says_where_it_is(stand_in, monkeypatch):
    class NoCompiler:
        @staticmethod
        def SourceModule(source, nvcc, no_extern_c):  # noqa: N802 - pycuda's name
            raise OSError("error invoking 'nvcc --version': No such file or directory: 'nvcc'")

    monkeypatch.setitem(sys.modules, "pycuda.compiler", NoCompiler)
    with (
        pytest.raises(EnvironmentLacks, match="install it, or put it on PATH"),
        open_cuda().active(),
    ):
        open_cuda().module("__global__ void nothing() {}")


def test_a_gpu_that_cannot_be_used_is_told(stand_in, monkeypatch):
    def init(flags=0):
        raise stand_in.LogicError("cuInit failed: system not yet initialized")

    monkeypatch.setattr(stand_in, "init", init)
    with pytest.raises(EnvironmentLacks, match="cannot use its first GPU: cuInit failed"):
        open_cuda()


def test_without_a_gpu_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setattr(cuda_module, "first_gpu", lambda: None)
    open_cuda.cache_clear()
    with pytest.raises(EnvironmentLacks, match=r"no NVIDIA GPU here.*--backend onnxruntime"):
        open_cuda()


def test_without_pycuda_the_message_installs_it(stand_in, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgekit\[jetson\]'"):
        open_cuda()


KERNEL = """
extern "C" __global__ void scale(float* values, float factor, int count) {
  int index = blockIdx.x * blockDim.x + threadIdx.x;
  if (index < count) values[index] *= factor;
}
"""


@pytest.fixture
def gpu():
    """Return the real GPU, or skip."""
    if first_gpu() is None:
        pytest.skip("no NVIDIA GPU")
    pytest.importorskip("pycuda")
    open_cuda.cache_clear()
    return open_cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(), (1,), (3, 224, 224)])
def test_on_a_gpu_what_goes_there_comes_back(gpu, shape):
    values = np.random.default_rng(0).normal(size=shape)
    np.testing.assert_array_equal(round_trip(gpu, np.asarray(values)), values)


@pytest.mark.gpu
@pytest.mark.parametrize("mapped", [False, True])
def test_on_a_gpu_a_kernel_works_in_device_and_in_mapped_memory(gpu, mapped):
    count = 1000
    with gpu.active():
        try:
            kernel = gpu.module(KERNEL).get_function("scale")
        except EnvironmentLacks as error:
            pytest.skip(str(error))
        stream = gpu.stream()
        host = gpu.host_memory((count,), "float32", mapped=mapped)
        host.array[...] = np.arange(count)
        memory = None if mapped else gpu.device_memory(host.array.nbytes)
        address = host.address if mapped else int(memory)
        if not mapped:
            gpu.copy_to_device(address, host.array, stream)
        arguments = np.uint64(address), np.float32(3), np.int32(count)
        gpu.launch(kernel, (4, 1, 1), (256, 1, 1), stream, *arguments)
        if not mapped:
            gpu.copy_to_host(host.array, address, stream)
        stream.synchronize()
        if memory is not None:
            memory.free()
    np.testing.assert_array_equal(host.array, 3 * np.arange(count))
