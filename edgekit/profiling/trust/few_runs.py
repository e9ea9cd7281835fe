"""Too few runs for a percentile: the figure is there, but nobody knows how far it may be off."""

from __future__ import annotations

from edgekit.profiling.quantiles import fewest_runs, percentile_interval
from edgekit.profiling.results import Finding
from edgekit.profiling.trust import Observed

_RAREST = 99.0


def check(observed: Observed) -> Finding | None:
    """Tell the wanted percentile or p99 without an interval; too few for the former: a doubt."""
    runs = observed.latencies_ms.size
    for percentile in (observed.percentile, _RAREST):
        fewest = fewest_runs(percentile)
        why = f"its interval of 95 % takes at least {fewest}"
        if runs >= fewest:
            # A change, which is told by itself, looks like dependence.
            if observed.change or percentile_interval(observed.latencies_ms, percentile):
                continue
            why = "neighbours depend on each other, so they tell as much as far fewer"
        return Finding(
            code="few-runs",
            is_doubt=runs < fewest and percentile == observed.percentile,
            message=(
                f"{runs} runs are too few to say how well p{percentile:g} is known: {why}; "
                "measure longer"
            ),
            evidence={"runs": runs, "fewest_runs": fewest, "percentile": percentile},
        )
    return None
