"""RTSP from a small server, MPEG-TS over UDP from ffmpeg, over loopback."""

import shutil
import socket
import subprocess
import time

import pytest
from rtsp_server import RtspServer

from edgekit.errors import SourceError, UsageError
from edgekit.runtime.camera import Timeouts, open_camera

pytestmark = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg: apt-get install ffmpeg (ci/apt.txt)"
)

LIMITS = Timeouts(open_s=20.0, read_s=20.0)
STALLING = Timeouts(open_s=20.0, read_s=1.0)


@pytest.fixture
def camera_of():
    """Return a function that starts an RTSP server."""
    servers = []

    def start(**choices):
        servers.append(RtspServer(**choices))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def grab_until_lost(camera):
    for _ in range(1000):
        camera.grab()


def test_an_rtsp_camera_with_a_password_gives_frames(camera_of, capfd):
    server = camera_of(password="me:p@ss")
    camera = open_camera(f"rtsp://me:p%40ss@{server.place}/live?key=Zq7#rotate=90", LIMITS)
    assert camera.live and camera.inter_coded
    times = [camera.grab() for _ in range(5)]
    assert times == sorted(times) and times[-1] <= time.monotonic_ns()
    assert camera.retrieve().shape == (64, 48, 3)
    camera.close()
    with pytest.raises(SourceError, match="cannot open rtsp") as caught:
        open_camera(f"rtsp://me:p%40zz@{server.place}/live", LIMITS)
    for text in (camera.description, str(caught.value), *capfd.readouterr()):
        assert "p%40" not in text and "Zq7" not in text


def test_a_stalled_rtsp_camera_is_noticed(camera_of):
    server = camera_of()
    camera = open_camera(f"rtsp://{server.place}/live", STALLING)
    camera.grab()
    server.stalled.set()
    with pytest.raises(SourceError, match="gave no frame within 1 s"):
        grab_until_lost(camera)
    camera.close()


@pytest.mark.parametrize("options", ["transport=carrier-pigeon", "transport=tcp&transport=udp"])
def test_a_transport_that_is_none(options):
    with pytest.raises(UsageError, match="transport"):
        open_camera(f"rtsp://127.0.0.1:9/live#{options}")


@pytest.fixture
def udp_sender():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"udp://127.0.0.1:{probe.getsockname()[1]}"
    pattern = ["-re", "-f", "lavfi", "-i", "testsrc=size=64x48:rate=25", "-pix_fmt", "yuv420p"]
    coding = ["-c:v", "libx264", "-tune", "zerolatency", "-g", "10", "-f", "mpegts"]
    process = subprocess.Popen(
        ["ffmpeg", "-loglevel", "quiet", *pattern, *coding, uri], stdin=subprocess.DEVNULL
    )
    yield uri, process
    process.kill()
    process.wait()


def test_a_udp_stream_gives_frames_and_is_noticed_when_it_ends(udp_sender):
    uri, process = udp_sender
    camera = open_camera(uri, STALLING)
    for _ in range(5):
        camera.grab()
    assert camera.retrieve().shape == (48, 64, 3)
    process.kill()
    with pytest.raises(SourceError, match="gave no frame within 1 s"):
        grab_until_lost(camera)
    camera.close()


def test_a_udp_stream_that_does_not_come_is_given_up():
    with pytest.raises(SourceError, match=r"cannot open udp://.* within 0\.5 s"):
        open_camera("udp://127.0.0.1:9", Timeouts(open_s=0.5, read_s=0.5))
