"""Senders of real streams over loopback whose frames carry the time when they were drawn.

`python -m benchmarks._streams KIND PORT WIDTHxHEIGHT` is one: frames of `test://` with a time
stamp, through ffmpeg, to one reader after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.runtime.camera import open_camera

RATE_HZ = 30
# Each thread of an encoder would hold back a frame.
H264 = [
    "-threads",
    "1",
    "-c:v",
    "libx264",
    "-preset",
    "ultrafast",
    "-tune",
    "zerolatency",
    "-g",
    str(RATE_HZ),
]
MULTIPART = "multipart/x-mixed-replace;boundary=ffmpeg"
# kind: (ffmpeg's options of the output, form of the address, what only the sender writes behind)
KINDS = {
    "h264": ([*H264, "-f", "mpegts"], "tcp://127.0.0.1:{}", "?listen"),
    "mjpeg": (
        ["-threads", "1", "-c:v", "mjpeg", "-q:v", "4", "-f", "mpjpeg"]
        + ["-listen", "1", "-content_type", MULTIPART],
        "http://127.0.0.1:{}/stream",
        "",
    ),
}


class Sender:
    """A process that sends one kind of stream; it can be frozen, killed and started again."""

    def __init__(self, kind: str, size: str = "640x480") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._kind = kind
        self.uri = KINDS[kind][1].format(self._port)
        self.start(size)

    def start(self, size: str) -> int:
        """Start it, and return when it could be reached, `time.monotonic_ns`."""
        command = [sys.executable, "-m", "benchmarks._streams", self._kind, str(self._port), size]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while not self._is_there():
            if self._process.poll() is not None:
                raise RuntimeError(f"the sender ended: {' '.join(command)}")
            time.sleep(0.002)
        return time.monotonic_ns()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and to its ffmpeg."""
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Kill it."""
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        self._process.wait()

    def _is_there(self) -> bool:
        # Asking the kernel, because a connection to see would be taken for the reader.
        rows = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        states = {(row.split()[1].rpartition(":")[2], row.split()[3]) for row in rows}
        # Listening, or connected already: a reader that keeps trying can be quicker than this.
        return bool({(f"{self._port:04X}", state) for state in ("0A", "01")} & states)

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def send(kind: str, port: int, size: str) -> None:
    """Send frames to a reader until it leaves, then wait for the next one."""
    coding, uri, suffix = KINDS[kind]
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", size, "-r", str(RATE_HZ), "-i", "-"]
    out = ["-pix_fmt", "yuv420p", *coding, "-flush_packets", "1", uri.format(port) + suffix]
    while True:
        camera = open_camera(f"test://{size}@{RATE_HZ}?stamp=on")
        process = subprocess.Popen(
            ["ffmpeg", "-loglevel", "error", *raw, *out], stdin=subprocess.PIPE, bufsize=0
        )
        with contextlib.suppress(BrokenPipeError), process:
            assert process.stdin is not None
            # A frame in one piece, not in 14: each piece costs a change of process.
            fcntl.fcntl(process.stdin, fcntl.F_SETPIPE_SZ, 1 << 20)
            while process.poll() is None:
                camera.grab()
                rest = memoryview(camera.retrieve()).cast("B")
                while rest:
                    rest = rest[process.stdin.write(rest) :]


if __name__ == "__main__":
    send(sys.argv[1], int(sys.argv[2]), sys.argv[3])
