"""A camera frame into the input of a model, in the memory of a GPU.

Ours: the one kernel of `edgekit.runtime.gpu_preprocess`, by CUDA events: alone, for a frame that is
in the GPU's memory, and with the copy of a frame of the host. Peer: the floor that memory sets,
which is what the kernel must read and write at the rate at which the GPU copies its own memory; and
our preprocessing on the CPU, one OpenCV thread, by the clock on the wall.

It must show: a 1920x1080 frame to 1024x512 in float32, as a U-Net takes it, in at most half the
CPU's time, its copy included. How far from its floor the kernel is, and what becomes of small
inputs, whose frame may cost more to copy than to preprocess, is for information. Without a GPU
there are no rows. Unverified: none was at hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks._measure import Cost, Effort, Row, in_turns, on_clock, ratio
from edgekit.errors import EdgeKitError
from edgekit.runtime.cuda import Cuda, Stream, open_cuda
from edgekit.runtime.gpu_plan import packed_layout
from edgekit.runtime.gpu_preprocess import GpuPreprocessor
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Preprocess, TensorSpec

_LAUNCHES = 20  # in a row, so that starting one hides behind the one before
_CASES = (
    ((720, 1280), TensorSpec("input", (1, 224, 224, 3), "int8", 0.0078431, -1), None),
    ((1080, 1920), TensorSpec("input", (1, 3, 640, 640), "float16"), None),
    ((1080, 1920), TensorSpec("input", (1, 3, 512, 1024), "float32"), 2.0),
)


def measure(effort: Effort) -> list[Row]:
    try:
        cuda = open_cuda()
    except EdgeKitError as error:
        print(f"note: gpu_preprocessing needs a GPU: {error}")
        return []
    cv2.setNumThreads(1)
    rounds, calls, copied_mb = (2, 3, 1) if effort == "tiny" else (15, 20, 256)
    with cuda.active():
        stream = cuda.stream()
        byte_s = _seconds_a_byte(cuda, stream, copied_mb << 20)
    return [
        row
        for sides, spec, at_least in _CASES
        for row in _rows(cuda, stream, byte_s, sides, spec, at_least, (rounds, calls))
    ]


def _rows(
    cuda: Cuda,
    stream: Stream,
    byte_s: float,
    sides: tuple[int, int],
    spec: TensorSpec,
    at_least: float | None,
    repeated: tuple[int, int],
) -> list[Row]:
    frame = np.random.default_rng(0).integers(0, 256, (*sides, 3), np.uint8)
    layout = "nchw" if spec.shape[1] == 3 else "nhwc"
    preprocess = Preprocess.parse(f"signed,layout={layout}").for_input(spec)
    on_cpu = Preprocessor(preprocess, spec)
    host = np.zeros(spec.shape, spec.dtype)
    gpu = GpuPreprocessor(on_cpu, cuda)
    with cuda.active():
        pixels, output = cuda.device_memory(frame.nbytes), cuda.device_memory(host.nbytes)
        cuda.copy_to_device(int(pixels), frame, stream)
        costs = [
            _on_events(
                cuda,
                stream,
                lambda: gpu.from_memory(packed_layout(frame), int(pixels), 0, int(output), stream),
            ),
            on_clock(lambda: _with_copy(gpu, frame, int(output), stream), time.perf_counter_ns),
            on_clock(lambda: on_cpu(frame, host), time.perf_counter_ns),
        ]
        alone, with_copy, cpu = in_turns(costs, *repeated)
        assert preprocess.size is not None
        rows_read = min(sides[0], 2 * preprocess.size[0])
        floor_s = byte_s * (rows_read * frame.shape[1] * 3 + host.nbytes)
        gpu.close()
        pixels.free()
        output.free()
    case = f"{sides[1]}x{sides[0]} to {preprocess.size[1]}x{preprocess.size[0]}, {spec.dtype}"
    return [
        Row(f"{case}: kernel / what memory allows", ratio(alone, np.full_like(alone, floor_s))),
        Row(f"{case}: CPU / GPU with the copy", ratio(cpu, with_copy), at_least=at_least),
    ]


def _with_copy(gpu: GpuPreprocessor, frame: NDArray[Any], output: int, stream: Stream) -> None:
    gpu(frame, output, stream)
    stream.synchronize()


def _seconds_a_byte(cuda: Cuda, stream: Stream, byte_count: int) -> float:
    """Return how long the GPU takes to read or write a byte, as it copies its own memory."""
    source, target = cuda.device_memory(byte_count), cuda.device_memory(byte_count)
    cost = _on_events(
        cuda, stream, lambda: cuda.copy_on_device(int(target), int(source), byte_count, stream)
    )
    seconds = float(np.median([cost() for _ in range(5)]))
    source.free()
    target.free()
    return seconds / (2 * byte_count)


def _on_events(cuda: Cuda, stream: Stream, order: Callable[[], None]) -> Cost:
    begin, end = cuda.event(), cuda.event()

    def cost() -> float:
        begin.record(stream)
        for _ in range(_LAUNCHES):
            order()
        end.record(stream)
        stream.synchronize()
        return end.time_since(begin) / 1e3 / _LAUNCHES

    return cost
