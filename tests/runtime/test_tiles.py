"""Tiles: they say what the whole frame in one piece would, on real networks and engines."""

import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekit
from edgekit.errors import DataError, UsageError
from edgekit.runtime.preprocess import Preprocessor
from edgekit.runtime.tiles import RAMP, Tiles, _axis
from edgekit.specs import Preprocess, TensorSpec

TILE = 96
UNIT = Preprocess.parse("unit,resize=tile")


@st.composite
def axes(draw):
    stride = draw(st.sampled_from([1, 2, 4, 8]))
    side = stride * draw(st.integers(1, 20))
    overlap = stride * draw(st.integers(0, side // stride // 2))
    return draw(st.integers(1, 400)), side, overlap, stride


@settings(deadline=None)
@given(axes())
def test_the_weights_of_every_cell_sum_to_1_and_no_pixel_is_left_out(axis):
    length, side, overlap, stride = axis
    tiles = _axis(*axis)
    cells = -(-length // stride)
    total, covered = np.zeros(cells + side), np.zeros(length + side, bool)
    for start, first, weights in tiles:
        assert start == first * stride
        assert len(weights) == side // stride
        assert weights.min() >= 0
        total[first : first + len(weights)] += weights
        covered[start : start + side] = True
    np.testing.assert_allclose(total[:cells], 1, atol=1e-6)
    assert covered[:length].all()
    if length > side:
        assert 0 <= tiles[-1][0] + side - length < stride  # the last one ends where the frame does
        gaps = np.diff([start for start, _, _ in tiles])
        assert (gaps[:-1] == side - overlap).all()
        assert 0 < gaps[-1] <= side - overlap
        # The outer part of an overlap comes from the tile that has its context.
        for (_, _, weights), share in zip(tiles[1:], gaps, strict=True):
            unused = int((side - share) * (1 - RAMP) / 2 / stride)
            assert (weights[:unused] == 0).all()


@pytest.fixture
def convolutions(tmp_path):
    """Return a function: picture size -> an open network of 6 3x3 convolutions, with a pooling.

    Its weights are the same for every size; the score of a pixel depends on those within 8.
    """
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    import onnx
    from onnx import helper

    from edgekit.runtime.backends.onnxruntime import Backend
    from tests.onnx_graphs import GraphWriter

    opened = []

    def network(height, width, classes=3):
        graph = GraphWriter()
        tensor = graph.input((1, 3, height, width))
        random = np.random.default_rng(3)

        def convolution(tensor, channels, wider):
            weights = random.normal(0, 0.3, (wider, channels, 3, 3)).astype(np.float32)
            made = graph.op("Conv", tensor, graph.constant(weights), pads=[1] * 4)
            return graph.op("Relu", made)

        tensor = convolution(convolution(tensor, 3, 4), 4, 4)
        tensor = graph.op("MaxPool", tensor, kernel_shape=[2, 2], strides=[2, 2])
        tensor = convolution(convolution(tensor, 4, 4), 4, 4)
        scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
        tensor = graph.op("Resize", tensor, "", scales, mode="nearest")
        weights = random.normal(0, 0.3, (classes, 4, 3, 3)).astype(np.float32)
        tensor = graph.op("Conv", tensor, graph.constant(weights), pads=[1] * 4)
        output = helper.make_tensor_value_info(tensor, 1, (1, classes, height, width))
        made = helper.make_graph(graph.nodes, "net", graph.given, [output], graph.stored)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / f"{height}x{width}.onnx"
        onnx.save(model, path)
        opened.append(Backend(path, 1))
        return opened[-1]

    yield network
    for backend in opened:
        backend.close()


REACH = 9  # of a pixel's score; 2 + 1 for the pooling + 2 * 2 + 1 for the enlargement + 1


def inferring(backend, preprocess):
    preprocessor = Preprocessor(preprocess, backend.inputs[0])

    def infer(part):
        preprocessor(part, backend.input_buffer(0))
        output = np.empty(backend.outputs[0].shape, np.float32)
        backend.run([output])
        return output

    return infer


def tiled(backend, frame, overlap):
    preprocess = Preprocess.parse(f"unit,resize=tile,overlap={overlap}")
    preprocess = preprocess.for_input(backend.inputs[0])
    tiles = Tiles("segmentation", preprocess, backend.inputs, backend.outputs)
    return tiles(frame, inferring(backend, preprocess))


def picture(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


ENOUGH = 2 * REACH / (1 - RAMP)  # the unused outer parts of an overlap are then REACH wide


def whole(network, frame):
    backend = network(*frame.shape[:2])
    return inferring(backend, Preprocess(scale=1 / 255).for_input(backend.inputs[0]))(frame)


@pytest.mark.parametrize("size", [(TILE, 160), (150, 164), (200, 98), (300, 130)], ids=str)
def test_tiles_that_overlap_enough_equal_the_whole_frame(convolutions, size):
    frame, overlap = picture(*size), 2 * int(np.ceil(ENOUGH / 2))
    expected = whole(convolutions, frame)
    found = tiled(convolutions(TILE, TILE), frame, overlap)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_the_less_tiles_overlap_the_more_they_differ_and_only_where_they_meet(convolutions):
    frame = picture(TILE, 3 * TILE)
    expected = whole(convolutions, frame)
    tile = convolutions(TILE, TILE)
    noise = []
    for overlap in (0, 4, 8, 16, 24):
        difference = np.abs(tiled(tile, frame, overlap) - expected)
        noise.append(float(np.sqrt((difference**2).mean() / (expected**2).mean())))
        starts = [start for start, _, _ in _axis(3 * TILE, TILE, overlap, 1)]
        near = np.zeros(3 * TILE, bool)
        for left, right in zip(starts, starts[1:], strict=False):
            middle = (left + TILE + right) // 2
            near[middle - 2 * REACH : middle + 2 * REACH] = True
        assert difference[..., ~near].max() < 1e-5 * np.abs(expected).max()
    assert noise == sorted(noise, reverse=True)
    assert noise[0] > 20 * noise[3] > 0


@pytest.mark.parametrize("size", [(40, 30), (30, 200), (1, 1), (5, 300)], ids=str)
def test_frames_smaller_than_a_tile_are_mirrored_where_they_end(convolutions, size):
    frame = picture(*size)
    height, width = size
    tile = convolutions(TILE, TILE)
    down = [abs((row + height - 1) % max(1, 2 * height - 2) - (height - 1)) for row in range(TILE)]
    mirrored = frame[down] if height < TILE else frame
    if width < TILE:
        right = [abs((c + width - 1) % max(1, 2 * width - 2) - (width - 1)) for c in range(TILE)]
        mirrored = mirrored[:, right]
    found = tiled(tile, frame, 36)
    assert found.shape == (1, 3, *size)
    np.testing.assert_array_equal(found, tiled(tile, mirrored, 36)[:, :, :height, :width])


def planted(height, width):
    """Return a frame of blocks that are black, red or white, and the segmenter's classes."""
    classes = np.random.default_rng(1).integers(0, 3, (-(-height // 6), -(-width // 6)))
    classes = classes.repeat(6, 0).repeat(6, 1)[:height, :width].astype(np.uint8)
    return np.array([[0, 0, 0], [0, 0, 255], [255, 255, 255]], np.uint8)[classes], classes


@pytest.mark.parametrize("precision", ["int8", "fp32"])
@pytest.mark.parametrize("size", [(70, 90), (16, 16), (9, 50), (17, 16), (16, 1), (71, 95)])
def test_a_bundle_of_tiles_sees_each_pixel_of_a_large_frame(make_bundle, precision, size):
    """The scores of the tests' segmenter stand for 2x2 pixels; a block has 6x6."""
    bundle = make_bundle(name="segmenter", precision=precision, preprocess="raw,resize=tile")
    frame, classes = planted(*size)
    with edgekit.open(bundle) as model:
        assert model.bundle.manifest.preprocess.overlap == 8
        prediction = model(frame)
        np.testing.assert_array_equal(prediction.value.class_map, classes)
        probabilities = model.probabilities(frame, prediction)
        assert probabilities.shape == (*size, 3)
        nearby = np.ones((3, 3), np.uint8)  # scores are interpolated between cells
        inner = cv2.dilate(classes, nearby) == cv2.erode(classes, nearby)
        np.testing.assert_array_equal(probabilities.argmax(-1)[inner], classes[inner])
        for stage in range(2):  # a small frame after a large one, and the large one again
            np.testing.assert_array_equal(model(frame[:9, :9]).value.class_map, classes[:9, :9])
            np.testing.assert_array_equal(model(frame).value.class_map, classes, str(stage))


def test_raw_scores_are_the_blended_ones_in_real_values(make_bundle):
    bundle = make_bundle(name="segmenter", preprocess="raw,resize=tile,overlap=4")
    frame, _ = planted(40, 30)
    with edgekit.open(bundle) as model:
        spec = model.backend.outputs[0]
        assert (spec.dtype, spec.shape) == ("int8", (1, 8, 8, 3))
        raw = model(frame).raw
        assert (raw.dtype, raw.shape) == (np.float32, (1, 20, 15, 3))
        one = model(np.ascontiguousarray(frame[:16, :16])).raw
        assert one.shape == spec.shape
        np.testing.assert_allclose(raw[:, :6, :6], one[:, :6, :6], atol=1e-6)


def test_a_float_model_input_is_one_tile(make_bundle):
    bundle = make_bundle(name="segmenter", preprocess="raw,resize=tile")
    frame, _ = planted(16, 16)
    with edgekit.open(bundle) as model:
        model(planted(40, 40)[0])
        floats = frame[None, ..., ::-1].astype(np.float32)
        np.testing.assert_array_equal(model(floats).raw, model(frame).raw)
        with pytest.raises(DataError, match=r"takes \[16, 16, 3\]"):
            model(np.zeros((40, 40, 3), np.float32))


def test_a_stream_and_a_profile_run_on_tiles(make_bundle):
    bundle = make_bundle(name="segmenter", preprocess="raw,resize=tile")
    with edgekit.open(bundle) as model:
        results = list(edgekit.stream("test://64x48@60", model, max_frames=3))
        assert [result.value.class_map.shape for result in results] == [(48, 64)] * 3
        measured = edgekit.profile(model, source="test://64x48@60", runs=3)
    assert measured.profiles[0].runs == 3


def test_a_large_frame_takes_the_memory_of_its_scores_and_a_tile(make_bundle):
    bundle = make_bundle(name="segmenter", preprocess="raw,resize=tile")
    frame, _ = planted(240, 320)
    with edgekit.open(bundle) as model:
        model.preprocess(frame)
        model.infer()  # what is kept for frames of this size is there now
        model.preprocess(frame)
        tracemalloc.start()
        scores = model.infer()[0]
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert scores.nbytes == 4 * 3 * 120 * 160
    assert most < scores.nbytes + 32 * 1024


SPEC = TensorSpec("x", (1, 16, 16, 3), "float32")


@pytest.mark.parametrize(
    ("task", "inputs", "output", "text", "message"),
    [
        ("classification", 1, (1, 16, 16, 2), "raw,resize=tile", "needs a `task` segmentation"),
        ("segmentation", 2, (1, 16, 16, 2), "raw,resize=tile", "of 2 and 1"),
        ("segmentation", 1, (1, 10), "raw,resize=tile", "needs a `task` segmentation"),
        ("segmentation", 1, (1, 6, 6, 2), "raw,resize=tile", "do not meet the same cells"),
        ("segmentation", 1, (1, 4, 4, 2), "raw,resize=tile,overlap=6", "do not meet the same cell"),
        ("segmentation", 1, (1, 32, 32, 2), "raw,resize=tile", "do not meet the same cells"),
    ],
)
def test_what_cannot_be_tiled_is_refused(task, inputs, output, text, message):
    preprocess = Preprocess.parse(text).for_input(SPEC)
    outputs = [TensorSpec("y", output, "float32")]
    with pytest.raises(UsageError, match=message) as caught:
        Tiles.of(task, preprocess, [SPEC] * inputs, outputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raw,overlap=8", "is for resize=tile"),
        ("raw,resize=tile,overlap=9", "must be 0 to 8"),
        ("raw,resize=tile,overlap=-2", "cannot be read"),
        ("raw,resize=tile,overlap=x", "cannot be read"),
        ("raw,resize=tile,overlap=1.5", "cannot be read"),
    ],
)
def test_an_overlap_that_cannot_be_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Preprocess.parse(text).for_input(SPEC)


def test_tiles_need_pictures():
    with pytest.raises(UsageError, match="needs a model of pictures"):
        Preprocess.parse("resize=tile").for_input(TensorSpec("x", (1, 10, 7), "float32"))


@pytest.mark.parametrize(
    ("side", "overlap"), [(16, 8), (32, 16), (128, 16), (224, 32), (256, 32), (512, 64), (1, 0)]
)
def test_the_overlap_that_nobody_chose(side, overlap):
    preprocess = UNIT.for_input(TensorSpec("x", (1, side, 2 * side, 3), "float32"))
    assert preprocess.overlap == overlap
    again = Preprocess.parse(preprocess.as_text()).for_input(
        TensorSpec("x", (1, side, 2 * side, 3), "float32")
    )
    assert again == preprocess
