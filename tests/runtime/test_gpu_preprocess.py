"""The kernel of the GPU, compiled for the CPU, against the CPU's own preprocessing."""

import ctypes
import importlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_on_cpu import assert_equal
from vendor import installed

from edgekit.errors import BackendError, DataError, EnvironmentLacks, UsageError
from edgekit.runtime.gpu_plan import _HEADER, FrameLayout, make_plan
from edgekit.runtime.gpu_preprocess import BLOCK, KERNEL, GpuPreprocessor, reason_for_cpu
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Preprocess, TensorSpec

INPUTS = {
    "float32": ("float32", None, None),
    "float16": ("float16", None, None),
    "uint8": ("uint8", 1.0, 0),
    "int8": ("int8", 1.0, -128),
    "int8_fine": ("int8", 0.0187, -14),
    "int16": ("int16", 0.001, 0),
}
RESIZES = ["stretch", "letterbox", "center_crop"]
PIXELS = ["bgr", "bgra", "gray", "nv12"]


def on_cpu(kernel, preprocessor, layout, pixels, chroma=None):
    """Return what the kernel writes, and see that it writes nothing beside it."""
    spec = preprocessor.spec
    height, width = preprocessor.preprocess.size
    plan = np.frombuffer(make_plan(preprocessor, layout), np.uint8).copy()
    count, guard = int(np.prod(spec.shape)), 64
    memory = np.full((count + 2 * guard) * np.dtype(spec.dtype).itemsize, 0xA5, np.uint8)
    whole = memory.view(spec.dtype)
    grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]))
    arrays = (pixels, pixels if chroma is None else chroma, plan, whole[guard:])
    kernel(*grid, *BLOCK[:2], *(array.ctypes.data for array in arrays))
    edge = guard * whole.itemsize
    assert (memory[:edge] == 0xA5).all() and (memory[-edge:] == 0xA5).all()
    return whole[guard:-guard].reshape(spec.shape)


def input_spec(size, layout, channels, dtype):
    shape = (1, *size, channels) if layout == "nhwc" else (1, channels, *size)
    return TensorSpec("picture", shape, *INPUTS[dtype])


def preprocessor_for(size, layout="nhwc", channels=3, dtype="int8", text="imagenet"):
    spec = input_spec(size, layout, channels, dtype)
    complete = Preprocess.parse(text).for_input(spec)
    assert complete.layout == layout  # sides of 1 and 3 would look like channels
    return Preprocessor(complete, spec)


def random_frame(pixels, height, width, seed=0):
    """Return a layout, the frame as the kernel takes it and as the CPU takes it, and its chroma."""
    random = np.random.default_rng(seed)
    if pixels == "nv12":
        height, width = 2 * height, 2 * width
        planes = random.integers(0, 256, (height * 3 // 2, width), np.uint8)
        layout = FrameLayout("nv12", height, width, width, width)
        return layout, planes, cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_NV12), planes[height:]
    channels = {"bgr": (3,), "bgra": (4,), "gray": ()}[pixels]
    frame = random.integers(0, 256, (height, width, *channels), np.uint8)
    return FrameLayout.of(frame), frame, frame, None


def expected(preprocessor, frame):
    out = np.empty(preprocessor.spec.shape, preprocessor.spec.dtype)
    preprocessor(frame, out)
    return out


@settings(max_examples=300, deadline=None)
@given(
    frame=st.tuples(st.sampled_from(PIXELS), st.integers(1, 90), st.integers(1, 90)),
    size=st.tuples(st.integers(1, 50), st.integers(4, 50)),
    layout=st.sampled_from(["nhwc", "nchw"]),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    dtype=st.sampled_from(sorted(INPUTS)),
    resize=st.sampled_from(RESIZES),
    seed=st.integers(0, 9),
)
def test_the_kernel_is_the_cpu_path(kernel, frame, size, layout, color, dtype, resize, seed):
    values = "scale=1/255,mean=0.4,std=0.2" if color == "gray" else "imagenet"
    text = f"{values},resize={resize},color={color},pad=114"
    channels = 1 if color == "gray" else 3
    preprocessor = preprocessor_for(size, layout, channels, dtype, text)
    frame_layout, pixels, picture, chroma = random_frame(*frame, seed)
    ours = on_cpu(kernel, preprocessor, frame_layout, pixels, chroma)
    assert_equal(ours, expected(preprocessor, picture), preprocessor)


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(
    ("frame", "size"),
    [
        ((1, 1), (1, 7)),
        ((1, 1), (33, 9)),
        ((1, 500), (24, 24)),
        ((500, 1), (24, 24)),
        ((480, 640), (224, 224)),
        ((224, 224), (224, 224)),
        ((448, 448), (224, 224)),
        ((97, 131), (8, 300)),
        ((3, 5), (129, 257)),
    ],
)
def test_sizes_that_are_special(kernel, frame, size, resize, pixels):
    preprocessor = preprocessor_for(size, text=f"signed,resize={resize}", dtype="float32")
    layout, content, picture, chroma = random_frame(pixels, *frame)
    ours = on_cpu(kernel, preprocessor, layout, content, chroma)
    assert_equal(ours, expected(preprocessor, picture), preprocessor)


def test_what_lies_between_the_rows_is_not_read(kernel):
    preprocessor = preprocessor_for((17, 19))
    wide = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    frame = wide[:, :37]
    layout = FrameLayout.of(frame)
    assert (layout.width, layout.pitch) == (37, 192)
    first = on_cpu(kernel, preprocessor, layout, wide)
    assert_equal(first, expected(preprocessor, frame), preprocessor)
    wide[:, 37:] ^= 0xFF
    assert np.array_equal(first, on_cpu(kernel, preprocessor, layout, wide))


def test_the_planes_of_nv12_may_have_a_pitch_and_a_place_of_their_own(kernel):
    preprocessor = preprocessor_for((9, 30), "nchw", dtype="float16")
    packed, planes, picture, _ = random_frame("nv12", 10, 20)
    luma, chroma = np.zeros((20, 64), np.uint8), np.zeros((10, 48), np.uint8)
    luma[:, :40], chroma[:, :40] = planes[:20], planes[20:]
    layout = FrameLayout("nv12", packed.height, packed.width, 64, 48)
    ours = on_cpu(kernel, preprocessor, layout, luma, chroma)
    assert_equal(ours, expected(preprocessor, picture), preprocessor)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(RESIZES), *[st.integers(1, 3000)] * 4)
