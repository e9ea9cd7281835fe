"""What a fresh process measures of itself: the other end of `fresh.py`.

Imports stand inside the functions, because what they cost is part of what is measured.
"""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgekit.runtime.model import Model

_RUNS = 5


class DuringImports:
    """Adds up by how much a gauge rises while modules are imported, in this block.

    An engine's package is imported by its backend while the bundle is opened; this is how its cost
    is told apart from that of opening. An import within another counts once.

    Args:
        gauge: a clock, or the memory that is held.
    """

    def __init__(self, gauge: Callable[[], float]) -> None:
        self.total = 0.0
        self._gauge = gauge
        self._is_importing = False

    def __enter__(self) -> Self:
        # `import x` calls the one, `import_module("x")` the other.
        self._machinery = vars(import_module("importlib._bootstrap"))
        self._statement, self._function = builtins.__import__, self._machinery["_gcd_import"]
        builtins.__import__ = self._watched(self._statement)
        self._machinery["_gcd_import"] = self._watched(self._function)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        builtins.__import__ = self._statement
        self._machinery["_gcd_import"] = self._function

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            if self._is_importing:
                return function(*arguments, **named)
            self._is_importing, before = True, self._gauge()
            try:
                return function(*arguments, **named)
            finally:
                self._is_importing = False
                self.total += self._gauge() - before

        return watched


def start(
    bundle: str, backend: str | None, threads: int | None, on_progress: Any
) -> dict[str, float | None]:
    """Open a bundle and infer once.

    Returns:
        Milliseconds of imports, opening, building an engine (None: none was built) and the first
        inference; ``began_s`` and ``opened_s`` by the clock that all processes share.
    """
    del on_progress  # every isolated job is given one
    clock = time.perf_counter
    began_s = clock()
    with DuringImports(clock) as importing:
        from edgekit.runtime.model import open_model

        imported_s, before = clock(), importing.total
        built_s = _watch_builds(clock)
        model = open_model(bundle, backend=backend, threads=threads)
        opened_s = clock()
        opening_s = opened_s - imported_s - (importing.total - before) - sum(built_s)
    with model:
        frame = _frame(model)
        first_s = clock()
        model(frame)
        first_s = clock() - first_s
    return {
        "began_s": began_s,
        "opened_s": opened_s,
        "import_ms": 1000 * importing.total,
        "open_ms": 1000 * opening_s,
        "build_ms": 1000 * sum(built_s) if built_s else None,
        "first_ms": 1000 * first_s,
    }


def _watch_builds(clock: Callable[[], float]) -> list[float]:
    """Return a list that gets the seconds of each engine's build from now on."""
    spent_s: list[float] = []
    if not any(find_spec(name) for name in ("tensorrt", "tensorrt_rtx")):
        return spent_s  # nothing else builds; the package below would cost an import
    from edgekit.runtime import engines

    parts = vars(engines)
    build = parts["build_engine"]

    def timed(*arguments: Any, **named: Any) -> Any:
        begin_s = clock()
        try:
            return build(*arguments, **named)
        finally:
            spent_s.append(clock() - begin_s)

    parts["build_engine"] = timed
    return spent_s


def memory(
    bundle: str, backend: str | None, threads: int | None, on_progress: Any
) -> dict[str, float | None]:
    """Open a bundle and infer a few times.

    Returns:
        MB of 10^6 bytes: the peak, what opening and the first run added beside the libraries, the
        model's file, and what of the GPU's memory the model took (TensorRT).
    """
    del on_progress
    from edgekit.profiling.rss import peak_rss_mb, rss_mb

    gpu_mb = _gpu_memory(backend)
    without_model_mb = gpu_mb()
    before_mb = rss_mb()
    with DuringImports(rss_mb) as importing:
        from edgekit.runtime.model import open_model

        with open_model(bundle, backend=backend, threads=threads) as model:
            frame = _frame(model)
            model(frame)
            opened_mb = rss_mb() - before_mb - importing.total
            for _ in range(_RUNS):
                model(frame)
            return {
                "peak_rss_mb": peak_rss_mb(),
                "opened_mb": max(opened_mb, 0.0),
                "model_mb": model.bundle.model_path.stat().st_size / 1e6,
                "gpu_mb": None if without_model_mb is None else gpu_mb() - without_model_mb,
            }


def _gpu_memory(backend: str | None) -> Callable[[], Any]:
    """Return what tells the GPU's memory in use, MB of 10^6 bytes; None for engines on a CPU.

    CUDA's own part is in use before, because only a context can ask.
    """
    if backend not in ("tensorrt", "tensorrt_rtx"):
        return lambda: None
    from edgekit.runtime.cuda import open_cuda

    cuda = open_cuda()

    def used_mb() -> float:
        with cuda.active():
            return cuda.used_memory() / 1e6

    return used_mb


def block(request: dict[str, Any], cv2_threads: int, on_progress: Any) -> Any:
    """Return the profile that `edgekit.profile` measures here, as JSON values.

    Args:
        request: its arguments.
        cv2_threads: of OpenCV, as the process that asks has them.
        on_progress: its own.
    """
    import cv2
    import msgspec

    from edgekit.profiling.latency import profile

    cv2.setNumThreads(cv2_threads)
    return msgspec.to_builtins(profile(**request, on_progress=on_progress))


def _frame(model: Model) -> Any:
    from edgekit.profiling.frames import golden_frames

    return next(golden_frames(model))
