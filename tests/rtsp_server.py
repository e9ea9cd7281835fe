"""A small RTSP server for tests: one h264 stream, interleaved in the connection (RFC 2326)."""

import base64
import contextlib
import os
import re
import socket
import struct
import subprocess
import tempfile
import threading
import time
from pathlib import Path


class RtspServer:
    """Relays what an ffmpeg sends as RTP; takes any number of readers, one after the other.

    Args:
        password: ``user:password`` that readers must give, or None.
    """

    def __init__(self, password=None):
        self._needs = password and base64.b64encode(password.encode()).decode()
        self.stalled = threading.Event()
        self._ended = threading.Event()
        self._packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._packets.bind(("127.0.0.1", 0))
        self._packets.settimeout(0.1)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._reader = None
        self._sdp = self._start_ffmpeg()
        self._threads = [threading.Thread(target=t) for t in (self._accept, self._relay)]
        for thread in self._threads:
            thread.start()

    def close(self):
        self._ended.set()
        self._ffmpeg.kill()
        self._ffmpeg.wait()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._drop_reader()
        for thread in self._threads:
            thread.join()
        self._packets.close()

    def _start_ffmpeg(self):
        handle, name = tempfile.mkstemp(suffix=".sdp")
        os.close(handle)
        port = self._packets.getsockname()[1]
        pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25"]
        coding = [
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-tune",
            "zerolatency",
            "-g",
            "10",
        ]
        out = ["-sdp_file", name, "-f", "rtp", f"rtp://127.0.0.1:{port}?pkt_size=1200"]
        self._ffmpeg = subprocess.Popen(
            ["ffmpeg", "-loglevel", "quiet", "-y", *pattern, *coding, *out],
            stdin=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while "a=fmtp" not in Path(name).read_text() and time.monotonic() < until:
            time.sleep(0.02)
        lines = Path(name).read_text().splitlines()
        Path(name).unlink()
        kept = [re.sub(r"^m=video \d+", "m=video 0", line) for line in lines if "SDP:" not in line]
        return "\r\n".join([*kept, "a=control:trackID=0", ""])

    def _accept(self):
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                connection, _ = self._listening.accept()
                self._drop_reader()
                with contextlib.suppress(OSError):
                    self._answer(connection)

    def _answer(self, connection):
        """Answer requests until PLAY, after which packets go out."""
        file = connection.makefile("rb")
        while True:
            request = file.readline().decode()
            if not request:
                connection.close()
                return
            headers = {}
            while line := file.readline().strip().decode():
                key, _, value = line.partition(":")
                headers[key.lower()] = value.strip()
            verb = request.split()[0]
            if self._needs and headers.get("authorization") != f"Basic {self._needs}":
                told = 'RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm="camera"\r\n'
                connection.sendall(f"{told}CSeq: {headers['cseq']}\r\n\r\n".encode())
                continue
            more, body = {
                "OPTIONS": ("Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""),
                "DESCRIBE": ("Content-Type: application/sdp\r\n", self._sdp),
                "SETUP": ("Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""),
                "PLAY": ("Session: 1\r\n", ""),
            }.get(verb, ("", ""))
            head = f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{more}"
            length = f"Content-Length: {len(body)}\r\n" if body else ""
            connection.sendall(f"{head}{length}\r\n{body}".encode())
            if verb == "PLAY":
                self._reader = connection
                return

    def _relay(self):
        while not self._ended.is_set():
            try:
                packet = self._packets.recv(2048)
            except TimeoutError:
                continue
            reader = self._reader
            if reader is not None and not self.stalled.is_set():
                try:
                    reader.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                except OSError:
                    self._drop_reader()

    def _drop_reader(self):
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