def test_the_plan_leads_to_no_pixel_beside_the_frame(resize, height, width, rows, columns):
    preprocessor = preprocessor_for((rows, max(columns, 4)), text=f"raw,resize={resize}")
    plan = make_plan(preprocessor, FrameLayout("bgr", height, width, 3 * width))
    header = dict(zip(_HEADER, np.frombuffer(plan, np.int32, len(_HEADER)), strict=True))
    for name, count, side in (("columns", max(columns, 4), width), ("rows", rows, height)):
        taps = np.frombuffer(plan, np.int32, 4 * count, header[name]).reshape(-1, 4)
        inside = taps[taps[:, 0] >= 0]
        assert len(inside) and (inside[:, :2] >= 0).all() and (inside[:, :2] < side).all()
        assert (inside[:, 2:] >= 0).all() and (inside[:, 2:].sum(axis=1) == 2048).all()
        assert len(inside) == count or resize == "letterbox"


@pytest.mark.parametrize(
    ("text", "shape", "dtype", "reason"),
    [
        ("raw", (1, 8, 8, 3), "float32", None),
        ("raw", (1, 1, 8, 8), "float16", None),
        ("raw,interpolation=area", (1, 8, 8, 3), "float32", "interpolation=linear, not area"),
        ("raw,interpolation=cubic", (1, 8, 8, 3), "int8", "interpolation=linear, not cubic"),
        ("raw", (1, 8, 8, 3), "float64", "1, 2 or 4 bytes, not float64"),
        ("raw", (1, 28, 28), "float32", "'x' is no picture"),
    ],
)
def test_what_stays_on_the_cpu_is_told(text, shape, dtype, reason):
    spec = TensorSpec("x", shape, dtype)
    told = reason_for_cpu(Preprocess.parse(text).for_input(spec), spec)
    assert (told is None) if reason is None else reason in told


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("nv12", 3, 4, 4, 4), "even sides from 2 pixels on; got 3x4"),
        (("nv12", 4, 5, 8, 8), "even sides"),
        (("bgr", 0, 4, 12), "got 0x4"),
        (("bgr", 4, 4, 11), "`pitch` of a bgr frame 4x4 must be from 12 bytes to .*; got 11"),
        (("nv12", 4, 4, 4, 3), "`chroma_pitch` of a nv12 frame .* got 3"),
        (("bgr", 30_000, 30_000, 90_000), "`pitch` .* got 90000"),
    ],
)
def test_frames_that_the_kernel_would_read_beside_are_refused(values, words):
    with pytest.raises(DataError, match=words):
        FrameLayout(*values)


def test_an_unknown_pixel_format_names_those_there_are():
    with pytest.raises(UsageError, match="one of bgr, bgra, gray, nv12; got 'i420'"):
        FrameLayout("i420", 4, 4, 4)


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros(4, np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.uint8)[::-1],
        np.zeros((4, 4, 3), np.uint8)[:, ::2],
        np.zeros((4, 4, 3), np.uint8)[..., ::-1],
    ],
)
def test_arrays_that_the_gpu_cannot_take_are_refused(frame):
    with pytest.raises(DataError, match="a frame for the GPU must"):
        FrameLayout.of(frame)


