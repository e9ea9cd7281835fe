"""Classes and probabilities at the frame's size, against bilinear sampling by hand."""

import numpy as np
import pytest

from edgekit.runtime.preprocess import Preprocessor
from edgekit.runtime.segmenter import NOT_SEEN, Segmenter
from edgekit.specs import Postprocess, Preprocess, TensorSpec

SIDE = 24


def segmenter(output, resize="stretch", activation="none", layout="nhwc", **choices):
    shape = (1, SIDE, SIDE, 3) if layout == "nhwc" else (1, 3, SIDE, SIDE)
    spec = TensorSpec("x", shape, "float32")
    preprocess = Preprocess(resize=resize).for_input(spec)
    post = Postprocess(activation, upsample="linear", **choices)
    return Segmenter(post, output, Preprocessor(preprocess, spec))


def seen_part(resize, height, width):
    """Return rows and columns of the frame that the model saw, and their place in its input."""
    if resize == "center_crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return (top, top + side, 0, SIDE), (left, left + side, 0, SIDE)
    if resize == "letterbox":
        scale = SIDE / max(height, width)
        rows, columns = round(height * scale), round(width * scale)
        top, left = (SIDE - rows) // 2, (SIDE - columns) // 2
        return (0, height, top, top + rows), (0, width, left, left + columns)
    return (0, height, 0, SIDE), (0, width, 0, SIDE)


def sampled(plane, axis, start, stop, first, last):
    """Return `plane` along an axis at the centres of stop - start pixels of its part first:last."""
    part = np.moveaxis(plane, axis, 0)[first:last]
    at = (np.arange(stop - start) + 0.5) * (last - first) / (stop - start) - 0.5
    at = np.clip(at, 0, last - first - 1)
    low = np.minimum(np.floor(at).astype(int), last - first - 1)
    high = np.minimum(low + 1, last - first - 1)
    share = (at - low).reshape(-1, *[1] * (plane.ndim - 1))
    return np.moveaxis(part[low] * (1 - share) + part[high] * share, 0, axis)


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("size", [(50, 77), (77, 50), (24, 24), (11, 17), (1, 30)], ids=str)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("quantized", [False, True])
def test_classes_are_those_of_the_interpolated_scores(resize, size, layout, classes, quantized):
    random = np.random.default_rng(classes)
    scores = random.integers(-128, 128, (SIDE, SIDE, classes)).astype(np.float64)
    rows, columns = seen_part(resize, *size)
    real = sampled(sampled(scores, 0, *rows), 1, *columns)
    shape = (1, SIDE, SIDE, classes) if layout == "nhwc" else (1, classes, SIDE, SIDE)
    spec = TensorSpec("y", shape, *(("int8", 0.01, 10) if quantized else ("float32",)))
    output = scores[None] if layout == "nhwc" else np.moveaxis(scores, -1, 0)[None]
    threshold = 0.3 if quantized else 40.0  # of class 1, as a real value
    limit = threshold / 0.01 + 10 if quantized else threshold
    found = segmenter(spec, resize, layout=layout, threshold=threshold).classes(
        output.astype(spec.dtype), np.zeros(size, np.uint8)
    )
    assert (found.shape, found.dtype) == (size, np.uint8)
    if classes == 1:
        expected, margin = real[..., 0] >= limit, np.abs(real[..., 0] - limit)
    else:
        best = np.sort(real, axis=-1)
        expected, margin = real.argmax(-1), best[..., -1] - best[..., -2]
    inner = found[rows[0] : rows[1], columns[0] : columns[1]]
    clear = margin > 0.01
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(inner[clear], expected[clear])
    assert (found == NOT_SEEN).sum() == found.size - inner.size


@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_probabilities_are_interpolated_scores_after_the_activation(resize, activation):
    random = np.random.default_rng(0)
    scores = random.uniform(-3, 3, (SIDE, SIDE, 4)).astype(np.float32)
    size = (40, 61)
    read = segmenter(TensorSpec("y", (1, SIDE, SIDE, 4), "float32"), resize, activation)
    found = read.probabilities(scores[None], np.zeros((*size, 3), np.uint8))
    assert (found.shape, found.dtype) == ((*size, 4), np.float32)
    rows, columns = seen_part(resize, *size)
    real = sampled(sampled(scores, 0, *rows), 1, *columns)
    powers = np.exp(real)
    expected = {
        "none": real,
        "softmax": powers / powers.sum(-1, keepdims=True),
        "sigmoid": powers / (1 + powers),
    }[activation]
    inner = found[rows[0] : rows[1], columns[0] : columns[1]]
    np.testing.assert_allclose(inner, expected, atol=1e-4)
    assert np.abs(found).sum() == pytest.approx(np.abs(inner).sum())  # 0 elsewhere


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 1.0])
def test_the_threshold_is_a_probability_of_logits_too(threshold):
    logits = np.linspace(-9, 9, SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE, 1)
    spec = TensorSpec("y", logits.shape, "float32")
    read = segmenter(spec, activation="sigmoid", threshold=threshold)
    frame = np.zeros((SIDE, SIDE), np.uint8)
    probability = read.probabilities(logits, frame)[..., 0]
    np.testing.assert_array_equal(read.classes(logits, frame), probability >= threshold)


def test_of_a_float_model_input_classes_and_probabilities_have_the_outputs_size():
    scores = np.random.default_rng(0).random((1, 6, 8, 3)).astype(np.float32)
    read = segmenter(TensorSpec("y", (1, 6, 8, 3), "float32"), "center_crop")
    frame = np.zeros((1, SIDE, SIDE, 3), np.float32)
    np.testing.assert_array_equal(read.classes(scores, frame), scores[0].argmax(-1))
    np.testing.assert_array_equal(read.probabilities(scores, frame), scores[0])


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop"])
def test_scores_of_cells_larger_than_a_pixel_are_those_at_their_centres(resize):
    """A plane that rises evenly must come out as the plane, but for half a cell at its edges."""
    size, cells = (48, 96), 8
    along = (np.arange(cells) + 0.5) * SIDE / cells
    scores = np.broadcast_to(along[None, :, None], (cells, cells, 1)).astype(np.float32)
    read = segmenter(TensorSpec("y", (1, cells, cells, 1), "float32"), resize)
    found = read.probabilities(scores[None], np.zeros(size, np.uint8))[..., 0]
    _, (start, stop, first, last) = seen_part(resize, *size)
    expected = first + (np.arange(stop - start) + 0.5) * (last - first) / (stop - start)
    inner = np.abs(expected - SIDE / 2) < SIDE / 2 - 2
    np.testing.assert_allclose(
        found[:, start:stop][:, inner],
        np.broadcast_to(expected[inner], (48, inner.sum())),
        atol=0.6,
    )


@pytest.mark.parametrize("upsample", ["linear", "nearest"])
@pytest.mark.parametrize("cells", [SIDE, SIDE // 2])
def test_of_one_tile_of_a_larger_frame_the_rest_is_not_seen(upsample, cells):
    spec = TensorSpec("x", (1, SIDE, SIDE, 3), "float32")
    preprocessor = Preprocessor(Preprocess(resize="tile").for_input(spec), spec)
    output = TensorSpec("y", (1, cells, cells, 2), "float32")
    read = Segmenter(Postprocess(upsample=upsample), output, preprocessor)
    scores = np.zeros(output.shape, np.float32)
    scores[..., 1] = 1
    found = read.classes(scores, np.zeros((50, 20, 3), np.uint8))
    assert (found[:SIDE, :20] == 1).all()
    assert (found[SIDE:] == NOT_SEEN).all()
    assert found.shape == (50, 20)
