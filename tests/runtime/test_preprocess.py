import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.runtime.backends.litert import Backend
from edgekit.runtime.preprocess import Preprocessor, preprocessors, readings_of
from edgekit.specs import PRESETS, Preprocess, TensorSpec

DTYPES = {
    "float32": ("float32", None, None),
    "uint8": ("uint8", 1.0, 0),
    "uint8_fine": ("uint8", 0.0183, 116),
    "int8": ("int8", 1.0, -128),
    "int8_unit": ("int8", 1 / 255, -128),
    "int8_signed": ("int8", 1 / 127.5, -1),
    "int8_imagenet": ("int8", 0.0187, -14),
    "int8_caffe": ("int8", 1.07, -11),
    "int16": ("int16", 0.001, 0),
}
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
}


def random_frame(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def input_spec(height, width, channels=3, layout="nhwc", dtype="float32"):
    shape = (1, height, width, channels) if layout == "nhwc" else (1, channels, height, width)
    return TensorSpec("input", shape, *DTYPES[dtype])


def placed(outer_height, outer_width, height, width):
    """Return top, left, rows, columns of the largest centred part with the ratio height:width."""
    scale = min(outer_height / height, outer_width / width)
    rows = min(outer_height, max(1, round(height * scale)))
    columns = min(outer_width, max(1, round(width * scale)))
    return (outer_height - rows) // 2, (outer_width - columns) // 2, rows, columns


def resized(frame, height, width, preprocess):
    """Resize as the words of `Preprocess` say, in plain steps."""
    how = INTERPOLATIONS[preprocess.interpolation]
    if frame.shape[:2] == (height, width):
        return frame
    if preprocess.resize == "letterbox":
        top, left, rows, columns = placed(height, width, *frame.shape[:2])
        whole = np.full((height, width, *frame.shape[2:]), preprocess.pad, np.uint8)
        part = cv2.resize(frame, (columns, rows), interpolation=how)
        whole[top : top + rows, left : left + columns] = part
        return whole
    if preprocess.resize == "center_crop":
        top, left, rows, columns = placed(*frame.shape[:2], height, width)
        frame = np.ascontiguousarray(frame[top : top + rows, left : left + columns])
    return cv2.resize(frame, (width, height), interpolation=how)


def reference(frame, preprocess, spec):
    """Return what the model should see: plain floating point, then quantization."""
    height, width = preprocess.size
    frame = np.ascontiguousarray(frame)
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if frame.ndim == 3:
        frame = np.ascontiguousarray(frame[:, :, :3])
    image = resized(frame, height, width, preprocess)
    if preprocess.color == "gray":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
        image = image[..., None]
    else:
        image = np.dstack([image] * 3) if image.ndim == 2 else image
        image = image[..., ::-1] if preprocess.color == "rgb" else image
    real = (image * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    if preprocess.layout == "nchw":
        real = np.moveaxis(real, -1, 0)
    if spec.scale is None:
        return real[None].astype(np.float32)
    limits = np.iinfo(spec.dtype)
    quantized = np.rint(real / spec.scale) + spec.zero_point
    return np.clip(quantized, limits.min, limits.max)[None]


def check(frame, preprocess, spec):
    complete = preprocess.for_input(spec)
    out = np.full(spec.shape, 99, spec.dtype)
    Preprocessor(complete, spec)(frame, out)
    expected = reference(frame, complete, spec)
    if spec.scale is None:
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_into_every_input(preset, dtype, color, layout):
    preprocess = msgspec.structs.replace(PRESETS[preset], color=color)
    spec = input_spec(17, 23, layout=layout, dtype=dtype)
    check(random_frame(31, 45), preprocess, spec)


@pytest.mark.parametrize("preset", ["raw", "unit", "signed"])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_grey_input(dtype, layout, preset):
    spec = input_spec(17, 23, 1, layout, dtype)
    check(random_frame(31, 45), PRESETS[preset], spec)


@pytest.mark.parametrize(
    "frame", [(9, 13), (64, 48), (48, 64), (17, 23), (1, 1), (200, 3)], ids=str
)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
def test_every_way_to_resize(resize, interpolation, frame):
    preprocess = Preprocess(resize=resize, interpolation=interpolation, pad=114)
    check(random_frame(*frame), preprocess, input_spec(17, 23, dtype="int8"))


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "center_crop"])
@pytest.mark.parametrize("size", [(17, 23), (40, 30)], ids=["same", "other"])
@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_grey_colour_and_bgra_frames(channels, size, resize, color):
    spec = input_spec(17, 23, 1 if color == "gray" else 3, dtype="int8_imagenet")
    check(
        random_frame(*size, channels), Preprocess(scale=1 / 255, resize=resize, color=color), spec
    )


