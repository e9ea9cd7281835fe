"""GStreamer pipelines: real ones through `gi`, texts for each target, and what can be wrong."""

import importlib.util
import re
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekit
from edgekit.errors import DataError, EnvironmentLacks, MissingPackage, SourceError, UsageError
from edgekit.runtime.camera import Timeouts, _kind, csi, open_camera, without_secrets
from edgekit.runtime.camera import gstreamer as source
from edgekit.runtime.camera._pipeline import TAIL, missing_elements
from edgekit.runtime.events import Reset, SourceBack, SourceLost
from edgekit.targets import read_target, target_names
from edgekit.targets.probe import Probe, probe

# PyGObject 3.42 loads its modules in the way of Python 3.3.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

LIMITS = Timeouts(open_s=5.0, read_s=1.0)
LIVE = "videotestsrc is-live=true"
CAPS = "video/x-raw,format=BGR,width=33,height=5,framerate=50/1"
SYSTEM = Path("/usr/lib/python3/dist-packages")
JETSON_CSI = (
    "nvarguscamerasrc sensor-id=1 sensor-mode=2 ! "
    "video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1,format=NV12 ! "
    "nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
    "appsink drop=true max-buffers=1 sync=false"
)
PI_CSI = (
    "libcamerasrc ! video/x-raw,width=1280,height=720,framerate=30/1,format=NV12 ! "
    "videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
)


@pytest.fixture
def gst(tmp_path, monkeypatch):
    """Make the system's `gi`, and nothing else of it, importable; skip where that cannot be."""
    if importlib.util.find_spec("gi") is None and (SYSTEM / "gi").is_dir():
        (tmp_path / "gi").symlink_to(SYSTEM / "gi")
        monkeypatch.syspath_prepend(tmp_path)
    try:
        module = source.gstreamer()
    except MissingPackage as error:
        pytest.skip(f"{error} (ci/apt.txt; for the system's own Python minor version)")
    if module.ElementFactory.find("appsink") is None:
        pytest.skip("no appsink: apt-get install gstreamer1.0-plugins-base (ci/apt.txt)")
    return module


@pytest.fixture
def no_gi(monkeypatch):
    monkeypatch.setitem(sys.modules, "gi", None)


def kinds(events):
    return [type(e) for e in events if isinstance(e, SourceLost | SourceBack | Reset)]


def test_frames_of_a_live_pipeline_are_bgr_and_in_time(gst):
    camera = open_camera(f"gstreamer:{LIVE} pattern=red ! {CAPS} ! appsink", LIMITS)
    assert camera.live and camera.rate_hz == 50
    times, frames = [], []
    for _ in range(10):
        times.append(camera.grab())
        frames.append(camera.retrieve())
    camera.close()
    assert times == sorted(set(times))
    # The times are the source's: a frame each 20 ms, however late it was taken.
    assert np.median(np.diff(times)) == pytest.approx(20e6, abs=2e6)
    for frame in frames:
        assert frame.shape == (5, 33, 3) and frame.dtype == np.uint8  # rows of 99 bytes, 100 apart
        assert frame.flags.owndata and frame.flags.writeable and frame.flags.c_contiguous
        assert (frame == (0, 0, 255)).all()


