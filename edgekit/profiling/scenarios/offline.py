"""All frames are there: how many a second, by as many copies of the model as the CPUs carry."""

from __future__ import annotations

import itertools
import os
import threading
from contextlib import ExitStack
from dataclasses import replace

from edgekit.profiling.frames import golden_frames
from edgekit.profiling.recording import Recording, Run
from edgekit.profiling.scenarios import STAGES as STAGES
from edgekit.profiling.scenarios import Work
from edgekit.runtime.model import Model, open_model

PERCENTILE = 50


def measure(work: Work, recording: Recording) -> None:
    """Run copies of the model side by side until `work.until` is over.

    There are as many as CPUs / threads of the engine; on a GPU two, so that one's copies overlap
    with the other's work. The CPU time is the process's, shared out evenly.
    """
    with ExitStack() as stack:
        models = [work.model]
        for _ in range(_copies(work.model) - 1):
            copy = open_model(
                work.model.bundle,
                backend=work.model.backend_name,
                threads=work.model.backend.threads,
                check=False,
                preprocess_on=work.model.preprocess_on,
            )
            stack.callback(copy.close)
            copy(next(golden_frames(copy)))
            models.append(copy)
        _run_side_by_side(work, models, recording)


def _copies(model: Model) -> int:
    if model.backend_name.startswith("tensorrt"):
        return 2
    try:
        cpus = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cpus = os.cpu_count() or 1
    return max(1, cpus // model.backend.threads)


def _run_side_by_side(work: Work, models: list[Model], recording: Recording) -> None:
    lock = threading.Lock()
    failures: list[BaseException] = []
    until = work.until
    begun = itertools.count()
    began_ns, cpu_ns = work.clock_ns(), work.cpu_ns()

    def serve(model: Model) -> None:
        own = replace(work, model=model, frames=golden_frames(model))
        try:
            while True:
                with lock:
                    over = until.is_over(recording, work.clock_ns() - began_ns)
                    # Those under way count: side by side they would make more than was asked for.
                    over = over or (until.runs is not None and next(begun) >= until.runs)
                if over or failures:
                    return
                start_ns, ready_ns, inferred_ns, done_ns = own.run_once(next(own.frames))
                stages_ns = (ready_ns - start_ns, inferred_ns - ready_ns, done_ns - inferred_ns)
                with lock:
                    recording.add(Run(start_ns, stages_ns, done_ns - start_ns))
                    work.on_run(recording.count)
        except BaseException as error:  # raised in the thread that asked
            failures.append(error)

    threads = [
        threading.Thread(target=serve, args=(model,), name=f"offline-{number}")
        for number, model in enumerate(models[1:])
    ]
    for thread in threads:
        thread.start()
    serve(models[0])
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    recording.wall_s = (work.clock_ns() - began_ns) / 1e9
    recording.share_cpu(work.cpu_ns() - cpu_ns)
