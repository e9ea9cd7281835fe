"""V4L2 cameras on a machine that has none: a stand-in for OpenCV's capture, sysfs as files."""

import time

import cv2
import numpy as np
import pytest

from edgekit.errors import SourceError, UsageError
from edgekit.runtime.camera import _usb, open_camera, v4l2


class StandInCapture:
    """A driver that knows 640x480 and 1280x720, MJPG and YUYV, up to 30 Hz."""

    stamp_ms = None
    isopen = True

    def __init__(self, device, api):
        assert api == cv2.CAP_V4L2
        self.device = device
        self.asked = []
        self.values = {
            cv2.CAP_PROP_FRAME_WIDTH: 640.0,
            cv2.CAP_PROP_FRAME_HEIGHT: 480.0,
            cv2.CAP_PROP_FPS: 30.0,
            cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*"YUYV")),
            cv2.CAP_PROP_EXPOSURE: 156.0,
        }

    def isOpened(self):  # noqa: N802
        return self.isopen

    def set(self, what, value):
        self.asked.append((what, value))
        if what == cv2.CAP_PROP_FRAME_WIDTH and value > 1280:
            value = 1280
        if what == cv2.CAP_PROP_FRAME_HEIGHT and value > 720:
            value = 720
        if what == cv2.CAP_PROP_FPS:
            value = min(value, 30.0)
        self.values[what] = float(value)
        return True

    def get(self, what):
        if what == cv2.CAP_PROP_POS_MSEC:
            return time.monotonic_ns() / 1e6 if self.stamp_ms is None else self.stamp_ms
        return self.values.get(what, 0.0)

    def grab(self):
        return True

    def retrieve(self):
        return True, np.full((480, 640, 3), 7, np.uint8)

    def release(self):
        pass


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a machine without cameras, whose /dev and /sys are folders."""
    machine = Machine(tmp_path)
    monkeypatch.setattr(_usb, "DEV", tmp_path / "dev")
    monkeypatch.setattr(v4l2, "DEV", tmp_path / "dev")
    monkeypatch.setattr(_usb, "SYSFS", tmp_path / "sys" / "class")
    monkeypatch.setattr(_usb, "_first_seen", {})
    monkeypatch.setattr(cv2, "VideoCapture", StandInCapture)
    monkeypatch.setenv("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")
    return machine


class Machine:
    def __init__(self, root):
        self.dev, self.sysfs = root / "dev", root / "sys"
        self.dev.mkdir()
        (self.sysfs / "class").mkdir(parents=True)

    def plug(self, number, port, model="046d:0892", serial="ABC", index="0"):
        """Plug a camera in; the kernel gives it a number."""
        usb = self.sysfs / "devices" / "usb1" / port
        node = usb / f"{port}:1.0" / "video4linux" / f"video{number}"
        node.mkdir(parents=True, exist_ok=True)
        vendor, product = model.split(":")
        (usb / "idVendor").write_text(f"{vendor}\n")
        (usb / "idProduct").write_text(f"{product}\n")
        if serial:
            (usb / "serial").write_text(f"{serial}\n")
        (node / "index").write_text(f"{index}\n")
        (node / "device").symlink_to(usb / f"{port}:1.0")
        (self.sysfs / "class" / f"video{number}").symlink_to(node)
        (self.dev / f"video{number}").touch()

    def unplug(self, number):
        import shutil

        link = self.sysfs / "class" / f"video{number}"
        usb = link.resolve().parents[2]
        link.unlink()
        (self.dev / f"video{number}").unlink()
        if not [p for p in (self.sysfs / "class").iterdir() if usb in p.resolve().parents]:
            shutil.rmtree(usb)

    def opened(self, source="0"):
        """Return the name of the device that a source opens."""
        return open_camera(source)._capture.device.rpartition("/")[2]


def test_what_is_asked_for_reaches_the_driver_in_order(machine):
    machine.plug(0, "1-1")
    options = "width=1280&height=720&rate=30&format=mjpg&exposure=5"
    camera = open_camera(f"v4l2://{machine.dev}/video0?{options}")
    assert camera._capture.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 30.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        (cv2.CAP_PROP_AUTO_EXPOSURE, 1),
        (cv2.CAP_PROP_EXPOSURE, 50),
    ]
    assert camera.description.endswith("video0 (1280x720 mjpg at 30 Hz, exposure 5 ms)")
    assert camera.live and camera.rate_hz == 30


def test_without_options_the_drivers_own_mode_is_taken(machine):
    machine.plug(0, "1-1")
    camera = open_camera(0)
    assert camera._capture.asked == [(cv2.CAP_PROP_BUFFERSIZE, 1)]
    assert camera.description.endswith("video0 (640x480 yuyv at 30 Hz)")


def test_automatic_exposure_is_asked_for(machine):
    machine.plug(0, "1-1")
    camera = open_camera("0?exposure=auto")
    assert camera._capture.asked[-1] == (cv2.CAP_PROP_AUTO_EXPOSURE, 3)


def test_what_the_driver_did_not_give_is_told(machine):
    machine.plug(0, "1-1")
    camera = open_camera("0?width=1920&height=1080&rate=60&format=mjpg")
    assert camera.description.endswith(
        "(1280x720 mjpg at 30 Hz; asked for width=1920, height=1080, rate=60.0)"
    )
    assert "asked" not in open_camera("0?rate=29.97").description


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("width=640", "width and height belong together"),
        ("height=480", "width and height belong together"),
        ("format=h264", "format must be one of mjpg, yuyv"),
        ("exposure=-1", "exposure must be auto or milliseconds, a number from 0.1 to 10000"),
        ("exposure=bright", "exposure must be auto or milliseconds"),
        ("fps=30", "option 'fps' must be one of width, height, rate, format, exposure, rotate"),
    ],
)
def test_options_that_cannot_be(machine, options, says):
    with pytest.raises(UsageError, match=says):
        open_camera(f"0?{options}")


def test_the_kernels_time_stamp_is_taken_if_it_is_of_our_clock(machine, monkeypatch):
    machine.plug(0, "1-1")
    camera = open_camera(0)
    earlier_ms = time.monotonic_ns() / 1e6 - 20
    monkeypatch.setattr(StandInCapture, "stamp_ms", earlier_ms)
    assert camera.grab() == int(earlier_ms * 1e6)
    for stamp_ms in (0.0, 1e15):  # no stamp; one of another clock
        monkeypatch.setattr(StandInCapture, "stamp_ms", stamp_ms)
        before_ns = time.monotonic_ns()
        assert before_ns <= camera.grab() <= time.monotonic_ns()


def test_a_camera_is_found_again_under_another_number(machine):
    machine.plug(0, "1-1")
    assert machine.opened() == "video0"
    machine.unplug(0)
    with pytest.raises(SourceError, match="no camera .*video0"):
        open_camera(0)
    machine.plug(2, "1-4")
    assert machine.opened() == "video2"
    machine.unplug(2)
    machine.plug(0, "1-1")
    assert machine.opened() == "video0"


def test_the_right_one_of_two_is_found_by_its_serial_number(machine):
    machine.plug(0, "1-1", serial="ABC")
    machine.plug(2, "1-2", serial="XYZ")
    assert [machine.opened("0"), machine.opened("2")] == ["video0", "video2"]
    machine.unplug(0)
    machine.unplug(2)
    machine.plug(0, "1-3", serial="XYZ")
    machine.plug(2, "1-4", serial="ABC")
    assert [machine.opened("0"), machine.opened("2")] == ["video2", "video0"]


def test_without_a_serial_number_the_port_decides(machine):
    machine.plug(0, "1-1", serial="")
    machine.plug(2, "1-2", serial="")
    assert [machine.opened("0"), machine.opened("2")] == ["video0", "video2"]
    machine.unplug(0)
    machine.unplug(2)
    machine.plug(0, "1-2", serial="")
    machine.plug(1, "1-1", serial="")
    assert [machine.opened("0"), machine.opened("2")] == ["video1", "video0"]


def test_the_second_node_of_a_camera_is_not_taken_for_the_first(machine):
    machine.plug(0, "1-1", index="0")
    machine.opened()
    machine.unplug(0)
    machine.plug(0, "1-2", index="1")  # where metadata come
    machine.plug(1, "1-2", index="0")
    assert machine.opened() == "video1"


def test_another_camera_does_not_stand_in_for_the_first(machine):
    machine.plug(0, "1-1")
    machine.opened()
    machine.unplug(0)
    machine.plug(0, "1-2", model="1234:5678")
    with pytest.raises(
        SourceError, match="was camera 046d:0892 at USB port 1-1 and is .*1234:5678"
    ):
        open_camera(0)


def test_a_replaced_unit_of_the_same_model_at_the_same_port_is_taken(machine):
    machine.plug(0, "1-1", serial="OLD")
    machine.opened()
    machine.unplug(0)
    machine.plug(0, "1-1", serial="NEW")
    assert machine.opened() == "video0"


def test_a_link_by_id_is_followed(machine):
    machine.plug(3, "1-1")
    link = machine.dev / "v4l" / "by-id" / "usb-046d_0892_ABC-video-index0"
    link.parent.mkdir(parents=True)
    link.symlink_to(machine.dev / "video3")
    assert machine.opened(f"v4l2://{link}") == link.name
    machine.unplug(3)  # and nobody renews the link, as in a container
    machine.plug(5, "1-1")
    assert machine.opened(f"v4l2://{link}") == "video5"


def test_cameras_that_are_not_on_usb_go_by_their_path(machine):
    (machine.dev / "video0").touch()
    assert machine.opened() == "video0"
    assert machine.opened() == "video0"


def test_a_device_that_does_not_open_is_told(machine, monkeypatch):
    machine.plug(0, "1-1")
    monkeypatch.setattr(StandInCapture, "isopen", False)
    with pytest.raises(SourceError, match="cannot open camera .*in use.*usermod"):
        open_camera(0)