def test_an_engine_that_is_loaded_after_gstreamer_does_not_crash(gst, tmp_path, classifier_bundle):
    """In a process of its own: a crash is a signal, not an exception."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
    folder = tmp_path / "system"
    folder.mkdir()
    (folder / "gi").symlink_to(Path(sys.modules["gi"].__file__).resolve().parent)
    code = (
        f"import sys; sys.path[:0] = {[str(folder), *sys.path]!r}\n"
        "from edgekit.runtime.camera import open_camera\n"
        "camera = open_camera('gstreamer:videotestsrc num-buffers=1'); camera.grab()\n"
        "import edgekit\n"
        f"with edgekit.open({str(classifier_bundle)!r}, backend='openvino') as model:\n"
        "    print(len(model(camera.retrieve()).value))\n"
        "camera.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr


def test_a_pipeline_without_an_end_is_given_one(gst):
    camera = open_camera("gstreamer:videotestsrc num-buffers=3 pattern=blue", LIMITS)
    assert not camera.live
    for _ in range(3):  # none is dropped: it is no live source
        assert camera.grab() is not None
        assert (camera.retrieve() == (255, 0, 0)).all()
    assert camera.grab() is None
    camera.close()


def test_every_frame_of_a_file_arrives(gst, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), np.uint8)
    (tmp_path / "frames.bgr").write_bytes(pictures.tobytes())
    text = (
        f"filesrc location={tmp_path}/frames.bgr ! "
        "rawvideoparse format=bgr width=8 height=6 framerate=30/1"
    )
    if gst.ElementFactory.find("rawvideoparse") is None:
        pytest.skip("no rawvideoparse: it comes with gstreamer1.0-plugins-base")
    results = edgekit.stream(f"gstreamer:{text}", np.copy, timeouts=LIMITS)
    assert np.array_equal([result.value for result in results], pictures)


def test_a_pipeline_that_breaks_is_told_and_opened_again(gst):
    events = []
    text = f"{LIVE} ! identity error-after=12 ! {CAPS} ! appsink drop=true max-buffers=1"
    results = edgekit.stream(f"gstreamer:{text}", np.mean, on_event=events.append, timeouts=LIMITS)
    for _ in results:
        if kinds(events) == [SourceLost, SourceBack, Reset]:
            break
    results.close()
    (lost,) = (e for e in events if isinstance(e, SourceLost))
    assert lost.detail.startswith("gstreamer:videotestsrc ! identity ! ! appsink failed: identity")


def test_a_live_pipeline_that_ends_is_lost(gst):
    camera = open_camera(f"gstreamer:{LIVE} num-buffers=2 ! {CAPS} ! appsink", LIMITS)
    assert camera.grab() < camera.grab()
    with pytest.raises(SourceError, match=r"gives no more frames"):
        camera.grab()
    camera.close()


def test_a_stalled_pipeline_is_given_up_after_the_read_timeout(gst):
    limits = Timeouts(open_s=5.0, read_s=0.2)
    camera = open_camera(f"gstreamer:{LIVE} ! {CAPS} ! valve name=v ! appsink", limits)
    camera.grab()
    camera._pipeline.get_by_name("v").set_property("drop", True)
    with pytest.raises(SourceError, match=r"gave no frame within 0\.2 s; .* --read-timeout"):
        for _ in range(100):  # those that were queued
            camera.grab()
    camera.close()


def test_waiting_for_a_frame_lets_other_threads_work(gst):
    camera = open_camera(
        "gstreamer:videotestsrc is-live=true ! "
        "video/x-raw,format=BGR,width=16,height=16,framerate=2/1 ! appsink",
        LIMITS,
    )
    camera.grab()
    ended, count = threading.Event(), 0

    def grab():
        camera.grab()
        ended.set()

    thread = threading.Thread(target=grab)
    thread.start()
    while not ended.wait(0.001):
        count += 1
    thread.join()
    camera.close()
    assert count > 20  # of some hundred


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", UsageError, "a pipeline of 0 characters, at most 4096; expected gstreamer:SOURCE"),
        ("//", UsageError, "a pipeline of 0 characters"),
        ("nvarguscamerasrc ! nvvidconv ! appsink", EnvironmentLacks,
         "no element nvarguscamerasrc, nvvidconv on this machine; install nvidia-l4t-gstreamer"),
        ("videotestsrc ! nosuchthing ! appsink", EnvironmentLacks,
         "no element nosuchthing on this machine; gst-inspect-1.0 lists"),
        ("videotestsrc ! ! appsink", UsageError, "no pipeline that GStreamer takes: syntax error"),
        ("videotestsrc nope=1 ! appsink", UsageError, 'no property "nope"'),
        ("videotestsrc pattern=Zq7 ! appsink", UsageError, "to that value; try it with"),
        ("appsink", UsageError, "one element is no pipeline"),
        ("videotestsrc ! fakesink name=appsink", UsageError, "must end in an appsink"),
        ("videotestsrc ! video/x-raw,format=I420 ! appsink", DataError, "gives I420; expected BGR"),
        ("filesrc location=/nowhere/Zq7.mp4 ! decodebin", SourceError, "cannot open gstreamer:"),
        ("videotestsrc num-buffers=0", SourceError, "ended before its first frame"),
        ("videotestsrc is-live=true ! valve drop=true", SourceError, "no frame within 0.3 s"),
        ("videotestsrc ! " + "identity ! " * 3000 + "appsink", UsageError, "33022 characters"),
    ],
)  # fmt: skip
def test_pipelines_that_do_not_open_say_why_in_one_line(gst, text, error, words):
    with pytest.raises(error) as caught:
        open_camera(f"gstreamer:{text}", Timeouts(open_s=0.3, read_s=0.3))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value) and "Zq7" not in str(caught.value)


def test_a_machine_without_gi_and_without_an_opencv_for_it_is_told_both_remedies(
    no_gi, monkeypatch
):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(MissingPackage) as caught:
        open_camera("gstreamer:rtspsrc location=rtsp://me:Zq7@10.0.0.2/live ! decodebin")
    for word in ("python3-gi", "--system-site-packages", "or use an OpenCV with GStreamer"):
        assert word in str(caught.value)
    assert "Zq7" not in str(caught.value)


class OpenCvWithGStreamer:
    """A stand-in for `cv2.VideoCapture` of a build with GStreamer, which pip's has not."""

    def __init__(self, opens):
        self.opens, self.asked = opens, None

    def __call__(self, text, backend, settings):
        assert backend == cv2.CAP_GSTREAMER
        self.asked = text, dict(zip(settings[::2], settings[1::2], strict=True))
        return self

    def isOpened(self):  # noqa: N802
        return self.opens

    def get(self, what):
        return 30.0 if what == cv2.CAP_PROP_FPS else 0.0

    def grab(self):
        return True

    def retrieve(self):
        return True, np.zeros((4, 6, 3), np.uint8)

    def release(self):
        self.opens = False


