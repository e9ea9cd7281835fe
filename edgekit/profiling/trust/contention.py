"""Something else used the CPU: the machine's counters say so, or time that no CPU time explains."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgekit.profiling.change_points import median
from edgekit.profiling.results import Finding, Pressure
from edgekit.profiling.trust import MATTERS, Observed

EXPLAINS = ("two-modes",)  # runs that were put off are the second

_MOST_SHARES = {
    # of `Pressure`: (in words, most that a quiet machine shows)
    "stolen": ("the hypervisor took {:.1f} % of the CPU time", 0.02),
    "cpu_stalled": ("tasks waited for a CPU {:.1f} % of the time", 0.1),
    "memory_stalled": ("tasks waited for memory {:.1f} % of the time", 0.02),
    "io_stalled": ("tasks waited for storage {:.1f} % of the time", 0.1),
}
_LIMITED = 0.01
_OTHERS = 0.5  # CPUs; only where the kernel has no pressure-stall figures
_SWITCHES_HZ = 50.0  # a quiet machine: below 10; one with two tasks a core: 130 to 560
_OUTLIER = 1.25  # times p50
_COMPUTES = 0.5  # CPU time / wall time, below which a run mostly waits for another device
_FEWEST_RUNS = 20


def check(observed: Observed) -> Finding | None:
    """Tell every sign of it in one finding."""
    signs: list[tuple[str, str, float]] = []
    if observed.pressure is not None:
        signs += _signs_of(observed.pressure)
    lost = lost_share(observed)
    if lost >= MATTERS:
        text = f"slow runs lost {100 * lost:.1f} % of the measured time off the CPU"
        signs.append((text, "lost_percent", 100 * lost))
    if not signs:
        return None
    return Finding(
        code="contention",
        is_doubt=True,
        message=(
            f"{', '.join(text for text, _, _ in signs)}: other work on the machine is in the "
            "latencies; stop it, or keep cores free for the model (`taskset`), and measure again"
        ),
        evidence={name: value for _, name, value in signs},
    )


def _signs_of(pressure: Pressure) -> Iterator[tuple[str, str, float]]:
    """Yield what is too high: in words, its name with a unit, and its value."""
    for name, (text, most) in _MOST_SHARES.items():
        share = getattr(pressure, name)
        if share is not None and share >= most:
            yield text.format(100 * share), f"{name}_percent", 100 * share
    if pressure.cpu_stalled is None and (pressure.others or 0) >= _OTHERS:
        others = pressure.others or 0.0
        yield f"other processes kept {others:.1f} CPUs busy", "others_cpus", others
    if pressure.wall_s <= 0:
        return
    limited = (pressure.throttled_s or 0) / pressure.wall_s
    if limited >= _LIMITED:
        text = f"the container's CPU limit stopped it {100 * limited:.1f} % of the time"
        yield text, "limited_percent", 100 * limited
    switches_hz = (pressure.involuntary_switches or 0) / pressure.wall_s
    if switches_hz >= _SWITCHES_HZ:
        yield f"it was put off its CPU {switches_hz:.0f} times a second", "switches_hz", switches_hz


def lost_share(observed: Observed) -> float:
    """Return the share of all time by which slow runs waited longer than p50, off the CPU.

    A run that computes more takes more CPU time too; one that is put off its CPU does not. Models
    that mostly wait for another device, as a GPU, say nothing here: 0.
    """
    wall_ms, cpu_ms = observed.latencies_ms, observed.cpu_ms
    if cpu_ms is None or wall_ms.size < _FEWEST_RUNS or wall_ms.min() <= 0:
        return 0.0
    busy = median(cpu_ms / wall_ms)  # CPUs at work in an ordinary run
    if busy < _COMPUTES:
        return 0.0
    ordinary_ms = median(wall_ms)
    slow = wall_ms > _OUTLIER * ordinary_ms
    longer_ms = wall_ms[slow] - ordinary_ms
    computed_ms = (cpu_ms[slow] - median(cpu_ms)) / busy
    return float(np.clip(longer_ms - computed_ms, 0, None).sum() / wall_ms.sum())
