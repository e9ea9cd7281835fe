"""The page's routes (Starlette)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgekit.runtime.web.access import COOKIE, Gate
from edgekit.runtime.web.board import Board
from edgekit.runtime.web.metrics import CONTENT_TYPE, exposition
from edgekit.runtime.web.pictures import Pictures
from edgekit.runtime.web.telemetry import Telemetry

MOST_VIEWERS = 64
_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
}
_TICK_S = 0.5
_MOST_FORM_BYTES = 4096
_BOUNDARY = "frame"
_BOUNDARY_LINE = f"--{_BOUNDARY}\r\n".encode()
_PART = b"Content-Type: image/jpeg\r\n"
_HEADERS = {
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


def make_app(board: Board, gate: Gate, telemetry: Telemetry) -> Starlette:
    """Return the ASGI application; everything but the form for the token is behind `gate`."""
    page = _Page(board, gate, telemetry)
    routes = [
        *(Route(f"/{name}", page.file(*file)) for name, file in _FILES.items()),
        Route("/login", page.log_in, methods=["POST"]),
        Route("/favicon.ico", page.no_icon),
        Route("/status.json", page.status),
        Route("/events", page.events),
        Route("/healthz", page.health),
        Route("/metrics", page.metrics),
        Route("/picture/{number:int}.jpg", page.picture),
        Route("/picture/{number:int}.mjpg", page.pictures),
    ]
    return Starlette(routes=routes, middleware=[Middleware(_Guard, gate=gate)])


class _Guard:
    """Lets through what the gate admits, and puts the headers on that keep other sites out."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS.items()]
            await send(message)

        if self._gate.admits(request.headers, request.cookies) or scope["path"] == "/login":
            await self._app(scope, receive, send_with_headers)
            return
        wants_page = "text/html" in request.headers.get("accept", "")
        if self._gate.is_open:
            refusal = Response("this page answers to localhost only\n", 403)
        elif wants_page:
            refusal = _file_response("login.html", "text/html; charset=utf-8", 401)
        else:
            refusal = Response("a token is needed: Authorization: Bearer TOKEN\n", 401)
            refusal.headers["www-authenticate"] = "Bearer"
        await refusal(scope, receive, send_with_headers)


class _Page:
    def __init__(self, board: Board, gate: Gate, telemetry: Telemetry) -> None:
        self._board = board
        self._gate = gate
        self._telemetry = telemetry
        self._pictures: dict[int, Pictures] = {}
        self._viewers = 0

    def file(self, name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            return _file_response(name, media_type)

        return serve

    async def no_icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def log_in(self, request: Request) -> Response:
        """Take the token from the form and give the session's cookie for it."""
        body = b""
        try:
            async for part in request.stream():
                body += part
                if len(body) > _MOST_FORM_BYTES:
                    return Response("too much for a token\n", 413)
        except ClientDisconnect:  # anybody can do that; it is no news for the log
            return Response(status_code=400)
        given = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
        if not self._gate.knows_token(given.strip()):
            return _file_response("login.html", "text/html; charset=utf-8", 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, self._gate.session, httponly=True, samesite="strict")
        return answer

    async def status(self, request: Request) -> Response:
        return Response(await self._status_json(), media_type="application/json")

    async def _status_json(self) -> bytes:
        telemetry = await asyncio.to_thread(self._telemetry.read)
        return msgspec.json.encode({**self._board.status(), "telemetry": telemetry})

    async def health(self, request: Request) -> Response:
        """Return 200 while all sources give results, else 503."""
        status = self._board.status()
        lines = [f"{s['source'] or 'source'}: {s['health']}" for s in status["sources"]]
        text = "\n".join(lines or ["starting"])
        return Response(f"{text}\n", 200 if status["healthy"] else 503, media_type="text/plain")

    async def metrics(self, request: Request) -> Response:
        telemetry = await asyncio.to_thread(self._telemetry.read)
        text = exposition(self._board.status(), telemetry)
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def events(self, request: Request) -> Response:
        """Server-sent events: the status, twice a second."""

        async def ticks() -> AsyncIterator[bytes]:
            while True:
                yield b"data: " + await self._status_json() + b"\n\n"
                await asyncio.sleep(_TICK_S)

        return self._stream(ticks(), "text/event-stream")

    async def picture(self, request: Request) -> Response:
        """Return the newest picture; it waits for the first one."""
        pictures = self._of(request)
        if pictures is None:
            return Response("no such source\n", 404)
        return Response((await pictures.after(None)).jpeg, media_type="image/jpeg")

    async def pictures(self, request: Request) -> Response:
        """Motion JPEG: each viewer gets the newest picture whenever it has taken the last one."""
        pictures = self._of(request)
        if pictures is None:
            return Response("no such source\n", 404)

        async def parts() -> AsyncIterator[bytes]:
            frame_id = None
            pictures.viewers += 1
            try:
                yield _BOUNDARY_LINE
                while True:
                    picture = await pictures.after(frame_id)
                    frame_id = picture.frame_id
                    length = f"Content-Length: {len(picture.jpeg)}\r\n\r\n".encode()
                    # A browser shows a picture when it sees the boundary behind it.
                    yield _PART + length + picture.jpeg + b"\r\n" + _BOUNDARY_LINE
            finally:
                pictures.viewers -= 1

        return self._stream(parts(), f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    def _of(self, request: Request) -> Pictures | None:
        number = request.path_params["number"]
        if self._board.newest(number) is None:
            return None
        if number not in self._pictures:
            self._pictures[number] = Pictures(self._board, number)
        return self._pictures[number]

    def _stream(self, parts: AsyncIterator[bytes], media_type: str) -> Response:
        """Return an answer without an end, which waits for its reader and for nobody else's."""
        if self._viewers >= MOST_VIEWERS:
            return Response(f"{MOST_VIEWERS} viewers are here already\n", 503)
        self._viewers += 1
        return _Endless(parts, media_type, self._left)

    def _left(self) -> None:
        self._viewers -= 1


class _Endless(StreamingResponse):
    """Tells when its reader has gone, also if it never read anything."""

    def __init__(
        self, content: AsyncIterator[bytes], media_type: str, on_end: Callable[[], None]
    ) -> None:
        super().__init__(content, headers={"content-type": media_type})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def _file_response(name: str, media_type: str, status: int = 200) -> Response:
    content = (Path(__file__).parent / "page" / name).read_bytes()
    return Response(content, status, headers={"content-type": media_type})
