"""What this machine can do at most: an engine's arithmetic and the memory, by a short probe.

The roofline model is of Williams, Waterman and Patterson, 2009 (https://doi.org/10.1145/1498765.1498785):
an operator takes at least the time of its arithmetic at the peak, and at least that of its bytes.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np

from edgekit import plugins
from edgekit.errors import EdgeKitError, MissingPackage
from edgekit.profiling import probes
from edgekit.profiling.probes import Convolution
from edgekit.profiling.results import Roofline

Progress = Callable[[str, int, int], None]
"""Called with what is done now, how much of it is done, and how much there is."""

_WRITERS = {"litert": probes.litert, "onnx": probes.onnx}
# Engines whose memory is the machine's own; a GPU's or a vendor chip's is not what numpy copies.
_ON_THE_CPU = frozenset(("litert", "onnxruntime", "openvino", "openvino_bf16"))
_FLOATS = frozenset(("fp32", "fp16"))
# Which of them is fastest differs by engine, integers and threads; by at most a half.
_CONVOLUTIONS = (Convolution(14, 512, 1), Convolution(14, 256, 3), Convolution(28, 512, 1))
_ENGINE_S, _CACHE_S, _MEMORY_S = 0.25, 0.05, 0.25  # of each
_LEAST_RUNS = 4
_UNSTEADY = 0.1  # the best of one half of the runs is that much slower than the other's
_CACHE_BYTES = (128 << 10, 1 << 20)  # a thread's copies that stay in caches; the best counts
_MEMORY_BYTES = (32 << 20, 128 << 20)  # least and most that is copied to reach memory
_ROUND_BYTES = 64 << 20  # copied at once, so that starting threads costs nothing
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def measure_roofline(
    backend_name: str, precision: str, threads: int, on_progress: Progress | None = None
) -> Roofline | None:
    """Return what this machine can do at most, in about 1.3 s, and 0.1 GB of memory meanwhile.

    The peak is the best of several convolutions, through the backend: of floats for ``fp32`` and
    ``fp16``, whose kernels on CPUs are those of float32, else of int8.

    Args:
        backend_name: as in ``edgekit/runtime/backends``.
        precision: of the bundle.
        threads: CPU threads, of the engine and of the copies.
        on_progress: called before each part.

    Returns:
        None for an engine that does not work in the machine's own memory, and for one that cannot
        run the probe.
    """
    if backend_name not in _ON_THE_CPU:
        return None
    show = on_progress or (lambda phase, done, total: None)
    parts = len(_CONVOLUTIONS) + 2
    backend = plugins.load("backend", backend_name)
    is_int8 = precision not in _FLOATS
    runs: list[tuple[float, list[float]]] = []  # operations, seconds
    try:
        for place, probe in enumerate(_CONVOLUTIONS):
            show("measuring the roofline", place, parts)
            seconds, executes = _run(backend, probe, threads, is_int8=is_int8)
            runs.append((2 * probe.macs, seconds))
    except EdgeKitError:  # the engine is not here, or not for this: what it can do is not known
        return None
    if re.search("CUDA|TensorRT", executes):
        return None
    show("measuring the roofline", parts - 2, parts)
    cache = max(_copies(size * threads, threads, _CACHE_S) for size in _CACHE_BYTES)
    show("measuring the roofline", parts - 1, parts)
    last_cache = cache_bytes()
    least, most = _MEMORY_BYTES
    size = min(max(least, 4 * (last_cache or 0)), most)
    memory = _copies(size, threads, _MEMORY_S)
    rates = [(operations / min(seconds), seconds) for operations, seconds in runs]
    peak, best = max(rates)
    kind = "int8" if is_int8 else "float32"
    said = [f"{executes}, {threads} threads: best of {len(runs)} convolutions in {kind}"]
    said.append(f"copies of {size >> 20} MiB")
    if last_cache is not None and last_cache >= size:
        said.append(f"which the last cache ({last_cache >> 20} MiB) can hold")
    said += _doubts(best)
    return Roofline(
        peak_gflops=peak / 1e9,
        bandwidth_gb_s=memory,
        cache_gb_s=max(cache, memory),
        cache_bytes=last_cache,
        source=", ".join(said),
    )


def least_ms(roofline: Roofline, macs: int, size_bytes: int) -> tuple[float, str]:
    """Return the least milliseconds that an operator can take, and what bounds it.

    Args:
        roofline: of the machine.
        macs: multiplications with addition of the operator.
        size_bytes: that it reads and writes; where they fit into the last cache, it is that
            cache's bandwidth that counts, for they may lie there.

    Returns:
        The time, and ``compute`` or ``memory``.
    """
    is_cached = roofline.cache_bytes is None or size_bytes <= roofline.cache_bytes
    rate_gb_s = (is_cached and roofline.cache_gb_s) or roofline.bandwidth_gb_s
    compute_ms = 2e-6 * macs / roofline.peak_gflops
    memory_ms = 1e-6 * size_bytes / rate_gb_s
    return max((compute_ms, "compute"), (memory_ms, "memory"))


def cache_bytes(folder: Path = _CACHES) -> int | None:
    """Return the size of the CPU's last cache, as Linux tells it; None where it does not."""
    sizes = []
    for file in folder.glob("index*/size"):
        try:
            found = re.fullmatch(r"(\d+)([KM])", file.read_text().strip())
        except (OSError, UnicodeDecodeError):
            continue
        if found is not None:
            sizes.append(int(found[1]) << (10 if found[2] == "K" else 20))
    return max(sizes, default=None)