class Memory:
    """Memory of the stand-in: an array of the host."""

    def __init__(self, byte_count):
        self.bytes, self.is_free = np.zeros(byte_count, np.uint8), False

    def __int__(self):
        assert not self.is_free, "memory is used after it was given back"
        return self.bytes.ctypes.data

    def free(self):
        assert not self.is_free, "memory is given back twice"
        self.is_free = True


class CudaOnCpu:
    """A stand-in for `edgekit.runtime.cuda.Cuda`: the kernel's own source, run on the CPU."""

    name, compute_capability = "stand-in", "0.0"

    def __init__(self, kernel, is_integrated):
        self._kernel, self.is_integrated = kernel, is_integrated
        self.is_active, self.memories, self.copied_bytes = False, [], 0

    @contextmanager
    def active(self):
        self.is_active = True
        yield
        self.is_active = False

    def stream(self):
        return SimpleNamespace(handle=1, synchronize=lambda: None)

    def event(self):
        return SimpleNamespace(record=lambda stream: None)

    def module(self, code):
        assert self.is_active and code == KERNEL.read_text("utf-8")
        return SimpleNamespace(get_function={"preprocess": self._kernel}.__getitem__)

    def device_memory(self, byte_count):
        assert self.is_active
        self.memories.append(Memory(byte_count))
        return self.memories[-1]

    def host_memory(self, shape, dtype, *, mapped=False):
        array = np.zeros(shape, dtype)
        return SimpleNamespace(array=array, address=array.ctypes.data if mapped else None)

    def copy_to_device(self, target, source, stream):
        assert self.is_active and stream.handle == 1 and source.flags.c_contiguous
        ctypes.memmove(target, source.ctypes.data, source.nbytes)
        self.copied_bytes += source.nbytes

    def launch(self, function, grid, block, stream, *arguments):
        assert self.is_active and stream.handle == 1 and grid[2] == block[2] == 1
        assert {type(argument) for argument in arguments} == {np.uint64}
        function(*grid[:2], *block[:2], *(int(argument) for argument in arguments))


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def cuda(kernel, request):
    return CudaOnCpu(kernel, request.param)


def test_frames_of_changing_sizes_go_through_the_gpu(cuda):
    cpu = preprocessor_for((20, 24), "nchw", dtype="float16", text="imagenet,resize=letterbox")
    gpu = GpuPreprocessor(cpu, cuda)
    out = np.empty(cpu.spec.shape, cpu.spec.dtype)
    sizes = [("bgr", 9, 30), ("bgr", 9, 30), ("bgra", 31, 7), ("gray", 20, 24), ("bgr", 9, 30)]
    for seed, size in enumerate(sizes):
        _, frame, _, _ = random_frame(*size, seed)
        gpu(frame, out.ctypes.data, cuda.stream())
        assert_equal(out, expected(cpu, frame), cpu)
    gpu(frame[::-1, ::2], out.ctypes.data, cuda.stream())
    assert_equal(out, expected(cpu, np.ascontiguousarray(frame[::-1, ::2])), cpu)
    gpu.close()
    gpu.close()
    assert all(memory.is_free for memory in cuda.memories)


def test_a_frame_of_a_known_layout_costs_one_copy_and_none_where_memory_is_shared(cuda):
    cpu = preprocessor_for((20, 24))
    gpu = GpuPreprocessor(cpu, cuda)
    out = np.empty(cpu.spec.shape, cpu.spec.dtype)
    _, frame, _, _ = random_frame("bgr", 9, 30)
    gpu(frame, out.ctypes.data, cuda.stream())
    before, memories = cuda.copied_bytes, len(cuda.memories)
    gpu(frame, out.ctypes.data, cuda.stream())
    assert cuda.copied_bytes - before == (0 if cuda.is_integrated else frame.nbytes)
    assert len(cuda.memories) == memories


def test_nv12_of_a_decoder_is_read_where_it_lies(cuda):
    cpu = preprocessor_for((20, 24))
    gpu = GpuPreprocessor(cpu, cuda)
    layout, planes, picture, chroma = random_frame("nv12", 15, 11)
    out = np.empty(cpu.spec.shape, cpu.spec.dtype)
    addresses = (planes.ctypes.data, chroma.ctypes.data, out.ctypes.data)
    gpu.from_memory(layout, *addresses, cuda.stream())
    assert_equal(out, expected(cpu, picture), cpu)


