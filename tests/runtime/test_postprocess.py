import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.errors import UsageError
from edgekit.runtime.postprocess import (
    NOT_SEEN,
    ClassScore,
    Postprocessor,
    SegmentationMap,
    to_json,
    top_k,
)
from edgekit.runtime.preprocess import Preprocessor
from edgekit.specs import Postprocess, Preprocess, TensorSpec

PICTURE = np.zeros((8, 8, 3), np.uint8)


def decoder(task, output, post=None, labels=(), resize="stretch", size=(8, 8), layout="nhwc"):
    shape = (1, *size, 3) if layout == "nhwc" else (1, 3, *size)
    spec = TensorSpec("input", shape, "float32")
    preprocess = Preprocess(resize=resize).for_input(spec)
    return Postprocessor(
        task, post or Postprocess(), output, labels, Preprocessor(preprocess, spec)
    )


def floats(*shape):
    return TensorSpec("output", shape, "float32")


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.integers(1, 300),
        elements=st.one_of(
            st.sampled_from([0.0, 0.5, 1.0]), st.floats(-1e3, 1e3, width=32), st.just(np.nan)
        ),
    ),
    st.integers(1, 310),
)
def test_top_k_is_the_head_of_a_sorted_list_ties_by_index(scores, k):
    # NaN is never among the best while there is a number.
    order = [(np.isnan(score), -np.nan_to_num(score), i) for i, score in enumerate(scores)]
    before = scores.copy()
    assert top_k(scores, k) == [i for _, _, i in sorted(order)[:k]]
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize("size", [3, 100, 1000])
def test_top_k_of_what_is_infinite(size):
    scores = np.full(size, -np.inf, np.float32)
    assert top_k(scores, 2) == [0, 1]
    scores[1] = np.inf
    assert top_k(scores, 2) == [1, 0]


@pytest.mark.parametrize("logits", [[1, 2, 3], [0, 0, 0], [1e4, 0, -1e4], [-1e4, -1e4, -1e4]])
def test_softmax_of_any_logits(logits):
    real = np.array([logits], np.float64)
    powers = np.exp(real - real.max())
    value = decoder("classification", floats(1, 3), Postprocess("softmax"))(
        real.astype(np.float32), PICTURE
    )
    assert sum(score.score for score in value) == pytest.approx(1)
    for score in value:
        assert score.score == pytest.approx((powers / powers.sum())[0, score.index], rel=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -100, -5.0, 0, 5, 100, 1e4])
def test_one_sigmoid_unit_is_two_classes(logit):
    decode = decoder("classification", floats(1, 1), Postprocess("sigmoid"), labels=("no", "yes"))
    best, other = decode(np.array([[logit]], np.float32), PICTURE)
    probability = 1 / (1 + np.exp(-np.longdouble(logit)))
    assert (best.label, other.label) == (("yes", "no") if logit > 0 else ("no", "yes"))
    assert {best.label: best.score, other.label: other.score}["yes"] == pytest.approx(
        float(probability), rel=1e-5, abs=1e-30
    )
    assert best.score + other.score == pytest.approx(1)


def test_classes_are_named_counted_and_dequantized():
    spec = TensorSpec("output", (1, 4), "int8", 1 / 256, -128)
    raw = np.array([[-128, 0, 127, 0]], np.int8)
    value = decoder("classification", spec, Postprocess(top_k=3), tuple("abcd"))(raw, PICTURE)
    assert value == (
        ClassScore(2, "c", 255 / 256),
        ClassScore(1, "b", 0.5),
        ClassScore(3, "d", 0.5),
    )


@pytest.mark.parametrize("labels", [(), ("only one",)])
def test_classes_without_names_are_called_by_number(labels):
    value = decoder("classification", floats(1, 3), labels=labels)(np.eye(3)[2:], PICTURE)
    assert value[0] == ClassScore(2, "2", 1.0)


@pytest.mark.parametrize("task", ["regression", "sequence"])
def test_numbers_come_without_batch_as_float32(task):
    spec = TensorSpec("output", (1, 2, 3), "int8", 0.5, 1)
    raw = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    value = decoder(task, spec)(raw, PICTURE)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, (raw[0] - 1.0) / 2)


@pytest.mark.parametrize("quantized", [True, False])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_the_class_of_a_pixel_is_the_largest_channel(layout, quantized):
    classes = np.random.default_rng(0).integers(0, 5, (8, 8)).astype(np.uint8)
    scores = np.eye(5)[classes] * 100
    if layout == "nchw":
        scores = np.moveaxis(scores, -1, 0)
    dtype = ("int8", 0.5, -10) if quantized else ("float32",)
    spec = TensorSpec("output", (1, *scores.shape), *dtype)
    decode = decoder("segmentation", spec, layout=layout)
    value = decode(scores[None].astype(spec.dtype), PICTURE)
    np.testing.assert_array_equal(value.class_map, classes)
    assert value.class_map.dtype == np.uint8


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((1, 8, 8, 1), "nhwc"), ((1, 8, 8), "nhwc"), ((1, 1, 8, 8), "nchw"), ((1, 8, 8), "nchw")],
)
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_one_channel_is_the_probability_of_class_1(activation, shape, layout):
    probability = np.linspace(0.01, 0.99, 64).reshape(8, 8)
    real = probability if activation == "none" else np.log(probability / (1 - probability))
    post = Postprocess(activation, threshold=0.7)
    decode = decoder("segmentation", floats(*shape), post, layout=layout)
    value = decode(real.reshape(shape).astype(np.float32), PICTURE)
    np.testing.assert_array_equal(value.class_map, probability >= 0.7)