@pytest.fixture(params=[True, False], ids=["opens", "fails"])
def opencv(request, no_gi, monkeypatch):
    stand_in = OpenCvWithGStreamer(request.param)
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: True)
    monkeypatch.setattr(cv2, "VideoCapture", stand_in)
    return stand_in


def test_without_gi_an_opencv_with_gstreamer_opens_the_pipeline(opencv):
    if not opencv.opens:
        with pytest.raises(EnvironmentLacks, match=r"cannot open gstreamer:videotestsrc"):
            open_camera("gstreamer:videotestsrc", LIMITS)
        return
    camera = open_camera("gstreamer:videotestsrc", LIMITS)
    text, settings = opencv.asked
    assert text == f"videotestsrc ! {TAIL}"
    assert settings[cv2.CAP_PROP_READ_TIMEOUT_MSEC] == 1000
    assert camera.grab() is not None and camera.retrieve().shape == (4, 6, 3)
    camera.close()


def test_elements_that_gst_inspect_knows_not_are_named(tmp_path, monkeypatch):
    inspect = tmp_path / "gst-inspect-1.0"
    inspect.write_text('#!/bin/sh\n[ "$2" != nvvidconv ]\n')  # a stand-in
    inspect.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert source._not_inspected(JETSON_CSI) == ["nvvidconv"]
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert source._not_inspected(JETSON_CSI) == []


def test_what_brings_missing_elements_is_said_once():
    text = missing_elements(["nvvidconv", "nvv4l2decoder", "rtspsrc"])
    assert text.count("nvidia-l4t-gstreamer") == 1 and "gstreamer1.0-plugins-good" in text


@pytest.mark.parametrize("name", target_names())
def test_the_csi_pipeline_of_each_target(name):
    target = read_target(name)
    if name.startswith("jetson"):
        options = {"width": 1920, "height": 1080, "fps": 60, "sensor-mode": 2}
        assert csi.csi_pipeline(target, "1", options) == JETSON_CSI
    elif name.startswith("raspberry"):
        assert csi.csi_pipeline(target, "0", {}) == PI_CSI
        named = csi.csi_pipeline(target, "/base/soc/i2c0mux/i2c@1/imx219@10", {})
        assert named.startswith("libcamerasrc camera-name=/base/soc/i2c0mux/i2c@1/imx219@10 ! ")
    else:
        assert not [c for c in target.cameras if c.kind == "csi"]


@pytest.mark.parametrize("name", [n for n in target_names() if not n.startswith("x86")])
def test_gstreamer_itself_parses_the_pipeline_of_each_target(gst, name):
    """Elements of the devices are missing here: others of GStreamer stand in their places."""
    text = csi.csi_pipeline(read_target(name), "0", {"sensor-mode": 1} if "jet" in name else {})
    text = re.sub(r"nvarguscamerasrc sensor-id=0 sensor-mode=1|libcamerasrc", "videotestsrc", text)
    pipeline = gst.parse_launch(
        text.replace("nvvidconv", "videoconvert").replace("(memory:NVMM)", "")
    )
    assert pipeline.iterate_sinks().next()[1].get_property("max-buffers") == 1


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("csi://", "expected csi://NUMBER or csi:///NAME"),
        ("csi://-1", "expected csi://NUMBER"),
        ("csi://front", "expected csi://NUMBER"),
        ("csi://0 ! filesink location=/tmp/x", "expected csi://NUMBER"),
        ("csi:///base ! fakesink", "expected csi://NUMBER"),
        ("csi://0?width=640 ! fakesink", "width must be an integer from 1 to 16384; got '640 !"),
        ("csi://0?width=640,format=BGR", "width must be an integer"),
        ("csi://0?width=", "got ''"),
        ("csi://0?width=٣", "width must be an integer"),
        ("csi://0?height=99999", "height must be an integer from 1 to 16384"),
        ("csi://0?fps=0", "fps must be an integer from 1 to 1000"),
        ("csi://0?fps=29.97", "fps must be an integer"),
        ("csi://0?sensor-mode=-1", "sensor-mode must be an integer from 0 to 99"),
        ("csi://0?exposure=3", "option 'exposure' must be one of width, height, fps, sensor-mode"),
        ("csi://0?fps=30&fps=60", "option 'fps' must be one of .*, each once"),
    ],
)
def test_nothing_of_a_csi_uri_adds_to_the_pipeline(uri, words):
    with pytest.raises(UsageError, match=words):
        open_camera(uri)


