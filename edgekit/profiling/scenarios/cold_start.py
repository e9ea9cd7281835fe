"""From nothing to a result: fresh processes that open the bundle and infer once.

The files are in the system's cache, where one process before has put them, and an engine that is
built and kept was built by it. What a first start costs beside: the build, which `ColdStart` tells.
"""

from __future__ import annotations

import resource

from edgekit.profiling.fresh import start
from edgekit.profiling.recording import Recording, Run
from edgekit.profiling.scenarios import Work

PERCENTILE = 50
IS_COLD = True
STAGES = ("start", "import", "open", "first")


def measure(work: Work, recording: Recording) -> None:
    """Start one process after the other until `work.until` is over."""
    name, threads = work.model.backend_name, work.model.backend.threads
    bundle = work.model.bundle.path
    start(bundle, name, threads)
    began_ns = work.clock_ns()
    while not work.until.is_over(recording, work.clock_ns() - began_ns):
        start_ns, cpu_ns = work.clock_ns(), _childrens_cpu_ns()
        found = start(bundle, name, threads)
        spent_ns = _childrens_cpu_ns() - cpu_ns
        stages_ns = [int(1e6 * found[f"{stage}_ms"]) for stage in STAGES]
        recording.add(Run(start_ns, stages_ns, int(1e6 * found["total_ms"]), spent_ns))
        work.on_run(recording.count)


def _childrens_cpu_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int(1e9 * (used.ru_utime + used.ru_stime))
