"""Round ticks and readable numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

MISSING = "–"


class Scale(Protocol):
    """What a plot needs of an axis."""

    @property
    def low(self) -> float:
        """Where it begins."""

    @property
    def high(self) -> float:
        """Where it ends."""

    def position(self, value: float) -> float:
        """Return where `value` lies, 0..1, clipped."""

    def ticks(self) -> list[tuple[float, str]]:
        """Return (position, label) of each tick."""


class Axis(NamedTuple):
    """A range with round ticks inside: `position` maps a value to 0..1."""

    low: float
    high: float
    step: float

    def position(self, value: float) -> float:
        """Return where `value` lies between `low` (0.0) and `high` (1.0), clipped."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def ticks(self) -> list[tuple[float, str]]:
        """Return (position, label) of every multiple of `step` within the range."""
        slack = 1e-9 * (self.high - self.low) / self.step
        first = math.ceil(self.low / self.step - slack)
        last = math.floor(self.high / self.step + slack)
        values = [n * self.step for n in range(first, last + 1)]
        return [(self.position(value), _tick_label(value, self.step)) for value in values]


class LogAxis(NamedTuple):
    """A range above 0 in which like ratios have like lengths."""

    low: float
    high: float

    def position(self, value: float) -> float:
        """Return where `value` lies between `low` (0.0) and `high` (1.0), clipped."""
        if value <= self.low:
            return 0.0
        return min(1.0, math.log(value / self.low) / math.log(self.high / self.low))

    def ticks(self) -> list[tuple[float, str]]:
        """Return (position, label) of 1, 2 and 5 of few powers of ten, else of some powers."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        every = 1 + (last - first) // 8
        factors = (1, 2, 5) if last - first <= 3 else (1,)
        values = [
            factor * 10.0**power for power in range(first, last + 1, every) for factor in factors
        ]
        inside = [v for v in values if self.low * (1 - 1e-9) <= v <= self.high * (1 + 1e-9)]
        return [(self.position(value), number(value)) for value in inside]


def log_axis(low: float, high: float) -> LogAxis:
    """Return a logarithmic axis around `low` and `high`, above 0, at least a power of ten long."""
    low, high = (min(max(end, 1e-100), 1e100) for end in (min(low, high), max(low, high)))
    return LogAxis(_round_down(low), max(_round_up(high), 10 * _round_down(low)))


def _round_down(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (0.5, 1, 2, 5) if factor * power <= value * (1 + 1e-9))


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return min(
        factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= value * (1 - 1e-9)
    )


def round_step(span: float, most: int, *, whole: bool = False) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that divides `span` in `most` at most.

    Args:
        span: above 0.
        most: the number of steps that may fit.
        whole: never go below 1, for counts.
    """
    power = 10.0 ** math.floor(math.log10(span / most))
    steps = (factor * power for factor in (1, 2, 5, 10))
    step = next(step for step in steps if span / step <= most * (1 + 1e-9))
    return max(1.0, step) if whole else step


def axis(low: float, high: float, *, most: int = 5, whole: bool = False) -> Axis:
    """Return an axis from `low` to `high`; an empty or too narrow range is widened."""
    low, high = min(low, high), max(low, high)
    least = max(1e-9 * max(abs(low), abs(high)), 1e-30)
    if high - low < least:
        margin = 0.05 * abs(low) or 0.5
        low, high = low - margin, high + margin
    return Axis(low, high, round_step(high - low, most, whole=whole))


def rounded_axis(
    low: float, high: float, *, most: int = 5, whole: bool = False, zero: bool = True
) -> Axis:
    """Return an axis whose ends are ticks.

    With `zero` it starts there unless the values lie far from it.
    """
    if zero and 0 <= low < 0.6 * high:
        low = 0.0
    exact = axis(low, high, most=most, whole=whole)
    step = exact.step
    return Axis(math.floor(exact.low / step) * step, math.ceil(exact.high / step) * step, step)


def number(value: object, digits: int = 4) -> str:
    """Return any value as text: floats with up to `digits` significant ones, thousands separated.

    >>> number(1234567), number(0.012345), number(float("nan"))
    ('1,234,567', '0.01235', '–')
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else f"{'−' if value < 0 else ''}∞"
    exponent = math.floor(math.log10(abs(value))) if value else 0
    if not -5 <= exponent < 9:
        return _minus(f"{value:.{digits}g}")
    text = f"{value + 0.0:,.{max(0, digits - 1 - exponent)}f}"
    return _minus(text.rstrip("0").rstrip(".") if "." in text else text)


def column(cells: Sequence[object], decimals: int | None = None) -> tuple[list[str], bool]:
    """Return a table column as text, and whether it is numeric.

    Floats of similar size get the same number of decimals, so that their points stand below
    each other: four significant digits for the largest, or what the smallest needs to show;
    `decimals` says otherwise.
    """
    numeric = is_numeric(cells)
    sizes = [
        abs(cell) for cell in cells if isinstance(cell, float) and cell and math.isfinite(cell)
    ]
    if not numeric or not sizes or max(sizes) >= 1e9:
        return [number(cell) for cell in cells], numeric
    if decimals is None:
        if max(sizes) >= 1e4 * min(sizes):
            return [number(cell) for cell in cells], True
        largest, smallest = (math.floor(math.log10(size)) for size in (max(sizes), min(sizes)))
        decimals = max(0, -smallest, min(2 - smallest, 3 - largest))
    return [
        _minus(f"{cell:,.{decimals}f}")
        if isinstance(cell, float) and math.isfinite(cell)
        else number(cell)
        for cell in cells
    ], True


def shares(cells: Sequence[object]) -> list[float | None]:
    """Return each number above 0 as a share of the largest; None for all else."""
    sizes = [
        float(cell) if isinstance(cell, int | float) and math.isfinite(cell) and cell > 0 else None
        for cell in cells
    ]
    largest = max((size for size in sizes if size is not None), default=1.0)
    return [None if size is None else size / largest for size in sizes]


def is_numeric(cells: Sequence[object]) -> bool:
    """Tell whether `cells` are numbers or missing, and not all missing."""
    present = [cell for cell in cells if cell is not None and cell != ""]
    return bool(present) and all(
        isinstance(cell, int | float) and not isinstance(cell, bool) for cell in present
    )


def with_unit(text: str, unit: str) -> str:
    """Return `text` followed by its unit, if it has one; the space between does not break."""
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def _tick_label(value: float, step: float) -> str:
    magnitude = max(abs(value), step)
    if step >= 1e-5 and magnitude < 1e7:
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        return _minus(f"{value + 0.0:,.{decimals}f}")
    digits = math.floor(math.log10(magnitude)) - math.floor(math.log10(step) + 1e-9) + 1
    return _minus(f"{value + 0.0:.{max(1, digits)}g}")


def _minus(text: str) -> str:
    return text.replace("-", "−") if text.startswith("-") else text
