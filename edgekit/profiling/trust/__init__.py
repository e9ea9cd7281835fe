"""Whether measured latencies deserve trust: one file a disease, whose name is its finding's code.

Each has `check(observed) -> Finding | None`. `EXPLAINS` names codes that say nothing more once its
own finding is there: clocks that fell explain the step that they made. Each check is wrong on
healthy runs so rarely that all of them together are wrong in less than 5 %, and what is smaller
than `MATTERS` is no disease, however certain (docs/trust.md has the figures).
"""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.profiling.change_points import Change, find_change
from edgekit.profiling.results import Finding, Moment, Pressure

if TYPE_CHECKING:
    from edgekit.profiling.trust._clocks import ClockChange

MATTERS = 0.03
"""Share of the latency below which a difference is told by nobody."""

_FALSE_ALARMS = 0.001


@dataclass(frozen=True, kw_only=True, eq=False)
class Observed:
    """What was seen of one measurement.

    Attributes:
        latencies_ms: of all runs in their order, float64 [n].
        starts_s: when each began, since the first, float64 [n].
        cpu_ms: CPU time of the process in each run, float64 [n], or None.
        pressure: what else the machine did meanwhile, or None.
        telemetry: moments of the measurement, in order.
        steady: whether the latency became steady in the warm-up.
        threads: CPU threads of the engine.
        rate_hz: at which runs were to begin, or None: one after the other.
        percentile: by which the scenario is quoted.
        runs: measured, where not all were kept for the series; None: n.
        dropped: frames that came while the model was busy.
    """

    latencies_ms: NDArray[np.float64]
    starts_s: NDArray[np.float64]
    cpu_ms: NDArray[np.float64] | None = None
    pressure: Pressure | None = None
    telemetry: Sequence[Moment] = ()
    steady: bool = True
    threads: int = 1
    rate_hz: float | None = None
    percentile: float = 50.0
    runs: int | None = None
    dropped: int = 0

    def __post_init__(self) -> None:
        """Refuse series that do not belong together."""
        sizes = [self.latencies_ms.size, self.starts_s.size]
        sizes += [] if self.cpu_ms is None else [self.cpu_ms.size]
        if len(set(sizes)) > 1 or not np.isfinite(self.latencies_ms).all():
            raise UsageError(
                "`latencies_ms`, `starts_s` and `cpu_ms` must be one finite number a run; "
                f"got {', '.join(map(str, sizes))} numbers"
            )

    @functools.cached_property
    def ordered_ms(self) -> NDArray[np.float64]:
        """Latencies from the shortest to the longest."""
        return np.sort(self.latencies_ms)

    @functools.cached_property
    def p50_ms(self) -> float:
        """Median latency; at least one run is needed."""
        return float(self.ordered_ms[(self.ordered_ms.size - 1) // 2])

    @functools.cached_property
    def moments(self) -> Sequence[Moment]:
        """Telemetry of the measurement itself: before and after it the device rests."""
        if not self.starts_s.size:
            return ()
        end_s = float(self.starts_s.max()) + float(self.latencies_ms.max()) / 1000
        meanwhile = [moment for moment in self.telemetry if 0 <= moment.at_s <= end_s]
        return meanwhile or self.telemetry[-1:]  # too short for one: the reading at its end

    @functools.cached_property
    def change(self) -> Change | None:
        """How the level changed, if it did by more than chance and more than `MATTERS`."""
        change = find_change(self.latencies_ms, _FALSE_ALARMS)
        return None if change is None or abs(change.size) < MATTERS else change

    @functools.cached_property
    def clock_change(self) -> ClockChange | None:
        """The clock that the latency followed, if it did by more than chance and `MATTERS`."""
        from edgekit.profiling.trust._clocks import find_clock_change

        return find_clock_change(self.latencies_ms, self.starts_s, self.moments)


def examine(observed: Observed) -> tuple[Finding, ...]:
    """Return what is to be known of measured latencies, doubts first.

    >>> import numpy as np
    >>> latencies_ms = np.random.default_rng(0).normal(5, 0.1, 400)
    >>> latencies_ms[200:] *= 1.2
    >>> starts_s = np.cumsum(latencies_ms) / 1000
    >>> [f.code for f in examine(Observed(latencies_ms=latencies_ms, starts_s=starts_s))]
    ['level-shift']
    """
    found: list[Finding] = []
    explained: set[str] = set()
    for disease in _diseases():
        finding = disease.check(observed)
        if finding is not None:
            found.append(finding)
            explained.update(getattr(disease, "EXPLAINS", ()))
    found = [finding for finding in found if finding.code not in explained]
    return tuple(sorted(found, key=lambda finding: not finding.is_doubt))


@functools.lru_cache(maxsize=1)
def _diseases() -> tuple[ModuleType, ...]:
    names = sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))
    return tuple(import_module(f"{__name__}.{name}") for name in names)
