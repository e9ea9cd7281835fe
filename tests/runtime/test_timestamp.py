import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.runtime.camera import open_camera
from edgekit.runtime.timestamp import draw_timestamp, read_timestamp


@given(at_us=st.integers(0, (1 << 48) - 1), rest=st.integers(0, 999), blue=st.integers(0, 255))
def test_a_time_is_read_back_to_the_microsecond(at_us, rest, blue):
    frame = np.full((48, 64, 3), (blue, 0, 255), np.uint8)
    draw_timestamp(frame, 1000 * at_us + rest)
    assert read_timestamp(frame) == 1000 * at_us
    assert (frame[:36] == (blue, 0, 255)).all()


@pytest.mark.parametrize("shape", [(16, 16), (17, 23), (48, 64), (480, 640), (721, 1279)])
def test_every_size_of_frame_holds_one(shape):
    frame = np.zeros((*shape, 3), np.uint8)
    draw_timestamp(frame, 123_456_789_000)
    assert read_timestamp(frame) == 123_456_789_000


@pytest.mark.parametrize("quality", [20, 50, 95])
@pytest.mark.parametrize("shape", [(144, 256), (720, 1280)])
def test_it_survives_jpeg_noise_and_another_size(shape, quality):
    random = np.random.default_rng(quality)
    frame = random.integers(0, 255, (*shape, 3)).astype(np.uint8)
    draw_timestamp(frame, 987_654_321_000)
    sent = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1)
    smaller = cv2.resize(sent, None, fx=0.5, fy=0.6)
    dimmed = np.clip(0.6 * smaller + random.normal(30, 12, smaller.shape), 0, 255)
    for received in (sent, smaller, dimmed.astype(np.uint8)):
        assert read_timestamp(received) == 987_654_321_000


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_frame_without_one_has_none(value):
    assert read_timestamp(np.full((48, 64, 3), value, np.uint8)) is None
    assert read_timestamp(np.full((8, 8, 3), value, np.uint8)) is None


def test_a_flipped_block_is_noticed():
    for number in range(64):
        frame = np.zeros((64, 64, 3), np.uint8)
        draw_timestamp(frame, 1_000_000_000)
        row, column = divmod(number, 16)
        block = frame[48 + 4 * row : 52 + 4 * row, 4 * column : 4 * column + 4]
        block[:] = 255 - block
        assert read_timestamp(frame) is None


@pytest.mark.parametrize("pattern", ["moving", "still", "black", "noise"])
def test_a_test_camera_draws_its_capture_time(pattern):
    camera = open_camera(f"test://64x48@200?pattern={pattern}&stamp=on")
    for _ in range(3):
        captured_ns = camera.grab()
        assert read_timestamp(camera.retrieve()) == captured_ns // 1000 * 1000
