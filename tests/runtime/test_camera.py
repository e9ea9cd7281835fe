import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DataError, SourceError, UsageError
from edgekit.runtime.camera import Timeouts, _kind, open_camera, without_secrets

COLOURS = [(0, 0, 255), (0, 255, 0), (255, 0, 0)]


def read_all(camera):
    frames = []
    while camera.grab() is not None:
        frames.append(camera.retrieve())
    return frames


@pytest.fixture
def video(tmp_path):
    """Return the path of a video of 12 frames, each third of one colour."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), COLOURS[number // 4], np.uint8))
    writer.release()
    return path


@pytest.fixture
def pictures(tmp_path):
    """Return a folder of three pictures in one colour each, and a text file."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, colour in zip(("a.png", "b.PNG", "c.bmp"), COLOURS, strict=True):
        cv2.imwrite(str(folder / name), np.full((4, 6, 3), colour, np.uint8))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize("as_uri", [str, lambda p: p, lambda p: p.as_uri()])
def test_a_video_gives_every_frame_in_bgr(video, as_uri):
    camera = open_camera(as_uri(video))
    frames = read_all(camera)
    camera.close()
    assert not camera.live
    assert camera.rate_hz == 10
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        assert frame.shape == (48, 64, 3)
        np.testing.assert_allclose(frame.mean(axis=(0, 1)), COLOURS[number // 4], atol=6)


def test_frames_of_a_video_are_the_callers_own(video):
    camera = open_camera(video)
    camera.grab()
    first = camera.retrieve()
    kept = first.copy()
    read_all(camera)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("content", [b"", b"no video", bytes(5000)])
def test_a_damaged_video_is_a_data_error(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"cannot open video .* \({len(content)} bytes\)"):
        open_camera(path)


@pytest.mark.parametrize("cut", [0.7, 0.9])
def test_a_video_that_was_cut_short_gives_what_is_there(video, cut):
    content = video.read_bytes()
    video.write_bytes(content[: int(cut * len(content))])
    assert 0 < len(read_all(open_camera(video))) < 12


def test_a_video_that_is_damaged_in_the_middle_is_read_to_its_end(video):
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle - 100 : middle + 100] = bytes(200)
    video.write_bytes(content)
    camera, outcomes = open_camera(video), []
    while camera.grab() is not None:
        try:
            outcomes.append(camera.retrieve().shape)
        except DataError as error:
            outcomes.append(str(error))
    assert 6 <= len(outcomes) <= 12
    assert outcomes[0] == (48, 64, 3)


def test_a_folder_gives_its_pictures_by_name(pictures):
    camera = open_camera(pictures)
    assert not camera.live
    assert [tuple(frame[0, 0]) for frame in read_all(camera)] == COLOURS


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", COLOURS[:1]),
        ("*", COLOURS),
        ("[bc].*", COLOURS[1:]),
        ("b.PNG", COLOURS[1:2]),
        ("../**/*.bmp", COLOURS[2:]),
    ],
)
@pytest.mark.parametrize("scheme", ["", "images://"])
def test_a_glob_or_a_file_gives_its_pictures(pictures, scheme, pattern, expected):
    camera = open_camera(f"{scheme}{pictures}/{pattern}")
    assert [tuple(frame[0, 0]) for frame in read_all(camera)] == expected


def test_a_picture_whose_name_looks_like_a_glob(tmp_path):
    path = tmp_path / "shelf[1].png"
    cv2.imwrite(str(path), np.full((4, 6, 3), 7, np.uint8))
    (frame,) = read_all(open_camera(path))
    assert (frame == 7).all()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("absent.png", "no such image"),
        ("absent.mp4", "no such video"),
        ("absent", "no such video"),
        ("*.png", r"holds no images \(.*\.png.*\)"),
        ("images://absent", "no such image"),
        ("file:///absent.mp4", "no such video: /absent.mp4"),
    ],
)
def test_what_is_not_there_is_a_data_error(tmp_path, monkeypatch, source, says):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says):
        open_camera(source)


def test_a_folder_without_pictures_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no images"):
        open_camera(tmp_path)


def test_an_iterable_gives_its_items_as_they_are():
    items = [np.zeros((2, 2, 3), np.uint8), np.ones(3, np.float32)]
    camera = open_camera(items)
    assert not camera.live
    assert all(one is other for one, other in zip(read_all(camera), items, strict=True))


def test_unpaced_test_frames_differ_and_repeat_exactly():
    first, second = (open_camera("test://64x48") for _ in range(2))
    frames = []
    for _ in range(5):
        for camera in (first, second):
            assert camera.grab() is not None
        frames.append(first.retrieve())
        np.testing.assert_array_equal(frames[-1], second.retrieve())
    assert frames[0].shape == (48, 64, 3)
    assert all((one != other).any() for one, other in zip(frames, frames[1:], strict=False))


def test_paced_test_frames_skip_what_a_slow_reader_missed():
    period_ns = 1e9 / 200
    camera = open_camera("test://64x48@200")
    assert camera.live
    assert camera.rate_hz == 200
    times = []
    for pause_s in (0, 0, 0.05, 0, 0.05, 0):
        time.sleep(pause_s)
        times.append(camera.grab())
        assert times[-1] <= time.monotonic_ns()
        camera.retrieve()
    steps = np.diff(times) / period_ns
    assert (steps > 0.5).all()
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)
    assert steps[1] >= 9
    assert steps[3] >= 9