@pytest.mark.parametrize("output", [(1, 16, 16, 4), (1, 32, 32, 4), (1, 64, 64, 4)], ids=str)
@pytest.mark.parametrize("frame", [(60, 100), (100, 60), (333, 257), (64, 64), (90, 40)], ids=str)
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("upsample", ["nearest", "linear"])
def test_a_class_map_lies_on_the_frame_where_the_model_saw_it(resize, frame, output, upsample):
    """Colours planted in a frame go through preprocessing and an ideal model, and come back."""
    height, width = frame
    planted = np.zeros(frame, np.uint8)
    planted[height // 2 :, :] = 1
    planted[:, width // 2 :] += 2
    spec = TensorSpec("input", (1, 64, 64, 3), "float32")
    preprocess = Preprocess(resize=resize, interpolation="nearest", pad=255).for_input(spec)
    preprocessor = Preprocessor(preprocess, spec)
    seen = np.empty(spec.shape, np.float32)
    preprocessor(np.dstack([planted] * 3), seen)
    # An ideal model: the class is the grey level, at the middle of each of its cells.
    middle = (np.arange(output[1]) * 64 + 32) // output[1]
    scores = np.eye(256)[seen[0, :, :, 0].astype(int)][middle][:, middle][..., :4]
    post = Postprocess(upsample=upsample)
    decode = Postprocessor("segmentation", post, floats(*output), (), preprocessor)
    value = decode(scores[None].astype(np.float32), np.dstack([planted] * 3))
    assert value.class_map.shape == frame
    scale = {
        "stretch": (height, width),
        "letterbox": (max(frame), max(frame)),
        "center_crop": (min(frame), min(frame)),
    }[resize]
    # A border between two classes may be off by one cell of the model's output.
    near = np.zeros(frame, bool)
    cell = [1 + int(np.ceil(side / output[1])) for side in scale]
    near[max(0, height // 2 - cell[0]) : height // 2 + cell[0], :] = True
    near[:, max(0, width // 2 - cell[1]) : width // 2 + cell[1]] = True
    away = ~near
    if resize == "center_crop":
        side = min(frame)
        inside = np.zeros(frame, bool)
        top, left = (height - side) // 2, (width - side) // 2
        inside[top : top + side, left : left + side] = True
        assert (value.class_map[~inside] == NOT_SEEN).all()
        away &= inside
    if resize == "letterbox":  # a cell on the frame's edge may be of the padding
        near[: cell[0]] = near[-cell[0] :] = near[:, : cell[1]] = near[:, -cell[1] :] = True
        away &= ~near
    assert set(planted[away]) == {0, 1, 2, 3}
    np.testing.assert_array_equal(value.class_map[away], planted[away])


@pytest.mark.parametrize("frame", [(1000, 10), (10, 1000), (1, 1), (1, 500)])
def test_a_letterboxed_frame_thinner_than_a_cell_still_has_a_class_map(frame):
    decode = decoder("segmentation", floats(1, 4, 4, 2), resize="letterbox", size=(16, 16))
    value = decode(np.ones((1, 4, 4, 2), np.float32), np.zeros((*frame, 3), np.uint8))
    assert value.class_map.shape == frame


def test_the_map_of_a_float_model_input_stays_at_the_outputs_size():
    decode = decoder("segmentation", floats(1, 4, 4, 2))
    value = decode(np.ones((1, 4, 4, 2), np.float32), np.zeros((8, 8, 3), np.float32))
    assert value.class_map.shape == (4, 4)


@pytest.mark.parametrize("shape", [(1, 10), (1, 8, 8, 256), (1, 2, 8, 8, 3)])
def test_what_is_no_class_map_is_refused_as_segmentation(shape):
    with pytest.raises(UsageError, match="segmentation needs an output"):
        decoder("segmentation", floats(*shape))


def test_shares_and_names_of_classes():
    classes = np.array([[0, 0, 1, 1], [0, 7, NOT_SEEN, NOT_SEEN]], np.uint8)
    value = SegmentationMap(classes, ("road", "sky"))
    assert value.shares() == {0: 3 / 8, 1: 2 / 8, 7: 1 / 8, NOT_SEEN: 2 / 8}
    assert [value.name(i) for i in (0, 1, 7, NOT_SEEN)] == ["road", "sky", "7", "not seen"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            (ClassScore(1, "b", 0.75), ClassScore(0, "a", 0.25)),
            [
                {"index": 1, "label": "b", "score": 0.75},
                {"index": 0, "label": "a", "score": 0.25},
            ],
        ),
        (
            SegmentationMap(np.array([[0, 0, 1]], np.uint8), ("sky",)),
            {"height": 1, "width": 3, "shares": {"sky": 0.666667, "1": 0.333333}},
        ),
        (np.array([[1.5, 2]], np.float32), [[1.5, 2.0]]),
        (np.float32(0.5), 0.5),
        (np.array([np.nan, 1], np.float32), [None, 1.0]),
        ({"boxes": np.arange(2)}, {"boxes": [0, 1]}),
        (None, None),
        (object, "<class 'object'>"),
    ],
    ids=["classes", "class map", "array", "number", "nan", "nested", "none", "other"],
)
def test_to_json_forms(value, expected):
    assert json.loads(to_json(value)) == expected
