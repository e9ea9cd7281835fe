"""Real streams over loopback: MPEG-TS from ffmpeg, MJPEG from a small HTTP server."""

import http.server
import shutil
import socket
import subprocess
import threading
import time

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.errors import SourceError
from edgekit.runtime.camera import Timeouts, open_camera
from edgekit.runtime.events import Reset, SourceBack, SourceLost
from edgekit.runtime.opening import open_inlets
from edgekit.runtime.options import StreamOptions
from edgekit.runtime.stream import results

LIMITS = Timeouts(open_s=3.0, read_s=1.0)
PATIENCE_S = 20.0

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg: apt-get install ffmpeg (ci/apt.txt)"
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MjpegServer:
    """Sends multipart JPEGs at 50 Hz; can stall, be stopped and be started again."""

    def __init__(self):
        self.stalled = threading.Event()
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/stream"
        self._stopping = threading.Event()
        self._server = None

    def start(self):
        outer = self
        self._stopping.clear()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    outer._send_pictures(self.wfile)
                except OSError:
                    pass

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = False  # so that closing waits for the senders
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _send_pictures(self, file):
        number = 0
        while not self._stopping.is_set():
            if not self.stalled.is_set():
                picture = np.full((48, 64, 3), number % 256, np.uint8)
                jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                file.write(head.encode() + jpeg + b"\r\n")
                number += 1
            time.sleep(0.02)

    def stop(self):
        if self._server is not None:
            self._stopping.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None


class TransportStreamSender:
    """ffmpeg, which waits for one reader and sends it MPEG-TS over TCP."""

    def __init__(self):
        self.url = f"tcp://127.0.0.1:{free_port()}"
        self._process = None

    def start(self):
        pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=50"]
        coding = ["-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", f"{self.url}?listen"]
        command = ["ffmpeg", "-loglevel", "error", *pattern, *coding]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def stop(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture(params=["mjpeg", pytest.param("mpegts", marks=needs_ffmpeg)])
def sender(request):
    sender = MjpegServer() if request.param == "mjpeg" else TransportStreamSender()
    sender.start()
    yield sender
    sender.stop()


@pytest.fixture
def mjpeg():
    server = MjpegServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + PATIENCE_S
    while "edgekit-camera" in {t.name for t in set(threading.enumerate()) - before}:
        assert time.monotonic() < until, "the camera's thread did not end"
        time.sleep(0.02)


def open_when_ready(url):
    """Open a camera whose sender may still be starting."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return open_camera(url, LIMITS)
        except SourceError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def started_stream(url, events):
    """Return a stream of the results of a source whose sender may still be starting."""
    options = StreamOptions(timeouts=LIMITS)
    first = [open_when_ready(url)]
    reopen = lambda source: first.pop() if first else open_camera(source, LIMITS)  # noqa: E731
    return results(open_inlets(url, options, open_one=reopen), np.mean, options, events.append)


def kinds(events):
    return [type(e) for e in events if isinstance(e, SourceLost | SourceBack | Reset)]


def test_frames_arrive_and_differ(sender):
    camera = open_when_ready(sender.url)
    assert camera.live
    times, pictures = [], []
    for _ in range(10):
        times.append(camera.grab())
        pictures.append(camera.retrieve())
    camera.close()
    assert times == sorted(times)
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    assert len({picture.tobytes() for picture in pictures}) > 5


def test_a_killed_sender_is_told_and_found_again(sender):
    events = []
    results = started_stream(sender.url, events)
    for _ in range(5):
        next(results)
    assert kinds(events) == []
    threading.Thread(target=lambda: (sender.stop(), sender.start())).start()
    until = time.monotonic() + PATIENCE_S
    while Reset not in kinds(events):
        last = next(results)
        assert time.monotonic() < until
    assert kinds(events) == [SourceLost, SourceBack, Reset]
    lost, back, reset = (e for e in events if type(e) in (SourceLost, SourceBack, Reset))
    assert lost.at_ns < back.at_ns
    assert back.lost_ms == pytest.approx((back.at_ns - lost.at_ns) / 1e6)
    assert reset.frame_id <= last.frame_id
    assert sender.url in lost.detail
    for _ in range(5):
        assert next(results).frame_id > last.frame_id
    results.close()


def test_the_loss_is_told_while_the_sender_is_still_away(mjpeg):
    lost = threading.Event()
    results = edgekit.stream(
        mjpeg.url,
        np.mean,
        on_event=lambda event: lost.set() if isinstance(event, SourceLost) else None,
        timeouts=LIMITS,
    )
    next(results)
    mjpeg.stop()
    # Only once the loss was told does the sender come back: else this would wait for ever.
    waiter = threading.Thread(target=lambda: lost.wait(PATIENCE_S) and mjpeg.start())
    waiter.start()
    for _ in range(100):
        next(results)
        if lost.is_set():
            break
    waiter.join()
    assert lost.is_set()
    results.close()


def test_a_stalled_sender_is_noticed_within_the_read_timeout(mjpeg):
    events = []
    results = edgekit.stream(mjpeg.url, np.mean, on_event=events.append, timeouts=LIMITS)
    next(results)
    mjpeg.stalled.set()
    stalled_ns = time.monotonic_ns()
    threading.Timer(3 * LIMITS.read_s, mjpeg.stalled.clear).start()
    until = time.monotonic() + PATIENCE_S
    while Reset not in kinds(events):
        next(results)
        assert time.monotonic() < until
    results.close()
    assert kinds(events) == [SourceLost, SourceBack, Reset]
    (lost,) = (e for e in events if isinstance(e, SourceLost))
    # The stream's own stall limit is the read timeout and half a second.
    assert (lost.at_ns - stalled_ns) / 1e9 < 2 * LIMITS.read_s + 0.5


def test_closing_a_stalled_stream_ends_its_thread(mjpeg):
    results = edgekit.stream(mjpeg.url, np.mean, timeouts=LIMITS)
    next(results)
    mjpeg.stalled.set()
    results.close()  # the fixture waits for the thread


def test_every_on_a_lost_live_source_is_an_error(mjpeg):
    results = edgekit.stream(mjpeg.url, np.mean, policy="every", timeouts=LIMITS)
    next(results)
    mjpeg.stop()
    with pytest.raises(SourceError, match="gives no more frames"):
        for _ in results:
            pass


def test_a_server_that_never_answers_is_given_up_after_the_open_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(SourceError, match="within 0.5 s"):
            open_camera(f"http://127.0.0.1:{port}/", Timeouts(open_s=0.5, read_s=0.5))


def test_decoder_options_are_taken_back_from_the_environment(mjpeg, monkeypatch):
    import os

    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    monkeypatch.delenv(name, raising=False)
    open_camera(mjpeg.url, LIMITS).close()
    assert name not in os.environ
    monkeypatch.setenv(name, "fflags;nobuffer")
    open_camera(mjpeg.url, LIMITS).close()
    assert os.environ[name] == "fflags;nobuffer"
