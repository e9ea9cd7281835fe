"""What counts as black, repeated and frozen; and, as important, what does not."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import open_camera
from edgekit.runtime.freshness import Freshness

PERIOD_NS = 33_333_333
SIZE = (96, 160)


def answers(frames, period_ns=PERIOD_NS, **choices):
    freshness = Freshness(**choices)
    return [freshness.check(frame, number * period_ns) for number, frame in enumerate(frames)]


def scene(brightness, sigma, count=20, seed=0):
    """Return frames of a still picture with a sensor's noise; brightness 0 to 1."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 255, (6, 10, 3)).astype(np.uint8)
    picture = brightness * cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
    noisy = (picture + random.normal(0, sigma, (*SIZE, 3)) for _ in range(count))
    return [np.clip(frame, 0, 255).astype(np.uint8) for frame in noisy]


def as_jpeg(frame, quality):
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)


def numbered(count, seed=1):
    """Return frames that all differ."""
    return list(np.random.default_rng(seed).integers(0, 255, (count, *SIZE, 3)).astype(np.uint8))


@pytest.mark.parametrize("brightness", [1.0, 0.06, 0.02], ids=["day", "night", "deep night"])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("quality", [None, 95, 60])
def test_a_still_scene_with_a_sensors_noise_is_fresh(brightness, sigma, quality):
    frames = scene(brightness, sigma)
    if quality is not None:
        frames = [as_jpeg(frame, quality) for frame in frames]
    assert set(answers(frames)) == {None}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg: apt-get install ffmpeg")
@pytest.mark.parametrize("brightness", [1.0, 0.06])
def test_an_encoder_that_leaves_out_what_stays_is_no_alarm(tmp_path, brightness):
    """Its pictures are equal bit for bit for seconds, until the next key frame."""
    path = tmp_path / "still.mkv"
    height, width = SIZE
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", "30", "-i", "-"]
    coding = ["-c:v", "libx264", "-threads", "1", "-crf", "35", "-g", "60", "-pix_fmt", "yuv420p"]
    command = ["ffmpeg", "-loglevel", "error", *raw, *coding, str(path)]
    frames = b"".join(frame.tobytes() for frame in scene(brightness, 0.5, 120))
    subprocess.run(command, input=frames, check=True)
    camera = open_camera(path)
    decoded = []
    while camera.grab() is not None:
        decoded.append(camera.retrieve())
    assert "repeated" in answers(decoded)  # else this test shows nothing
    assert set(answers(decoded, inter_coded=True)) == {None}


@pytest.mark.parametrize(
    "name", ["photos_pan_640x480_30fps.mp4", "photos_handheld_1280x720_30fps.mp4"]
)
def test_moving_pictures_are_fresh(shared_data, name):
    camera, frames = open_camera(shared_data / name), []
    while camera.grab() is not None and len(frames) < 100:
        frames.append(camera.retrieve())
    assert len(frames) == 100
    assert set(answers(frames)) == {None}
    assert set(answers(frames, inter_coded=True)) == {None}


@pytest.mark.parametrize("level", [0, 16])
@pytest.mark.parametrize("inter_coded", [False, True])
def test_a_picture_without_signal_is_black(level, inter_coded):
    frame = np.full((*SIZE, 3), level, np.uint8)
    assert answers([frame] * 3, inter_coded=inter_coded) == ["black"] * 3
    assert answers([as_jpeg(frame, 80)]) == ["black"]


@pytest.mark.parametrize("colour", [(128, 128, 128), (255, 255, 255), (0, 0, 255), (40, 0, 0)])
def test_one_colour_that_is_not_dark_is_not_black(colour):
    assert answers([np.full((*SIZE, 3), colour, np.uint8)]) == [None]


def test_a_dark_picture_with_one_bright_spot_is_not_black():
    frame = np.zeros((*SIZE, 3), np.uint8)
    frame[30:60, 50:100] = 90
    assert answers([frame]) == [None]


def test_a_buffer_that_is_handed_out_twice_is_repeated():
    first, second, third = numbered(3)
    assert answers([first, second, second, third]) == [None, None, "repeated", None]
    assert answers([first, second, second.copy(), third]) == [None, None, "repeated", None]


def test_old_buffers_that_come_round_again_are_repeated():
    ring = numbered(4)
    assert answers(ring * 3) == [None] * 4 + ["repeated"] * 8


def test_what_comes_again_after_more_than_the_last_eight_is_fresh():
    assert answers(numbered(9) * 2) == [None] * 18


@pytest.mark.parametrize(("inter_coded", "limit_s"), [(False, 2), (True, 10)])
def test_a_picture_that_stays_is_frozen_until_it_moves(inter_coded, limit_s):
    still, *others = numbered(4)
    count = 30 * (limit_s + 2)
    told = answers([*[still] * count, *others], inter_coded=inter_coded)
    first = told.index("frozen")
    assert limit_s <= first * PERIOD_NS / 1e9 <= limit_s + 0.1
    assert set(told[first:count]) == {"frozen"}
    assert told[count:] == [None] * 3
    assert set(told[1:first]) == {None if inter_coded else "repeated"}


def test_a_slow_camera_needs_several_frames_to_be_frozen():
    still = numbered(1)[0]
    told = answers([still] * 8, period_ns=5_000_000_000, inter_coded=True)
    assert told == [None] * 5 + ["frozen"] * 3


def test_time_stamps_that_jump_back_begin_anew():
    freshness = Freshness()
    still = numbered(1)[0]
    for number in range(10):
        freshness.check(still, 1_000_000_000_000 + number)
    assert freshness.check(still, 0) == "repeated"
    assert freshness.check(still, 1_999_999_999) == "repeated"


def test_a_change_of_size_is_fresh():
    frames = [np.full((height, 64, 3), 200, np.uint8) for height in (48, 96, 144)]
    assert answers(frames) == [None] * 3


@pytest.mark.parametrize(
    "item", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 0, 3), "u1")]
)
def test_what_is_no_picture_is_left_alone(item):
    assert answers([item] * 3) == [None] * 3


@pytest.mark.parametrize(
    ("pattern", "says"), [("moving", None), ("still", "repeated"), ("black", "black")]
)
def test_patterns_show_what_it_tells(pattern, says):
    camera = open_camera(f"test://64x48?pattern={pattern}")
    frames = []
    for _ in range(20):
        camera.grab()
        frames.append(camera.retrieve())
    assert answers(frames)[-1] == says


def test_a_camera_may_say_that_it_is_inter_coded():
    class Stream:
        inter_coded = True

    still = numbered(1)[0]
    for camera, says in ((Stream(), None), (object(), "repeated")):
        freshness = Freshness.of(camera)
        assert [freshness.check(still, 0), freshness.check(still, 1)] == [None, says]
