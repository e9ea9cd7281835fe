"""Options in the URIs of sources: one parser for all of them."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.runtime.camera import _kind, open_camera
from edgekit.runtime.camera._options import number, one_of, read_options, take_rotation, whole

KNOWN = {"width": whole(1, 4096), "rate": number(0.5, 240), "format": one_of("mjpg", "yuyv")}


@pytest.mark.parametrize(
    ("uri", "sign", "address", "options"),
    [
        ("v4l2:///dev/video0", "?", "v4l2:///dev/video0", {}),
        ("v4l2:///dev/video0?", "?", "v4l2:///dev/video0", {}),
        ("0?width=640&rate=29.97", "?", "0", {"width": 640, "rate": 29.97}),
        ("0?format=MJPG", "?", "0", {"format": "mjpg"}),
        ("http://h/x?width=9#width=8", "#", "http://h/x?width=9", {"width": 8}),
        ("http://h/x?a=b", "#", "http://h/x?a=b", {}),
        ("rtsp://me:pa#ss@h/live", "#", "rtsp://me:pa#ss@h/live", {}),
        ("rtsp://me:pa#s=s@h/live", "#", "rtsp://me:pa#s=s@h/live", {}),
        ("rtsp://me:pa#ss@h/live#rate=5", "#", "rtsp://me:pa#ss@h/live", {"rate": 5.0}),
        ("file:///a/clip#2.mp4", "#", "file:///a/clip#2.mp4", {}),
    ],
)
def test_options_are_told_from_the_address(uri, sign, address, options):
    assert read_options(uri, sign, KNOWN) == (address, options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("size=3", "option 'size' must be one of width, rate, format, rotate, each once"),
        ("width=1&width=1", "option 'width' must be one of .*, each once"),
        ("width=0", "width must be an integer from 1 to 4096; got '0'"),
        ("width=-5", "width must be an integer"),
        ("width=1e3", "width must be an integer"),
        ("width=٣", "width must be an integer"),
        ("width=99999999999999999999", "width must be an integer"),
        ("rate=0", "rate must be a number from 0.5 to 240; got '0'"),
        ("rate=nan", "rate must be a number"),
        ("format=h264", "format must be one of mjpg, yuyv; got 'h264'"),
        ("format", "format must be one of mjpg, yuyv; got ''"),
    ],
)
def test_an_option_that_cannot_be_is_told_with_what_can(options, says):
    with pytest.raises(UsageError, match=says):
        read_options(f"v4l2:///dev/video0?{options}", "?", KNOWN)


@given(secret=st.from_regex(r"[A-Z0-9%!*]{4,20}", fullmatch=True))
def test_what_is_no_key_is_not_shown(secret):
    uri = f"rtsp://me:{secret}@h/live?key={secret}#rate=5&rate=6"
    for text in (uri, f"test://h?{secret}", f"test://h?{secret}={secret}"):
        with pytest.raises(UsageError) as caught:
            read_options(text, "#" if text == uri else "?", KNOWN)
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "sign", "rest", "degrees"),
    [
        ("0?rotate=90", "?", "0", 90),
        ("0?width=5&rotate=180&rate=3", "?", "0?width=5&rate=3", 180),
        ("http://h/?rotate=90", "#", "http://h/?rotate=90", 0),
        ("http://h/?a=1#rotate=270", "#", "http://h/?a=1", 270),
        ("0?height=9", "?", "0?height=9", 0),
    ],
)
def test_the_rotation_is_taken_out_of_a_uri(uri, sign, rest, degrees):
    assert take_rotation(uri, sign) == (rest, degrees)


@pytest.mark.parametrize("options", ["rotate=45", "rotate=", "rotate=90&rotate=90", "rotate=0"])
def test_a_rotation_that_cannot_be(options):
    with pytest.raises(UsageError, match="rotate"):
        open_camera(f"test://64x48?{options}")


def test_numbers_are_not_turned(tmp_path):
    path = tmp_path / "steps.csv"
    path.write_text("1,2\n3,4\n")
    with pytest.raises(UsageError, match="gives no pictures"):
        open_camera(f"csv://{path}?rotate=90")


@pytest.mark.parametrize(
    "uri",
    ["test://64x48?x=1", "http://h/#x=1", "rtsp://h/#x=1", "file:///x.mp4#x=1", "images://x#x=1"],
)
def test_every_source_refuses_options_that_it_does_not_know(uri):
    with pytest.raises(UsageError, match="option 'x' must be one of .*rotate"):
        open_camera(uri)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
@pytest.mark.parametrize("kind", ["images", "test", "file"])
def test_pictures_are_turned_clockwise(tmp_path, kind, degrees, corner):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255  # top left
    if kind == "images":
        cv2.imwrite(str(tmp_path / "picture.png"), picture)
        uri = f"images://{tmp_path}/*.png#rotate={degrees}"
    elif kind == "file":
        path = tmp_path / "clip.avi"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        writer.write(picture)
        writer.release()
        uri = f"{path.as_uri()}#rotate={degrees}"
    else:
        uri = f"test://64x48?rotate={degrees}&pattern=still"
    camera = open_camera(uri)
    camera.grab()
    frame = camera.retrieve()
    camera.close()
    assert frame.shape == ((48, 64, 3) if degrees == 180 else (64, 48, 3))
    assert frame.flags.c_contiguous
    assert f"rotated by {degrees} degrees" in camera.description
    if kind != "test":
        assert frame[corner].min() > 200
        assert frame.mean() < 60


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("0?width=640", "v4l2"),
        ("/dev/video0?rotate=90", "v4l2"),
        ("/dev/v4l/by-id/usb-046d_C920-video-index0", "v4l2"),
        ("1?.png", "images"),
        ("test://64x48?rotate=90", "test"),
    ],
)
def test_options_do_not_hide_the_kind_of_source(uri, kind):
    assert _kind(uri) == kind
