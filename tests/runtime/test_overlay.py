import numpy as np
import pytest

from edgekit.errors import DataError
from edgekit.runtime.overlay import Annotator, History, annotate, class_colors, draw
from edgekit.runtime.postprocess import NOT_SEEN, ClassScore, SegmentationMap
from edgekit.runtime.stream import Result

CLASSES = (ClassScore(3, "zebra", 0.9), ClassScore(1, "crossing", 0.1))


def grey(height=120, width=200, *channels):
    return np.full((height, width, *channels), 100, np.uint8)


@pytest.mark.parametrize(
    "value",
    [CLASSES, np.array([1.5, -2.0]), {"door": "open"}, "text", 3, None, (), ((1, 2),)],
    ids=["classes", "numbers", "dict", "text", "number", "none", "empty", "tuple"],
)
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)])
def test_text_is_written_in_the_upper_left_corner_of_a_copy(channels, value):
    frame = grey(120, 200, *channels)
    drawn = draw(frame, value)
    assert drawn.shape == (120, 200, 3)
    assert drawn.dtype == np.uint8
    assert (frame == 100).all()
    assert not np.shares_memory(drawn, frame)
    assert (drawn[:60] != 100).any()
    assert drawn.max() > 200  # the letters
    assert (drawn[80:] == 100).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (17, 23), (2000, 1500)], ids=str)
def test_frames_of_any_size(size):
    assert draw(grey(*size, 3), CLASSES).shape == (*size, 3)


def test_read_only_and_strided_frames():
    frame = grey(240, 400, 3)[::2, ::2]
    frame.flags.writeable = False
    assert (draw(frame, CLASSES) != 100).any()


def test_letters_outside_ascii_do_no_harm():
    assert (draw(grey(120, 200, 3), (ClassScore(0, "Tür 门", 1.0),)) != 100).any()


def test_a_class_map_tints_its_pixels_in_the_colours_of_its_legend():
    classes = np.full((300, 400), NOT_SEEN, np.uint8)
    classes[200:, :200] = 0
    classes[200:, 200:] = 1
    drawn = draw(grey(300, 400, 3), SegmentationMap(classes, ("road",)))
    for number, column in ((0, 100), (1, 300)):
        expected = 0.55 * 100 + 0.45 * class_colors()[number].astype(float)
        np.testing.assert_allclose(drawn[250, column], expected, atol=1)
        legend = drawn[:120].reshape(-1, 3).astype(int)
        # OpenCV 4 smooths thin strokes to within two of 255 of their colour; others are 100 away.
        assert (np.abs(legend - class_colors()[number]) <= 2).all(axis=1).any()
    assert (drawn[150:199, 250:] == 100).all()  # not seen


def test_a_class_map_of_another_size_than_the_frame_is_told_in_words_only():
    value = SegmentationMap(np.zeros((4, 4), np.uint8), ("road",))
    drawn = draw(grey(300, 400, 3), value)
    assert (drawn[200:] == 100).all()
    assert (drawn[:60] != 100).any()


def test_every_class_has_a_colour_of_its_own():
    colors = class_colors()
    assert len(np.unique(colors, axis=0)) == 256
    neighbours = np.abs(np.diff(colors[:20].astype(int), axis=0)).sum(axis=1)
    assert neighbours.min() > 100


@pytest.mark.parametrize(
    "frame",
    [np.zeros((8, 8, 3), np.float32), np.zeros((28, 28)), np.zeros((8, 8, 2), np.uint8)],
)
def test_what_is_no_picture_is_refused(frame):
    with pytest.raises(DataError, match=r"FILE\.jsonl"):
        draw(frame, CLASSES)


def result(number=0, value="seen", frame=None, **fields):
    frame = grey(240, 320, 3) if frame is None else frame
    return Result(number, number * 40_000_000, 12.0, value, frame, {}, **fields)


def test_rate_and_age_stand_at_the_bottom():
    drawn = annotate(result(value=()), History())
    assert (drawn[200:, :100] != 100).any()
    assert (drawn[120:200] == 100).all()


def test_the_rate_is_that_of_the_last_results():
    history = History()
    assert history.fps == 0
    for number in range(100):
        history.add(result(number))
    assert history.fps == pytest.approx(25)
    history.add(result(99))
    assert history.fps > 0


def test_a_late_result_says_so():
    on_time, late = (annotate(result(late=late), History()) for late in (False, True))
    assert (on_time != late).any()


def test_numbers_are_curves_over_the_results_before():
    annotated, plain = Annotator(), draw(grey(240, 320, 3), np.zeros(2, np.float32))
    for number in range(60):
        value = np.array([np.sin(number / 5), 3.0], np.float32)
        drawn = annotated(result(number, value))
    middle = drawn[120:200, 20:100]
    assert (middle != plain[120:200, 20:100]).any()
    assert (middle == class_colors()[0]).all(-1).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_curve_of_numbers_that_are_none(bad):
    annotated = Annotator()
    for value in (1.0, bad, bad):
        assert annotated(result(0, np.array([value], np.float32))).shape == (240, 320, 3)


def test_outputs_that_change_their_size_begin_anew():
    history = History()
    history.add(result(0, np.zeros(3, np.float32)))
    history.add(result(1, np.zeros(2, np.float32)))
    assert history.trace().shape == (1, 2)


def test_each_source_has_its_own_history():
    annotated = Annotator()
    for number in range(5):
        one = annotated(result(number, value=(), source="a"))
        other = annotated(result(3 * number, value=(), source="b"))
    assert (one[200:] != other[200:]).any()


def test_a_region_is_outlined_and_its_class_map_lies_in_it():
    frame = grey(400, 600, 3)
    classes = np.ones((200, 300), np.uint8)
    drawn = draw(frame, SegmentationMap(classes, ("a", "b")), (250, 150, 300, 200))
    assert (drawn[150:350, 549] == 255).all()
    assert (drawn[349, 250:550] == 255).all()
    outside = drawn.copy()
    outside[150:350, 250:550] = 100
    outside[:100, :250] = 100  # the names of the classes
    assert (outside == 100).all()
    inside = drawn[200:340, 300:540]
    assert (inside == inside[0, 0]).all()
    assert (inside[0, 0] != 100).any()
