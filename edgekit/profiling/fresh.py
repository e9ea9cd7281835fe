"""Measured in fresh processes: cold start, memory, and the same measurement several times over.

A process keeps what it has once got: imported modules, memory, an engine's caches, and the places
of its buffers, which alone can make two runs of one program differ by some percent. So these are
measured in processes that do nothing else, one after the other.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgekit.errors import BackendError, UsageError
from edgekit.isolated import Progress, run_isolated
from edgekit.profiling.quantiles import percentile_interval
from edgekit.profiling.results import ColdStart, LatencyProfile, Memory, Profile

LIMIT_S = 1800.0
"""A process that takes longer is ended: an engine's build takes minutes on a small board."""


def cold_start(
    bundle: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    *,
    processes: int = 5,
    on_progress: Progress | None = None,
    limit_s: float = LIMIT_S,
) -> ColdStart:
    """Measure from the start of an interpreter to the first result, in fresh processes.

    One more process goes before and counts only for the build of an engine: it fills the page
    cache, and what it builds the others find.

    Args:
        bundle: its path.
        backend: as in `open_model`.
        threads: as in `open_model`.
        processes: how many are measured.
        on_progress: called with (phase, processes done, processes).
        limit_s: most seconds of one process.

    Raises:
        UsageError: fewer than one process.
        EdgeKitError: what opening the bundle raises; `BackendError` if a process ends or hangs.
    """
    if processes < 1:
        raise UsageError(f"`processes` must be at least 1; got {processes}")
    starts: list[dict[str, Any]] = []
    for number in range(processes + 1):
        starts.append(start(bundle, backend, threads, limit_s=limit_s, on_progress=on_progress))
        if on_progress is not None:
            on_progress("cold start", number, processes)
    counted = starts[1:]

    def middle(name: str) -> float:
        return float(statistics.median(found[name] for found in counted))

    return ColdStart(
        start_ms=middle("start_ms"),
        import_ms=middle("import_ms"),
        open_ms=middle("open_ms"),
        build_ms=starts[0]["build_ms"],
        first_ms=middle("first_ms"),
        total_ms=middle("total_ms"),
        processes=processes,
        total_interval_ms=percentile_interval([found["total_ms"] for found in counted], 50),
    )


def start(
    bundle: str | Path,
    backend: str | None,
    threads: int | None,
    *,
    limit_s: float = LIMIT_S,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Open a bundle in one fresh process and infer once; see `cold_start` and `ColdStart`.

    Returns:
        ``start_ms``, ``import_ms``, ``open_ms``, ``build_ms`` (None: no engine was built),
        ``first_ms``, and ``total_ms``, all of them but the build.
    """
    spawned_s = time.perf_counter()
    arguments = {"bundle": str(bundle), "backend": backend, "threads": threads}
    found: dict[str, Any] = _measured(
        "start", arguments, f"the cold start of {bundle}", limit_s, on_progress
    )
    built_ms = found["build_ms"] or 0.0
    found["start_ms"] = 1000 * (found["began_s"] - spawned_s)
    found["total_ms"] = 1000 * (found["opened_s"] - spawned_s) + found["first_ms"] - built_ms
    return found


def memory(
    bundle: str | Path,
    backend: str | None = None,
    threads: int | None = None,
    *,
    limit_s: float = LIMIT_S,
) -> Memory:
    """Measure the memory of a fresh process that opens a bundle and runs it a few times.

    Args:
        bundle: its path.
        backend: as in `open_model`.
        threads: as in `open_model`.
        limit_s: most seconds of the process.

    Raises:
        EdgeKitError: what opening the bundle raises; `BackendError` if the process ends or hangs.
    """
    arguments = {"bundle": str(bundle), "backend": backend, "threads": threads}
    found = _measured("memory", arguments, f"the memory of {bundle}", limit_s)
    return msgspec.convert(found, Memory)


def blocks(
    request: Mapping[str, Any],
    processes: int,
    *,
    on_progress: Progress | None = None,
    limit_s: float = LIMIT_S,
) -> list[LatencyProfile]:
    """Measure the same in several fresh processes, one after the other.

    Args:
        request: arguments of `edgekit.profile`, of JSON values and paths; `model` is a path.
        processes: how many.
        on_progress: as of `edgekit.profile`, of the process that measures.
        limit_s: most seconds of one process; what is to be measured must fit.

    Returns:
        What each process measured, in order; of several configurations those of one process
        stand together.

    Raises:
        UsageError: fewer than one process, or an argument that cannot be sent to one.
        EdgeKitError: what `edgekit.profile` raises; `BackendError` if a process ends or hangs.
    """
    import cv2

    if processes < 1:
        raise UsageError(f"`processes` must be at least 1; got {processes}")
    plain = {name: str(v) if isinstance(v, Path) else v for name, v in request.items()}
    for name, value in plain.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"`{name}` must be a name, a number or a list of them for other processes to get "
                f"it; got {type(value).__name__}: measure in this process, or give its name"
            ) from error
    arguments = {"request": plain, "cv2_threads": cv2.getNumThreads()}
    what = f"measuring {plain.get('model')}"
    return [
        profile
        for _ in range(processes)
        for profile in msgspec.convert(
            _measured("block", arguments, what, limit_s, on_progress), Profile
        ).profiles
    ]


def _measured(
    function: str,
    arguments: Mapping[str, Any],
    what: str,
    limit_s: float,
    on_progress: Progress | None = None,
) -> Any:
    return run_isolated(
        f"edgekit.profiling.child:{function}",
        arguments,
        what=what,
        on_progress=on_progress,
        timeout_s=limit_s,
        died=BackendError,
    )