def test_a_paced_source_keeps_its_rate():
    camera = open_camera("test://64x48@100")
    times = [camera.grab() for _ in range(10)]
    # Frames may be skipped on a busy machine; they never come early.
    assert times[-1] - times[0] >= 9 * 0.99e7


@pytest.mark.parametrize(
    "uri",
    ["test://", "test://64", "test://64x48@0", "test://64x48@-1", "test://8x8", "test://64x99999"],
)
def test_what_test_frames_cannot_be(uri):
    with pytest.raises(UsageError, match="expected test://WIDTHxHEIGHT@RATE"):
        open_camera(uri)


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("0", "v4l2"),
        ("12", "v4l2"),
        ("/dev/video3", "v4l2"),
        ("v4l2:///dev/video0", "v4l2"),
        ("rtsp://10.0.0.2/live", "rtsp"),
        ("rtsps://10.0.0.2/live", "rtsp"),
        ("RTSP://10.0.0.2/live", "rtsp"),
        ("http://10.0.0.2/mjpg", "http"),
        ("https://10.0.0.2/mjpg", "http"),
        ("tcp://10.0.0.2:5000", "tcp"),
        ("udp://@:5000", "udp"),
        ("test://64x48", "test"),
        ("file:///a/b.mp4", "file"),
        ("images:///a", "images"),
        ("clip.mp4", "file"),
        ("a/clip.MOV", "file"),
        ("/", "images"),
        ("photo.jpg", "images"),
        ("photos/*.jpg", "images"),
        ("photos/*", "images"),
    ],
)
def test_the_uri_says_the_kind_of_source(uri, kind):
    assert _kind(uri) == kind


@pytest.mark.parametrize("uri", ["ftp://me:hidden@host/x", "directshow:x", "csy://0"])
def test_an_unknown_scheme_is_told_with_those_there_are(uri):
    with pytest.raises(UsageError, match=r"unknown scheme; available: .*rtsp://") as caught:
        open_camera(uri)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("source", [97, "97", "/dev/video97", "v4l2:///dev/video97"])
def test_a_camera_that_is_not_there(source):
    with pytest.raises(SourceError, match="no camera /dev/video97; cameras on this machine: "):
        open_camera(source)


def test_a_device_that_is_no_camera():
    with pytest.raises(SourceError, match="cannot open camera /dev/null"):
        open_camera("v4l2:///dev/null")


@pytest.mark.skipif(not Path("/dev/video0").exists(), reason="no camera /dev/video0")
def test_a_real_camera_gives_frames():
    camera = open_camera(0)
    assert camera.grab() is not None
    assert camera.retrieve().dtype == np.uint8
    camera.close()


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://10.0.0.2:554/live", "rtsp://10.0.0.2:554/live"),
        ("rtsp://me:secret@10.0.0.2/live", "rtsp://***@10.0.0.2/live"),
        ("rtsp://10.0.0.2/live?token=abc", "rtsp://10.0.0.2/live?***"),
        ("http://10.0.0.2?token=abc", "http://10.0.0.2?***"),
        ("http://10.0.0.2/x#token=abc", "http://10.0.0.2/x#***"),
        ("rtsp://me:sec@ret@10.0.0.2/live", "rtsp://***@10.0.0.2/live"),
        ("rtsp://me:sec/ret@10.0.0.2/live", "rtsp://***@10.0.0.2/live"),
        ("rtsp://me:sec?ret@10.0.0.2/live", "rtsp://***"),
        ("udp://@:5000", "udp://***@:5000"),
        ("clip.mp4", "clip.mp4"),
        ("test://640x480@30?stamp=on", "test://640x480@30?stamp=on"),
        ("csi:///base/imx219@10", "csi:///base/imx219@10"),
    ],
)
def test_without_secrets_keeps_the_address(uri, shown):
    assert without_secrets(uri) == shown


SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)


@given(before=SECRET, after=SECRET, query=SECRET, slash=st.sampled_from(["/", "/live", ""]))
def test_no_password_and_no_query_survives(before, after, query, slash):
    password = f"{before}Zq7{after}"
    for uri in (
        f"rtsp://me:{password}@10.0.0.2:554{slash}",
        f"rtsp://me:{password}@10.0.0.2{slash}?key={query}Zq7",
        f"http://10.0.0.2{slash}?key={password}",
        f"http://me:{password}@10.0.0.2{slash}#{password}",
    ):
        shown = without_secrets(uri)
        assert "Zq7" not in shown
        assert shown.startswith(uri[:7])


@pytest.mark.parametrize("uri", ["rtsp://me:Zq7Zq7@127.0.0.1:9/x", "http://me:Zq7Zq7@127.0.0.1:9/"])
def test_a_stream_that_does_not_answer_is_told_without_its_password(uri, capfd):
    with pytest.raises(SourceError, match=r"cannot open .*127\.0\.0\.1:9") as caught:
        open_camera(uri, Timeouts(open_s=2, read_s=1))
    assert "Zq7" not in str(caught.value)
    assert "Zq7" not in "".join(capfd.readouterr())