def _run(
    backend: ModuleType, probe: Convolution, threads: int, *, is_int8: bool
) -> tuple[list[float], str]:
    """Return the seconds of some runs of one convolution, and what ran it."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        model = _written(backend.READS, probe, Path(folder), is_int8=is_int8)
        with backend.Backend(model, threads) as engine:
            random = np.random.default_rng(1)
            engine.input_buffer(0)[...] = random.integers(0, 100, engine.inputs[0].shape)
            outputs = [np.empty(spec.shape, spec.dtype) for spec in engine.outputs]
            engine.run(outputs)
            seconds = list(_timed(lambda: engine.run(outputs), _ENGINE_S))
            return seconds, str(engine.executes)


def _written(formats: tuple[str, ...], probe: Convolution, folder: Path, *, is_int8: bool) -> Path:
    """Return the file of a convolution in the first of an engine's formats that can be written."""
    missing = MissingPackage(f"no probe can be written as one of {', '.join(formats)}")
    for name in formats:
        if name not in _WRITERS:
            continue
        try:
            content = _WRITERS[name](probe, is_int8=is_int8)
        except MissingPackage as error:
            missing = error
            continue
        path = folder / ("probe.tflite" if name == "litert" else "probe.onnx")
        path.write_bytes(content)
        return path
    raise missing


def _timed(work: Callable[[], object], budget_s: float) -> Iterator[float]:
    """Yield the seconds of each of some runs, until about `budget_s` are over."""
    spent_s = 0.0
    runs = 0
    while spent_s < budget_s or runs < _LEAST_RUNS:
        start_ns = time.monotonic_ns()
        work()
        seconds = (time.monotonic_ns() - start_ns) / 1e9
        spent_s, runs = spent_s + seconds, runs + 1
        yield max(seconds, 1e-9)


def _copies(size_bytes: int, threads: int, budget_s: float) -> float:
    """Return the best rate of copying, 10^9 bytes read and written a second.

    Args:
        size_bytes: what is copied from and to, of all threads together.
        threads: that copy at the same time.
        budget_s: for all copies.
    """
    share = size_bytes // (2 * threads)
    pairs = [(np.ones(share, np.uint8), np.zeros(share, np.uint8)) for _ in range(threads)]
    repeats = max(1, _ROUND_BYTES // share)

    def copy(pair: tuple[np.ndarray, np.ndarray]) -> None:
        source, target = pair
        for _ in range(repeats):
            np.copyto(target, source)  # numpy lets other threads run meanwhile

    with ThreadPoolExecutor(threads) as pool:
        fastest = min(_timed(lambda: list(pool.map(copy, pairs)), budget_s))
    return 2 * share * threads * repeats / fastest / 1e9


def _doubts(seconds: list[float]) -> list[str]:
    """Return what is to be said of a peak that was not reached twice."""
    half = len(seconds) // 2
    first, second = min(seconds[:half]), min(seconds[half:])
    apart = max(first, second) / min(first, second) - 1
    if apart <= _UNSTEADY:
        return []
    return [f"unsteady: the best of both halves of the runs are {apart:.0%} apart"]