@pytest.mark.parametrize("dtype", ["int8", "int8_imagenet", "float32"])
@pytest.mark.parametrize("size", [(17, 23), (40, 30)], ids=["same", "other"])
@pytest.mark.parametrize(
    "view",
    [
        lambda big: big[::2, ::2],
        lambda big: big[::-1, ::2],
        lambda big: big[::2, ::-2],
        lambda big: big[1::2, 1::2, ::-1],
        lambda big: np.asfortranarray(big[::2, ::2]),
        lambda big: np.broadcast_to(big[:1, :1], big[::2, ::2].shape),
    ],
    ids=["steps", "upside down", "mirrored", "reversed channels", "fortran", "broadcast"],
)
def test_frames_of_any_memory_layout(view, size, dtype):
    frame = view(random_frame(2 * size[0], 2 * size[1]))
    assert not frame.flags.c_contiguous
    check(frame, Preprocess(), input_spec(17, 23, dtype=dtype))


@settings(max_examples=150, deadline=None)
@given(
    frame=st.tuples(st.integers(1, 70), st.integers(1, 70), st.sampled_from([0, 1, 3, 4])),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    color=st.sampled_from(["rgb", "bgr", "gray"]),
    layout=st.sampled_from(["nhwc", "nchw"]),
    resize=st.sampled_from(["stretch", "letterbox", "center_crop"]),
    interpolation=st.sampled_from(sorted(INTERPOLATIONS)),
    dtype=st.sampled_from(sorted(DTYPES)),
    scale=st.sampled_from([1.0, 1 / 255, 1 / 127.5, -1 / 255, 0.5]),
    mean=st.floats(-2, 2, width=32),
    std=st.floats(0.125, 3, width=32),
    pad=st.integers(0, 255),
)
def test_any_combination_is_what_plain_arithmetic_gives(
    frame, size, color, layout, resize, interpolation, dtype, scale, mean, std, pad
):
    # A width of 1 or 3 could make [1, h, w, c] look like channels first, and the reverse.
    if layout == "nchw" and size[1] in (1, 3):
        size = (size[0], 2)
    channels = 1 if color == "gray" else 3
    preprocess = Preprocess(None, resize, interpolation, color, scale, (mean,), (std,), layout, pad)
    check(random_frame(*frame), preprocess, input_spec(*size, channels, layout, dtype))


@pytest.mark.parametrize(
    ("preset", "dtype"),
    [
        ("raw", ("uint8", 1.0, 0)),  # identity
        ("raw", ("int8", 1.0, -128)),  # XOR
        ("unit", ("int8", 1 / 255, -128)),  # XOR
        ("unit", ("uint8", 1 / 255, 0)),  # identity
        ("raw", ("uint8", None, None)),
    ],
)
def test_shortcuts_need_no_table_and_equal_it(preset, dtype, monkeypatch):
    spec = TensorSpec("input", (1, 16, 16, 3), *dtype)
    preprocessor = Preprocessor(PRESETS[preset].for_input(spec), spec)
    looked_up = []
    monkeypatch.setattr(cv2, "LUT", lambda *given, **named: looked_up.append(given))
    out = np.empty(spec.shape, spec.dtype)
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    preprocessor(np.dstack([ramp] * 3), out)
    assert not looked_up
    expected = spec.quantize(ramp * PRESETS[preset].scale)
    for channel in range(3):
        np.testing.assert_array_equal(out[0, :, :, channel], expected)


def test_the_result_lands_in_the_given_memory():
    spec = input_spec(8, 8, dtype="int8_imagenet")
    preprocessor = Preprocessor(PRESETS["imagenet"].for_input(spec), spec)
    memory = np.zeros((3, *spec.shape), np.int8)
    preprocessor(random_frame(20, 20), memory[1])
    assert memory[1].any()
    assert not memory[0].any()
    assert not memory[2].any()


