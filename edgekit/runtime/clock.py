"""Time, waiting and threads, in one place, so that tests can run hours of faults in seconds.

Everything of the runtime that waits takes a `Clock`. `SYSTEM` is the machine's; the tests have one
whose time passes only when all of its threads wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol


class Condition(Protocol):
    """What is used of `threading.Condition`; also its lock."""

    def __enter__(self) -> bool: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    def wait(self, timeout: float | None = None) -> bool:
        """Wait, without the lock, for a notice; False: `timeout` seconds have passed."""

    def notify_all(self) -> None:
        """Wake all that wait."""


class Thread(Protocol):
    """What is used of a started `threading.Thread`."""

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, for `timeout` seconds at most."""

    def is_alive(self) -> bool:
        """Whether it still runs."""


class Clock(Protocol):
    """Where time comes from."""

    def now_ns(self) -> int:
        """Return the time on a monotonic clock."""

    def condition(self) -> Condition:
        """Return a new condition whose time-outs are of this clock."""

    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Start a daemon thread: one that hangs in a driver does not keep the process."""


class SystemClock:
    """The machine's own time and threads."""

    def now_ns(self) -> int:
        """Return `time.monotonic_ns`."""
        return time.monotonic_ns()

    def condition(self) -> Condition:
        """Return a `threading.Condition`."""
        return threading.Condition()

    def start(self, work: Callable[[], None], name: str) -> Thread:
        """Return a started `threading.Thread`."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        thread.start()
        return thread


SYSTEM = SystemClock()
