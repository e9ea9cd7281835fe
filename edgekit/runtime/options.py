"""How a stream chooses among the frames of its sources: checked once, where it is given."""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from edgekit.errors import UsageError, expect_one_of
from edgekit.runtime.camera import Timeouts

POLICIES: tuple[str, ...] = ("every", "latest", "bounded:N")
Late = Literal["mark", "drop"]
_LEAST_RATE_HZ = 1.1e-5
_MOST_WAITING = 1024

Region = tuple[int, int, int, int]
"""Left, top, width and height, in pixels of the frame."""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked of a stream.

    Attributes:
        policy: ``every`` frame in order (default for files); the ``latest`` (default for live
            sources); ``bounded:N``: at most N frames wait, and the oldest makes room.
        timeouts: for sources that can hang.
        every_nth: take one of so many frames.
        max_rate_hz: take at most so many frames a second of each source; of a live one the others
            are dropped, a file is read more slowly.
        max_age_ms: age budget of a result.
        late: what becomes of an older one: ``mark`` (`Result.late`) or ``drop``.
        roi: region of interest, which the model sees instead of the whole frame.
    """

    policy: str | None = None
    timeouts: Timeouts = Timeouts()
    every_nth: int = 1
    max_rate_hz: float | None = None
    max_age_ms: float | None = None
    late: Late = "mark"
    roi: Region | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.policy is not None and not re.fullmatch("every|latest|bounded:.*", self.policy):
            expect_one_of("policy", self.policy, POLICIES)
        expect_one_of("late", self.late, get_args(Late))
        if self.every_nth < 1:
            raise UsageError(f"`every_nth` must be at least 1; got {self.every_nth}")
        for name, value in (("max_rate", self.max_rate_hz), ("max_age", self.max_age_ms)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"`{name}` must be above 0; got {value:g}")
        if self.max_rate_hz is not None and self.max_rate_hz < _LEAST_RATE_HZ:
            raise UsageError(
                f"`max_rate` must be at least {_LEAST_RATE_HZ:g} frames a second (one a day); "
                f"got {self.max_rate_hz:g}"
            )
        if self.roi is not None and (min(self.roi[:2]) < 0 or min(self.roi[2:]) < 1):
            raise UsageError(
                f"`roi` must be X,Y,WIDTH,HEIGHT in pixels of the frame, like 100,50,640,480; "
                f"got {','.join(map(str, self.roi))}"
            )
        _ = self.waiting(live=True)

    def waiting(self, *, live: bool) -> int | None:
        """Return how many frames may wait for the model; None: all are taken, in turn."""
        policy = self.policy or ("latest" if live else "every")
        if policy == "every":
            return None
        if policy == "latest":
            return 1
        count = policy.removeprefix("bounded:")
        if not re.fullmatch("[0-9]{1,4}", count) or not 1 <= int(count) <= _MOST_WAITING:
            raise UsageError(
                f"`policy` {policy!r}: expected bounded:N with N from 1 to {_MOST_WAITING}, "
                "like bounded:8"
            )
        return int(count)


def parse_region(text: str) -> Region:
    """Return the region of ``X,Y,WIDTH,HEIGHT``, or raise `UsageError`."""
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch("[0-9]{1,6}", part.strip()) for part in parts):
        raise UsageError(
            f"`roi` must be X,Y,WIDTH,HEIGHT in pixels of the frame, like 100,50,640,480; "
            f"got {text!r}"
        )
    left, top, width, height = (int(part) for part in parts)
    return left, top, width, height


def parse_age_ms(text: str) -> float:
    """Return milliseconds of a time like ``100ms`` or ``0.5s``, or raise `UsageError`."""
    form = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text)
    if form is None:
        raise UsageError(
            f"`max_age` must be a time with its unit, like 100ms or 0.5s; got {text!r}"
        )
    return float(form[1]) * (1000 if form[2] == "s" else 1)
