"""Costs of several programs, taken in turns, so that all meet the same machine.

The clock of another process, of another minute, of another machine says nothing here: on a shared
machine the same code varies by a third from one minute to the next, and its ratio to a peer that
runs in between by a few percent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Effort = Literal["tiny", "normal", "full"]
"""``tiny`` shows that a benchmark runs, not how fast; ``full`` adds rows that take minutes."""

Cost = Callable[[], float]
"""Does some work once and returns what it cost, in seconds."""


class Spread(msgspec.Struct, frozen=True):
    """Median, smallest and largest of the rounds' values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Spread:
        """Summarize one value a round."""
        return cls(float(np.median(values)), float(values.min()), float(values.max()))


class Row(msgspec.Struct, frozen=True):
    """One line of a benchmark.

    Attributes:
        name: what is compared with what.
        value: over the rounds, in `unit`.
        unit: ``times`` (a ratio), ``µs``, ``ms``, ``s``, ``MB``, ``%``, ``dB``, ``nodes`` or
            ``×10⁻⁶``.
        at_most: limit that the median must meet.
        at_least: the same, from below; a row without limit is for information.
    """

    name: str
    value: Spread
    unit: Literal["times", "µs", "ms", "s", "MB", "%", "dB", "nodes", "×10⁻⁶"] = "times"
    at_most: float | None = None
    at_least: float | None = None

    @property
    def misses(self) -> bool:
        """Whether the median is beyond the limit."""
        above = self.at_most is not None and self.value.median > self.at_most
        below = self.at_least is not None and self.value.median < self.at_least
        return above or below


def on_clock(work: Callable[[], Any], clock_ns: Callable[[], int] = time.thread_time_ns) -> Cost:
    """Return `work` with its cost: by default the CPU time of the calling thread.

    A thread's CPU time does not count what other processes take meanwhile.
    """

    def cost() -> float:
        start_ns = clock_ns()
        work()
        return (clock_ns() - start_ns) / 1e9

    return cost


def in_turns(costs: Sequence[Cost], rounds: int, calls: int = 1) -> NDArray[np.float64]:
    """Run all `costs` alternately and return seconds, [len(costs), rounds, calls].

    Who begins changes from call to call; one call of each comes before, to warm up.
    """
    seconds = np.empty((len(costs), rounds, calls))
    for cost in costs:
        cost()
    for turn in range(rounds * calls):
        for place in range(len(costs)):
            index = (place + turn) % len(costs)
            seconds[index, turn // calls, turn % calls] = costs[index]()
    return seconds


def ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> Spread:
    """Return above / below, one value a round: the quotient of the medians of its calls."""
    return Spread.of(np.median(above, axis=1) / np.median(below, axis=1))


def difference_us(one: NDArray[np.float64], other: NDArray[np.float64]) -> Spread:
    """Return one - other in µs, one value a round: the median of its pairs' differences."""
    return Spread.of(1e6 * np.median(one - other, axis=1))