@pytest.mark.parametrize(
    ("name", "device", "options", "words"),
    [
        ("jetson-orin-nx", "/base/imx219@10", {}, "expected a sensor's number"),
        ("raspberry-pi-5", "1", {}, "rpicam-hello --list-cameras"),
        ("raspberry-pi-4", "0", {"sensor-mode": 1}, "sensor-mode is for Jetsons"),
    ],
)
def test_devices_and_options_that_a_target_has_not(name, device, options, words):
    with pytest.raises(UsageError, match=words):
        csi.csi_pipeline(read_target(name), device, options)


def machine(target, because="a test says so"):
    values = {name: getattr(probe(), name) for name in Probe.__struct_fields__}
    return Probe(**{**values, "target": target, "because": because})


@pytest.mark.parametrize("target", [None, "x86-cpu"])
def test_machines_without_csi_are_told_what_to_use(monkeypatch, target):
    monkeypatch.setattr(csi, "probe", lambda: machine(target, "an x86 board"))
    with pytest.raises(EnvironmentLacks) as caught:
        open_camera("csi://0")
    for word in ("jetson-orin-nano", "raspberry-pi-5", "an x86 board", "/dev/video0"):
        assert word in str(caught.value)


def test_on_a_jetson_without_its_plugins_they_are_named(gst, monkeypatch):
    monkeypatch.setattr(csi, "probe", lambda: machine("jetson-orin-nano"))
    if gst.ElementFactory.find("nvarguscamerasrc") is not None:
        pytest.skip("this machine has them")
    with pytest.raises(
        EnvironmentLacks, match=r"csi://0 \(1280x720 at 30 Hz\): .*nvarguscamerasrc"
    ):
        open_camera("csi://0")


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("csi://0", "csi"),
        ("CSI://0?fps=30", "csi"),
        ("gstreamer:videotestsrc ! appsink", "gstreamer"),
    ],
)
def test_the_uri_says_that_it_is_a_pipeline(uri, kind):
    assert _kind(uri) == kind


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("gstreamer:videotestsrc ! appsink", "gstreamer:videotestsrc ! appsink"),
        (
            "gstreamer:rtspsrc location=rtsp://me:Zq7@h/x ! decodebin",
            "gstreamer:rtspsrc ! decodebin",
        ),
        ("gstreamer:rtspsrc user-pw=Zq7 user-id=me ! x", "gstreamer:rtspsrc ! x"),
        ('gstreamer:rtspsrc user-pw="a zq7 ! zq7" ! x', "gstreamer:rtspsrc ! x"),
        ("gstreamer:rtspsrc user-pw='a zq7 ! zq7' ! x", "gstreamer:rtspsrc ! x"),
        (r"gstreamer:rtspsrc user-pw=a\ zq7 ! x", "gstreamer:rtspsrc ! x"),
        (r'gstreamer:rtspsrc user-pw="a\" zq7" ! x', "gstreamer:rtspsrc ! x"),
        ('gstreamer:rtspsrc user-pw="zq7 ! zq7', "gstreamer:rtspsrc"),
    ],
)
def test_of_a_pipeline_only_its_elements_are_shown(uri, shown):
    assert without_secrets(uri) == shown


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12))
def test_no_quoted_password_of_a_pipeline_survives(text):
    escaped = f"{text}zq7{text}".replace("\\", "\\\\").replace('"', '\\"')
    assert "zq7" not in without_secrets(f'gstreamer:rtspsrc user-pw="{escaped}" ! appsink')


def test_importing_the_cameras_does_not_import_gi():
    code = (
        "import sys, edgekit.runtime.camera.csi, edgekit.runtime.camera.gstreamer; "
        "sys.exit('gi' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
