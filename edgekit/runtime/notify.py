"""What systemd is told of a run: that it is ready, alive, and about to end.

The protocol is that of sd_notify(3): datagrams to the socket that `NOTIFY_SOCKET` names.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from edgekit.errors import EnvironmentLacks, OutputError
from edgekit.runtime.closing import Closing
from edgekit.runtime.inlets import Inlets

_STATUS_EVERY_NS = 5_000_000_000


class Watchdog(Closing):
    """Tells systemd that a run is alive, for as long as it is.

    The loop of the run calls `turn`; where the model hangs, nobody does. Nor is anything told while
    the reads of all sources hang in their drivers: only a new process mends that. A source that is
    away and being opened again is no reason to restart.

    Args:
        environment: of the process; systemd sets `NOTIFY_SOCKET` and `WATCHDOG_USEC` there.

    Raises:
        EnvironmentLacks: not started by systemd with ``Type=notify``.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        name = environment.get("NOTIFY_SOCKET", "")
        if not name.startswith(("/", "@")):
            raise EnvironmentLacks(
                "`--watchdog` needs systemd, and NOTIFY_SOCKET is not set; start it as a service "
                "of Type=notify, as examples/edgekit.service does"
            )
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        micros = environment.get("WATCHDOG_USEC", "")
        is_ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Twice in the time that systemd allows, as sd_watchdog_enabled(3) asks for.
        self._every_ns = int(micros) * 1000 // 2 if micros.isdecimal() and is_ours else None
        self._beaten_ns: int | None = None
        self._status_ns: int | None = None

    def turn(self, inlets: Inlets) -> None:
        """Tell what there is to tell now."""
        now_ns = inlets.clock.now_ns()
        if self._status_ns is None:
            self._send("READY=1")
        if self._status_ns is None or now_ns - self._status_ns >= _STATUS_EVERY_NS:
            self._status_ns = now_ns
            self._send(f"STATUS={_status(inlets)}")
        if self._every_ns is None or not _works(inlets):
            return
        if self._beaten_ns is None or now_ns - self._beaten_ns >= self._every_ns:
            self._beaten_ns = now_ns
            self._send("WATCHDOG=1")

    def close(self) -> None:
        """Tell that the service ends."""
        try:
            self._send("STOPPING=1")
        finally:
            self._socket.close()

    def _send(self, message: str) -> None:
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError as error:
            raise OutputError(f"cannot tell systemd {message!r}: {error.strerror}") from error


def _works(inlets: Inlets) -> bool:
    return any(inlet.feed.health not in ("stalled", "ended") for inlet in inlets.inlets)


def _status(inlets: Inlets) -> str:
    states = [
        f"{state.source} {state.health}, {state.totals.delivered} results"
        for state in inlets.states()
    ]
    return "; ".join(states).replace("\n", " ")
