"""The page's web server (uvicorn) in a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import uvicorn
from starlette.applications import Starlette

from edgekit.errors import OutputError
from edgekit.runtime.web.access import Place

_GOODBYE_S = 2.0


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's tells more than a stream's end or a stranger's bad request."""
    error = record.exc_info[1] if record.exc_info else None
    return record.levelno > logging.WARNING and not isinstance(error, asyncio.CancelledError)


logging.getLogger("uvicorn.error").addFilter(_is_news)


class Server:
    """Serves from the moment that it is made.

    Args:
        app: to serve.
        place: where.

    Attributes:
        port: that it listens on.

    Raises:
        OutputError: the place is taken, not ours, or not to be had by this user.
    """

    def __init__(self, app: Starlette, place: Place) -> None:
        try:
            family, *_, address = socket.getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM
            )[0]
            self._socket = socket.create_server(address[:2], family=family)
        except OSError as error:
            raise OutputError(
                f"cannot serve on {place.host}:{place.port}: {error.strerror or error}; choose "
                "another port, or an address of this machine"
            ) from error
        self.port = int(self._socket.getsockname()[1])
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="edgekit-web", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End all connections and give the port back."""
        self._server.should_exit = True
        self._server.force_exit = True  # streams have no end to wait for
        self._thread.join(_GOODBYE_S)
        self._socket.close()
