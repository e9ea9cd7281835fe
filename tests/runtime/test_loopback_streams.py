"""Debian's ffmpeg as a camera that is killed, frozen and started anew, over loopback."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

import edgekit
from edgekit.errors import SourceError
from edgekit.runtime.camera import Timeouts, open_camera
from edgekit.runtime.events import Reset, SourceBack, SourceLost
from edgekit.runtime.timestamp import draw_timestamp, read_timestamp

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg: apt-get install ffmpeg (ci/apt.txt)"
)

# Generous, so that a busy machine fails nothing; how fast it is, benchmarks/streams.py says.
LIMITS = Timeouts(open_s=10.0, read_s=2.0)
PATIENCE_S = 60.0

H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15"]
KINDS = {
    "h264 over tcp": ([*H264, "-f", "mpegts"], "tcp://127.0.0.1:{}", "?listen"),
    "mjpeg over http": (
        ["-c:v", "mjpeg", "-q:v", "3", "-f", "mpjpeg", "-listen", "1"]
        + ["-content_type", "multipart/x-mixed-replace;boundary=ffmpeg"],
        "http://127.0.0.1:{}/stream",
        "",
    ),
}


class Sender:
    """An ffmpeg that waits for one reader, sends it pictures, and is started anew when it ends."""

    def __init__(self, kind):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._coding, uri, self._suffix = KINDS[kind]
        self.uri = uri.format(port)
        self._size = (64, 48)
        self._lock = threading.Lock()
        self._process = None
        self._ended = False
        self._thread = threading.Thread(target=self._keep_running)
        self._thread.start()

    def _keep_running(self):
        while True:
            with self._lock:
                if self._ended:
                    return
                width, height = self._size
                pattern = f"testsrc=size={width}x{height}:rate=25"
                command = ["ffmpeg", "-loglevel", "quiet", "-re", "-f", "lavfi", "-i", pattern]
                command += ["-pix_fmt", "yuv420p", *self._coding, self.uri + self._suffix]
                self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
            self._process.wait()
            time.sleep(0.05)  # its port may still be taken

    def freeze(self):
        with self._lock:
            self._process.send_signal(signal.SIGSTOP)

    def kill(self, size=None):
        """End it; it comes back, perhaps with pictures of another size."""
        with self._lock:
            self._size = size or self._size
            self._process.kill()

    def close(self):
        with self._lock:
            self._ended = True
            self._process.kill()
        self._thread.join()


@pytest.fixture(params=list(KINDS))
def sender(request):
    sender = Sender(request.param)
    yield sender
    sender.close()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + PATIENCE_S
    while {t.name for t in set(threading.enumerate()) - before if "edgekit" in t.name}:
        assert time.monotonic() < until, "a thread of the camera did not end"
        time.sleep(0.02)


def opened_stream(uri, on_event):
    """Return a stream's results, once its sender has started."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            results = edgekit.stream(uri, np.mean, on_event=on_event, timeouts=LIMITS)
            next(results)
            return results
        except SourceError:
            assert time.monotonic() < until, "the sender did not start"
            time.sleep(0.1)


def first_of_shape(results, shape):
    until = time.monotonic() + PATIENCE_S
    for result in results:
        if result.frame.shape == shape:
            return result
        assert time.monotonic() < until, f"no frame of {shape} came"
    raise AssertionError("the stream ended")


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_sender_that_is_gone_is_told_and_found_again_with_another_size(sender, fault):
    events = []

    def on_event(event):
        events.append(event)
        if fault == "frozen" and isinstance(event, SourceLost):
            sender.kill((96, 64))  # only now: else the stream would wait for ever

    results = opened_stream(sender.uri, on_event)
    events.clear()
    if fault == "frozen":
        sender.freeze()
    else:
        sender.kill((96, 64))
    last = first_of_shape(results, (64, 96, 3))
    kinds = [type(event) for event in events]
    assert kinds.index(SourceLost) < kinds.index(SourceBack) < kinds.index(Reset)
    lost = next(event for event in events if isinstance(event, SourceLost))
    assert sender.uri in lost.detail
    assert next(results).frame_id > last.frame_id
    results.close()


@pytest.mark.parametrize("sender", ["h264 over tcp"], indirect=True)
def test_packets_may_be_taken_for_frames(sender):
    results = opened_stream(f"{sender.uri}#frames=whole", lambda event: None)
    pictures = [next(results).frame for _ in range(5)]
    results.close()
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    assert len({picture.tobytes() for picture in pictures}) > 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_time_stamps_survive_the_encoder(kind, tmp_path):
    """The age of a frame can so be measured from the sender's drawing to the reader's array."""
    coding, uri, suffix = KINDS[kind]
    path = tmp_path / "sent"
    container = "mpegts" if "mpegts" in coding else "mjpeg"
    coding = coding[: coding.index("-f")]
    frames = np.random.default_rng(0).integers(0, 255, (10, 96, 128, 3), np.uint8)
    stamps_ns = [1_000_000_000 * number for number in range(1, 11)]
    for frame, stamp_ns in zip(frames, stamps_ns, strict=True):
        draw_timestamp(frame, stamp_ns)
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "128x96", "-i", "-", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-loglevel", "error", *raw, *coding, "-f", container, os.fspath(path)]
    subprocess.run(command, input=frames.tobytes(), check=True)
    camera = open_camera(path)
    found = []
    while camera.grab() is not None:
        found.append(read_timestamp(camera.retrieve()))
    assert found == stamps_ns