def test_what_the_kernel_cannot_do_and_frames_that_are_none_are_refused(cuda):
    cpu = preprocessor_for((20, 24), text="raw,interpolation=cubic")
    with pytest.raises(UsageError, match=r"interpolation=linear, not cubic"):
        GpuPreprocessor(cpu, cuda)
    cpu = preprocessor_for((20, 24))
    gpu = GpuPreprocessor(cpu, cuda)
    for frame in (np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)):
        with pytest.raises(DataError, match="a frame for the GPU must be uint8"):
            gpu(frame, 0, cuda.stream())


def test_after_a_lack_of_memory_it_can_be_closed_and_used_again(cuda, monkeypatch):
    def no_memory(byte_count):
        raise BackendError("too little free memory")

    cpu = preprocessor_for((20, 24))
    gpu = GpuPreprocessor(cpu, cuda)
    out = np.empty(cpu.spec.shape, cpu.spec.dtype)
    small, large = (random_frame("bgr", side, side)[1] for side in (9, 90))
    gpu(small, out.ctypes.data, cuda.stream())
    with monkeypatch.context() as context:
        context.setattr(cuda, "device_memory", no_memory)
        with pytest.raises(BackendError, match="too little free memory"):
            gpu(large, out.ctypes.data, cuda.stream())
    gpu(small, out.ctypes.data, cuda.stream())
    assert_equal(out, expected(cpu, small), cpu)
    gpu.close()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", sorted(INPUTS))
def test_a_real_gpu_gives_what_the_cpu_gives(dtype):
    module = pytest.importorskip("edgekit.runtime.cuda")
    try:
        cuda = module.open_cuda()
    except EnvironmentLacks as error:
        pytest.skip(str(error))
    for number, layout in enumerate(["nhwc", "nchw"]):
        for resize in RESIZES:
            cpu = preprocessor_for((67, 93), layout, dtype=dtype, text=f"imagenet,resize={resize}")
            gpu = GpuPreprocessor(cpu, cuda)
            out = np.empty(cpu.spec.shape, cpu.spec.dtype)
            with cuda.active():
                stream, memory = cuda.stream(), cuda.device_memory(out.nbytes)
            for size in ((67, 93), (1, 1), (480, 640), (134, 186), (31, 1000)):
                _, frame, _, _ = random_frame(PIXELS[number], *size)
                gpu(frame, int(memory), stream)
                with cuda.active():
                    cuda.copy_to_host(out, int(memory), stream)
                    stream.synchronize()
                assert_equal(out, expected(cpu, frame), cpu)
            gpu.close()


def test_the_benchmark_runs_over_the_stand_in(gpu_stand_in, kernel, monkeypatch, capsys):
    """Its figures say nothing there, but that it asks for what there is, and frees it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    benchmark = importlib.import_module("benchmarks.gpu_preprocessing")
    driver = gpu_stand_in(kernel=kernel)
    rows = benchmark.measure("tiny")
    assert len(rows) == 6 and any(row.at_least for row in rows)
    assert all(row.value.least > 0 for row in rows)
    assert driver.memory == {} and driver.mistakes == []
    monkeypatch.setattr("edgekit.runtime.cuda.first_gpu", lambda: None)
    benchmark.open_cuda.cache_clear()
    assert benchmark.measure("tiny") == []
    assert (
        "note: gpu_preprocessing needs a GPU: CUDA finds no NVIDIA GPU" in capsys.readouterr().out
    )


def nvcc():
    """Return the command that runs NVIDIA's compiler: the machine's own, or from its wheels."""
    places = f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin"
    if found := shutil.which("nvcc", path=places):
        return found
    folder = installed("nvidia-cuda-nvcc==13.0.88", "nvidia-cuda-runtime==13.0.96",
                       "nvidia-nvvm==13.0.88", "nvidia-cuda-crt==13.0.88")  # fmt: skip
    return str(folder / "nvidia" / "cu13" / "bin" / "nvcc")


@pytest.mark.vendor
@pytest.mark.parametrize("architecture", ["sm_87", "sm_110"])  # Orin, Thor
def test_the_kernel_compiles_for_the_jetsons(architecture, tmp_path):
    cubin = tmp_path / "preprocess.cubin"
    done = subprocess.run(
        [nvcc(), f"-arch={architecture}", "-cubin", "-Werror", "all-warnings",
         "--resource-usage", "-o", str(cubin), str(KERNEL)],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if "Unsupported gpu architecture" in done.stderr or "not defined for option" in done.stderr:
        pytest.skip(f"this nvcc knows no {architecture}: it is older or newer")
    assert done.returncode == 0, done.stderr
    assert cubin.read_bytes()[:4] == b"\x7fELF" and b"preprocess" in cubin.read_bytes()
    assert "0 bytes spill stores" in done.stderr
