"""The live page with many viewers: whether those who look cost frames.

Ours: `edgekit run` on generated 1280x720 frames at 30 a second, with `--sink http://127.0.0.1:PORT`
and 20 viewers of its pictures in a process of their own, two of whom never read.
Peer: the same with nobody looking, in turn.

It must show: at most 1 % of the frames more dropped than without viewers. Both are shares of the
frames that were captured.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from importlib.util import find_spec

import numpy as np

from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import small_classifier
from edgekit.runtime.events import Event, FrameDropped
from edgekit.runtime.model import Model
from edgekit.runtime.run import run
from edgekit.runtime.stream import Result

_VIEWERS, _DEAF = 20, 2
_SOURCE = "test://1280x720@30"
_SETTLE_S = 2.0

# Reads, or does not, until its standard input is closed.
_LOOK = """
import http.client, socket, sys, threading
port, viewers, deaf = map(int, sys.argv[1:])
kept = []
for _ in range(deaf):
    kept.append(socket.create_connection(("127.0.0.1", port)))
    kept[-1].sendall(b"GET /picture/0.mjpg HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
def look():
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/picture/0.mjpg")
    answer = connection.getresponse()
    while answer.read(65536):
        pass
for _ in range(viewers - deaf):
    threading.Thread(target=look, daemon=True).start()
sys.stdin.read()
"""


def measure(effort: Effort) -> list[Row]:
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        print("note: live_page needs: pip install 'edgekit[serve]'")
        return []
    rounds, seconds = {"tiny": (1, 1.5), "normal": (5, 10.0), "full": (7, 30.0)}[effort]
    alone, watched = [], []
    with small_classifier("int8").opened() as model:
        for number in range(rounds):
            for viewers in (0, _VIEWERS) if number % 2 else (_VIEWERS, 0):
                (watched if viewers else alone).append(_dropped_percent(model, viewers, seconds))
    more = np.array(watched) - np.array(alone)
    return [
        Row(f"{_VIEWERS} viewers: more frames dropped", Spread.of(more), "%", at_most=1.0),
        Row("nobody looks: frames dropped", Spread.of(np.array(alone)), "%"),
    ]


def _dropped_percent(model: Model, viewers: int, seconds: float) -> float:
    """Return the share of frames that were superseded, once the viewers have begun to look."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [str(number) for number in (port, viewers, min(_DEAF, viewers))]
    looking: list[subprocess.Popen[bytes]] = []
    counts = {"results": 0, "drops": 0}
    begins_s = time.monotonic() + _SETTLE_S

    def on_result(result: Result) -> None:
        if not looking:
            command = [sys.executable, "-c", _LOOK, *arguments]
            # What it says of streams that end with the run is of no use.
            started = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
            looking.append(started)
        counts["results"] += time.monotonic() >= begins_s

    def on_event(event: Event) -> None:
        is_drop = isinstance(event, FrameDropped) and event.reason == "superseded"
        counts["drops"] += is_drop and time.monotonic() >= begins_s

    try:
        run(
            model,
            _SOURCE,
            [f"http://127.0.0.1:{port}"],
            live_s=_SETTLE_S + seconds,
            on_result=on_result,
            on_event=on_event,
        )
    finally:
        for process in looking:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
    return 100 * counts["drops"] / (counts["results"] + counts["drops"])