@pytest.mark.parametrize("preset", ["raw", "unit", "imagenet"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_result_lands_in_litert_itself(precision, preset, request):
    path = request.path.parent.parent / "assets" / f"classifier_{precision}.tflite"
    frame = random_frame(33, 21)
    with Backend(path, 1) as backend:
        spec = backend.inputs[0]
        complete = PRESETS[preset].for_input(spec)
        preprocessor = Preprocessor(complete, spec)
        backend.input_buffer(0)[...] = 1
        preprocessor(frame, backend.input_buffer(0))
        seen = backend.input_buffer(0).copy()
        outputs = [np.empty(o.shape, o.dtype) for o in backend.outputs]
        backend.run(outputs)  # LiteRT refuses while anyone holds the input
    expected = reference(frame, complete, spec)
    np.testing.assert_allclose(seen, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("same_object", [True, False])
def test_frames_are_left_as_they_are_and_calls_are_independent(same_object):
    spec = input_spec(17, 23, dtype="int8")
    shared = Preprocessor(Preprocess(resize="letterbox").for_input(spec), spec)
    for seed, size in enumerate([(40, 10), (10, 40), (17, 23), (40, 10)]):
        frame = random_frame(*size, seed=seed)
        before = frame.copy()
        out = np.empty(spec.shape, spec.dtype)
        use = shared if same_object else Preprocessor(shared.preprocess, spec)
        use(frame, out)
        np.testing.assert_array_equal(frame, before)
        np.testing.assert_array_equal(out, reference(frame, shared.preprocess, spec))


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("dtype", ["float32", "int8_imagenet"])
def test_float_arrays_are_model_inputs_already(dtype, kind, batched):
    spec = input_spec(4, 5, dtype=dtype)
    values = np.random.default_rng(0).normal(size=spec.shape).astype(kind)
    out = np.empty(spec.shape, spec.dtype)
    preprocessor = Preprocessor(PRESETS["imagenet"].for_input(spec), spec)
    preprocessor(values if batched else values[0], out)
    np.testing.assert_array_equal(out, spec.quantize(values))


def test_arrays_of_the_inputs_own_integers_are_taken_as_they_are():
    spec = input_spec(4, 5, dtype="int8")
    values = np.arange(-30, 30, dtype=np.int8).reshape(4, 5, 3)
    out = np.empty(spec.shape, np.int8)
    Preprocessor(Preprocess().for_input(spec), spec)(values, out)
    np.testing.assert_array_equal(out[0], values)


@pytest.mark.parametrize("dtype", ["float32", "int8_unit"])
def test_bytes_for_an_input_that_is_no_image_are_scaled_one_by_one(dtype):
    spec = TensorSpec("rows", (1, 7, 9), *DTYPES[dtype])
    preprocessor = Preprocessor(PRESETS["unit"].for_input(spec), spec)
    values = random_frame(7, 9, 0)
    out = np.empty(spec.shape, spec.dtype)
    preprocessor(values, out)
    expected = spec.quantize(values[None] / 255)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("dtype", ["float32", "int8_unit"])
@pytest.mark.parametrize("text", ["scale=1/255", "mean=1:20:3,std=0.5:200:4", "mean=7,std=2:3:4"])
def test_what_is_no_image_is_scaled_feature_by_feature_floats_too(kind, dtype, text):
    spec = TensorSpec("steps", (1, 5, 3), *DTYPES[dtype])
    preprocess = Preprocess.parse(text).for_input(spec)
    values = np.random.default_rng(0).integers(0, 256, (5, 3)).astype(kind)
    out = np.empty(spec.shape, spec.dtype)
    Preprocessor(preprocess, spec)(values, out)
    real = (values * preprocess.scale - np.array(preprocess.mean)) / np.array(preprocess.std)
    np.testing.assert_allclose(out[0], spec.quantize(real), rtol=1e-6)
    again = np.empty_like(out)
    Preprocessor(preprocess, spec)(readings_of(preprocess, real.astype(np.float32)), again)
    np.testing.assert_allclose(again, out, rtol=1e-4, atol=1e-4)


def test_of_numbers_only_the_first_input_is_scaled():
    first, further = (TensorSpec(name, (1, 2), "float32") for name in "ab")
    preprocess = Preprocess.parse("mean=1:2,std=10").for_input(first)
    results = []
    for prepare in preprocessors(preprocess, (first, further)):
        results.append(np.empty((1, 2), np.float32))
        prepare(np.array([11, 22], np.float32), results[-1])
    assert [result.tolist() for result in results] == [[[1, 2]], [[11, 22]]]


@pytest.mark.parametrize(
    "shape", [(1, 4), (1, 9, 9, 3), (1, 3, 8, 8)], ids=["vector", "other size", "other layout"]
)
def test_a_further_input_of_another_kind_takes_its_arrays_as_they_are(shape):
    picture = PRESETS["imagenet"].for_input(input_spec(8, 8))
    spec = TensorSpec("further", shape, "float32")
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    out = np.empty(shape, np.float32)
    Preprocessor(picture, spec)(values, out)
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (np.zeros((8, 8, 3), np.int32), "int32"),
        (np.zeros((8, 8, 3), np.uint16), "uint16"),
        (np.zeros((8, 8, 3), bool), "bool"),
        (np.zeros((8, 8, 3), object), "object"),
        (np.zeros((8, 8, 2), np.uint8), r"got \[8, 8, 2\]"),
        (np.zeros((1, 8, 8, 3), np.uint8), r"got \[1, 8, 8, 3\]"),
        (np.zeros(8, np.uint8), r"got \[8\]"),
        (np.zeros((), np.uint8), r"got \[\]"),
        (np.zeros((0, 8, 3), np.uint8), r"got \[0, 8, 3\]"),
        (np.zeros((9, 8, 3), np.float32), r"takes \[8, 8, 3\]; got an array \[9, 8, 3\]"),
        (np.zeros((8, 8), np.float32), r"takes \[8, 8, 3\]"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        ([[1, 2], [3, 4]], "got list"),
        ("frame.jpg", "got str"),
        (None, "got NoneType"),
    ],
    ids=lambda given: str(getattr(given, "dtype", "")),
)
def test_what_is_no_frame_is_refused(frame, says):
    spec = input_spec(8, 8, dtype="int8")
    preprocessor = Preprocessor(Preprocess().for_input(spec), spec)
    with pytest.raises(DataError, match=says) as caught:
        preprocessor(frame, np.empty(spec.shape, np.int8))
    assert "\n" not in str(caught.value)


def test_nan_passes_into_a_float_model_where_the_outputs_will_show_it():
    spec = input_spec(2, 2)
    out = np.zeros(spec.shape, np.float32)
    Preprocessor(Preprocess().for_input(spec), spec)(np.full((2, 2, 3), np.nan), out)
    assert np.isnan(out).all()


@settings(max_examples=100, deadline=None)
@given(*[st.integers(1, 300)] * 4)
def test_letterbox_and_centre_crop_are_centred_and_as_large_as_can_be(height, width, rows, columns):
    spec = TensorSpec("input", (1, rows, columns, 3), "float32")
    for resize, outer, ratio in (
        ("letterbox", (rows, columns), (height, width)),
        ("center_crop", (height, width), (rows, columns)),
    ):
        preprocess = Preprocess(size=(rows, columns), resize=resize)
        region = Preprocessor(preprocess, spec).region(height, width)
        lengths = [part.stop - part.start for part in region]
        for part, length, available in zip(region, lengths, outer, strict=True):
            assert 0 <= part.start < part.stop <= available
            assert abs(part.start - (available - part.stop)) <= 1
            assert length >= 1
        assert any(length == available for length, available in zip(lengths, outer, strict=True))
        # The aspect ratio is kept to the rounding of one side.
        scale = min(outer[0] / ratio[0], outer[1] / ratio[1])
        assert all(abs(n - max(1, r * scale)) <= 0.501 for n, r in zip(lengths, ratio, strict=True))


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_float16_input_holds_the_float32_values_rounded(layout, channels):
    text = "imagenet" if channels == 3 else "scale=1/255,mean=0.4,std=0.2"
    inputs = []
    for dtype in ("float32", "float16"):
        spec = msgspec.structs.replace(input_spec(9, 11, channels, layout), dtype=dtype)
        inputs.append(np.empty(spec.shape, dtype))
        preprocess = Preprocess.parse(text).for_input(spec)
        Preprocessor(preprocess, spec)(random_frame(23, 17), inputs[-1])
    assert np.array_equal(inputs[0].astype(np.float16), inputs[1])
