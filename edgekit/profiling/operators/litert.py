"""Operators of LiteRT, by the profiler in the `libLiteRt.so` of its wheel.

Python cannot reach it but through the library's C interface, whose functions have changed from
version to version. So a process of its own does it: where the interface is another one and the
process ends by a signal, that is a note and not the end of ours.
"""

from __future__ import annotations

import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgekit.errors import BackendError
from edgekit.isolated import run_isolated
from edgekit.profiling.operators._timing import Budget, Kernel, Timing, plain_run
from edgekit.runtime.model import Model

_LIBRARIES = ("libLiteRt.so", "libLiteRt.dylib", "libLiteRt.dll")
# XNNPACK's kernels name the types of their numbers; of most the graph tells it too.
_DTYPES = {"F32": "float32", "F16": "float16", "QS8": "int8", "QC8": "int8", "QU8": "uint8"}


def times(model: Model, budget: Budget) -> Timing:
    """Return the times of XNNPACK's kernels and of the operators that run without it."""
    library = find_library()
    if library is None:
        return Timing(
            note="The operators could not be timed: LiteRT's profiler is in libLiteRt.so, which "
            "comes with ai-edge-litert from 2.1.6 on (tflite-runtime has none) and is not there: "
            "pip install --upgrade ai-edge-litert"
        )
    source = f"LiteRT's profiler ({library.name} {_version()})"
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        for index in range(len(model.backend.inputs)):
            np.save(Path(folder) / f"{index}.npy", model.backend.input_buffer(index))
        answer = run_isolated(
            "edgekit.profiling.operators._litert_child:measured",
            {
                "library": str(library),
                "model": str(model.bundle.model_path.resolve()),
                "threads": model.backend.threads,
                "folder": folder,
                "runs": budget.runs,
                "duration_s": budget.duration_s,
            },
            what="LiteRT's profiler",
            timeout_s=_patience_s(model, budget),
            died=BackendError,
        )
    kernels = tuple(_kernel(name, ms) for name, ms in answer["kernels"])
    return Timing(
        kernels=kernels,
        infer_ms=answer["infer_ms"],
        plain_ms=answer["plain_ms"],
        runs=answer["runs"],
        source=source,
        note=_rounding(kernels),
    )


def find_library() -> Path | None:
    """Return LiteRT's library, without importing the package; None where it is not installed."""
    spec = find_spec("ai_edge_litert")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    files = (Path(folder) / name for folder in folders for name in _LIBRARIES)
    return next((file for file in files if file.is_file()), None)


def _version() -> str:
    try:
        return version("ai-edge-litert")
    except PackageNotFoundError:
        return "of unknown version"


def _patience_s(model: Model, budget: Budget) -> float:
    """Return how long the child may take: by far more than it should."""
    run = plain_run(model)
    start_s = time.perf_counter()
    run()
    one_s = time.perf_counter() - start_s
    return 60 + 10 * budget.duration_s + 10 * one_s * max(budget.runs or 0, 5)


def _kernel(name: str, ms: float) -> Kernel:
    """Return a kernel such as ``Convolution (NHWC, QC8) DWConv``, or an operator: ``SOFTMAX``."""
    kind, _, types = name.partition(" (")
    if types.endswith("DWConv"):
        kind += " DW"
    words = types.partition(")")[0].split(", ")
    dtype = next((_DTYPES[word] for word in words if word in _DTYPES), "")
    return Kernel(name=name, kind=kind, ms=ms, dtype=dtype)


def _rounding(kernels: tuple[Kernel, ...]) -> str:
    """Return a warning where what XNNPACK cuts off from each time, half a µs, is not little."""
    lost_ms = 0.0005 * len(kernels)
    sum_ms = sum(kernel.ms for kernel in kernels)
    if lost_ms <= 0.02 * sum_ms:
        return ""
    return (
        f"XNNPACK cuts each time down to whole µs: the {len(kernels)} operators may lack "
        f"{1000 * lost_ms:.0f} µs of {1000 * sum_ms:.0f}."
    )
