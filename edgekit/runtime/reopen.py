"""When a lost source is tried again."""

from __future__ import annotations

import random

_FIRST_S, _EAGER_S, _LAST_S = 0.1, 0.5, 30.0
_EAGER_FOR_S = 60.0
_JITTER = 0.2


class Backoff:
    """Delays between attempts to open a source: doubled, with jitter, after a minute slowly.

    In the first minute at most 0.5 s, so that frames are there again within a second of the
    source's return; afterwards up to 30 s, so that a camera that is gone for a day costs nothing.
    The jitter only shortens; it keeps many devices from knocking at one server in step
    (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter).
    """

    def __init__(self, dice: random.Random | None = None) -> None:
        self._dice = dice or random.Random()
        self._delay_s = _FIRST_S / 2

    def delay_s(self, away_s: float) -> float:
        """Return how long to wait before the next attempt on a source lost `away_s` ago."""
        most_s = _EAGER_S if away_s < _EAGER_FOR_S else _LAST_S
        self._delay_s = min(2 * self._delay_s, most_s)
        return self._delay_s * (1 - _JITTER * self._dice.random())
