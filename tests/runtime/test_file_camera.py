"""Video files: the decoder's threads, and going on with more of them in the middle."""

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import _opencv, decode_faster, file, open_camera

FRAMES = 30


def write_video(path, frames=FRAMES):
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 8 * number, np.uint8))
    writer.release()


@pytest.fixture(params=["clip.avi", "clip.mp4"])
def video(tmp_path, request):
    """Return the path of a video whose frame n has a brightness of about 8 n."""
    write_video(tmp_path / request.param)
    return tmp_path / request.param


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(file, "allowed_cpus", lambda: frozenset({0, 1}))


def read(camera, most=FRAMES):
    """Return the next frames, [n, h, w, 3]."""
    frames = []
    while len(frames) < most and camera.grab() is not None:
        frames.append(camera.retrieve())
    return np.array(frames)


def threads_of(camera):
    return camera._capture.get(cv2.CAP_PROP_N_THREADS)


needs_n_threads = pytest.mark.skipif(
    _opencv.N_THREADS is None, reason="OpenCV before 4.7 does not take a number of threads"
)


@needs_n_threads
@pytest.mark.parametrize("before", [0, 1, 9, FRAMES - 1, FRAMES])
def test_more_threads_lose_double_and_change_no_frame(video, before):
    expected = read(open_camera(video))
    camera = open_camera(video)
    assert threads_of(camera) == 1
    first = read(camera, before)
    assert decode_faster(camera)
    last = read(camera)
    camera.close()
    assert len(first) == before
    np.testing.assert_array_equal([*first, *last], expected)
    assert len(expected) == FRAMES


@needs_n_threads
def test_the_frame_in_hand_can_still_be_had(video):
    camera = open_camera(video)
    read(camera, 5)
    camera.grab()
    assert decode_faster(camera)
    assert camera.retrieve().mean() == pytest.approx(5 * 8, abs=4)


@needs_n_threads
def test_a_turned_file_gets_them_too(video):
    expected = read(open_camera(f"{video.as_uri()}#rotate=90"))
    camera = open_camera(f"{video.as_uri()}#rotate=90")
    first = read(camera, 9)
    assert decode_faster(camera)
    np.testing.assert_array_equal([*first, *read(camera)], expected)


@needs_n_threads
def test_they_are_given_once(video):
    camera = open_camera(video)
    assert [decode_faster(camera), decode_faster(camera)] == [True, False]


def refuses_and_goes_on(video, camera, change=lambda: None):
    first = read(camera, 9)
    change()
    assert not decode_faster(camera)
    np.testing.assert_allclose(
        [frame.mean() for frame in (*first, *read(camera))], 8 * np.arange(FRAMES), atol=4
    )


def test_on_one_cpu_there_are_none_to_give(video, monkeypatch):
    monkeypatch.setattr(file, "allowed_cpus", lambda: frozenset({1}))
    refuses_and_goes_on(video, open_camera(video))


def test_an_opencv_that_takes_no_number_reads_as_before(video, monkeypatch):
    monkeypatch.setattr(file, "N_THREADS", None)
    refuses_and_goes_on(video, open_camera(video))


def test_another_reader_that_is_to_come_first_does(video, monkeypatch):
    backends = lambda: (cv2.CAP_OPENCV_MJPEG, cv2.CAP_FFMPEG)  # noqa: E731
    monkeypatch.setattr(cv2.videoio_registry, "getStreamBackends", backends)
    refuses_and_goes_on(video, open_camera(video))


def test_a_file_that_is_gone_is_read_on(video):
    refuses_and_goes_on(video, open_camera(video), video.unlink)


@pytest.mark.parametrize("frames", [0, 4])
def test_a_file_that_another_replaced_is_read_on(video, frames):
    def replace():
        video.unlink()
        write_video(video, frames) if frames else video.write_bytes(b"")

    refuses_and_goes_on(video, open_camera(video), replace)


def test_while_a_stream_opens_with_its_options_no_file_does(video):
    with _opencv.opening:
        refuses_and_goes_on(video, open_camera(video))


def test_a_source_without_a_decoder_has_none(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 6, 3), np.uint8))
    assert not decode_faster(open_camera(tmp_path))
    assert not decode_faster(open_camera([np.zeros((4, 6, 3), np.uint8)]))
