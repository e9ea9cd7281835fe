"""A live web page: picture with overlay, ages, latencies, drops, the device's figures."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.errors import require
from edgekit.runtime.events import Event
from edgekit.runtime.stream import Result
from edgekit.runtime.web.access import Gate, Place, token_from_environment
from edgekit.runtime.web.board import Board


class Sink:
    """Serves ``http://HOST:PORT``; whoever looks, or does not, a result costs microseconds here."""

    writes_at_once = True

    def __init__(self, uri: str, rate_hz: float | None) -> None:
        place = Place.parse(uri)
        gate = Gate(place, token_from_environment())
        for package in ("starlette", "uvicorn"):
            require(package, "serve")
        from edgekit.runtime.web.app import make_app
        from edgekit.runtime.web.server import Server
        from edgekit.runtime.web.telemetry import Telemetry

        self._board = Board()
        self._server = Server(make_app(self._board, gate, Telemetry()), place)
        self.port = self._server.port

    def begin(self, sources: Sequence[str]) -> None:
        """Take the sources' names: the first one's pictures are ``/picture/0``."""
        self._board.begin(sources)

    def write(self, result: Result) -> None:
        self._board.result(result)

    def event(self, event: Event) -> None:
        """Take what else happens in the run."""
        self._board.event(event)

    def close(self) -> None:
        self._server.close()
