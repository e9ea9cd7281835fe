"""A real stream over loopback with a fault every second or two, in real time."""

import os
import random
import socket
import threading
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.runtime.camera import Timeouts
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.run import run

MOODS = ("well", "stalled", "cut", "torn", "resized", "frozen", "black")
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"


class FaultySender:
    """Sends MJPEG over HTTP at 50 Hz to whoever connects, in a mood that changes."""

    def __init__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}/stream"
        self._noise = np.random.default_rng(0)
        self._dice = random.Random(0)
        self._ended = threading.Event()
        self._started_s = time.monotonic()
        self._jpeg = b""
        self._thread = threading.Thread(target=self._serve, name="sender")
        self._thread.start()

    def mood(self):
        """Every other second is well, the others have a fault each."""
        second = int(time.monotonic() - self._started_s)
        return "well" if second % 2 == 0 else MOODS[second // 2 % len(MOODS)]

    def _serve(self):
        while not self._ended.is_set():
            try:
                viewer, _ = self._socket.accept()
            except TimeoutError:
                continue
            with viewer:
                viewer.settimeout(1.0)
                try:
                    viewer.recv(4096)
                    viewer.sendall(HEAD)
                    while not self._ended.wait(0.02) and self._send(viewer):
                        continue
                except OSError:
                    continue  # the reader has gone: it comes back

    def _send(self, viewer):
        mood = self.mood()
        if mood == "cut":
            return False
        if mood == "stalled":
            return True
        if mood != "frozen" or not self._jpeg:
            shape = (96, 128, 3) if mood == "resized" else (48, 64, 3)
            picture = self._noise.integers(0, 255, shape, np.uint8)
            picture[...] *= mood != "black"
            self._jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        jpeg = self._jpeg
        if mood == "torn":
            jpeg = jpeg[:60] + bytes(self._dice.randbytes(len(jpeg) - 60))
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        viewer.sendall(head.encode() + jpeg + b"\r\n")
        return True

    def close(self):
        self._ended.set()
        self._thread.join()
        self._socket.close()


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def soak(bundle, folder, seconds):
    """Return the summary of a run, and the megabytes held at each of its results."""
    options = StreamOptions(timeouts=Timeouts(2.0, 0.5), max_age_ms=200, late="drop")
    sinks = [f"{folder}/lines.jsonl", f"{folder}/out.mp4"]
    held_mb = array("d")  # a list of floats would be megabytes itself
    sender = FaultySender()
    try:
        with edgekit.open(bundle, threads=1) as model:
            threads, files = set(threading.enumerate()), descriptors()
            summary = run(
                model,
                sender.uri,
                sinks,
                options=options,
                live_s=seconds,
                on_result=lambda result: held_mb.append(resident_mb()),
            )
            # A read that was under way when the run ended ends with its time-out.
            until_s = time.monotonic() + 30
            while set(threading.enumerate()) - threads and time.monotonic() < until_s:
                time.sleep(0.05)
            assert not set(threading.enumerate()) - threads
            # The sender's own end of the last connection may still be open.
            while descriptors() > files and time.monotonic() < until_s:
                time.sleep(0.05)
            assert descriptors() <= files
    finally:
        sender.close()
    assert summary.captured == summary.frames + sum(summary.drops.values())
    for sink in summary.sinks:
        assert (sink.written + sink.dropped, sink.error) == (summary.frames, None)
    lines = Path(sinks[0]).read_text().splitlines()
    assert len(lines) == summary.sinks[0].written
    frames = cv2.VideoCapture(sinks[1]).get(cv2.CAP_PROP_FRAME_COUNT)
    assert frames == summary.sinks[1].written
    print(summary.frames, summary.drops, summary.age_ms, f"{held_mb[-1] - held_mb[0]:+.1f} MB")
    return summary, held_mb


@pytest.mark.slow
def test_soak(classifier_bundle, tmp_path):
    """Two minutes, or EDGEKIT_SOAK_S; memory is compared after a tenth of it and at the end."""
    seconds = float(os.environ.get("EDGEKIT_SOAK_S", "120"))
    summary, held_mb = soak(classifier_bundle, tmp_path, seconds)
    assert summary.frames > seconds
    assert {"black", "repeated"} <= set(summary.drops)
    warm = len(held_mb) // 10
    assert np.median(held_mb[-warm:]) - np.median(held_mb[warm : 2 * warm]) <= 8
