import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.specs import KERAS_APPLICATIONS, PRESETS, Preprocess, TensorSpec, class_count

IMAGE = TensorSpec("image", (1, 96, 128, 3), "float32")
PLANES = TensorSpec("planes", (1, 3, 96, 128), "float32")
GREY = TensorSpec("grey", (1, 96, 128, 1), "float32")
NUMBERS = TensorSpec("numbers", (1, 28, 28), "float32")
STEPS = TensorSpec("steps", (1, 7, 4), "float32")
VECTOR = TensorSpec("vector", (1, 4), "float32")
ONE_STEP = TensorSpec("step", (1, 1, 4), "float32")


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("raw", {}),
        ("unit", {"scale": 1 / 255}),
        ("signed", {"scale": 1 / 127.5, "mean": (1.0,)}),
        ("caffe", {"color": "bgr", "mean": (103.939, 116.779, 123.68)}),
        ("scale=1/255", {"scale": 1 / 255}),
        ("scale=0.5", {"scale": 0.5}),
        ("scale=1e-2", {"scale": 0.01}),
        ("mean=1", {"mean": (1.0,)}),
        ("mean=1:2:3,std=1/2:1:2", {"mean": (1.0, 2.0, 3.0), "std": (0.5, 1.0, 2.0)}),
        ("mean=-1", {"mean": (-1.0,)}),
        ("size=96x128", {"size": (96, 128)}),
        ("resize=letterbox,pad=114", {"resize": "letterbox", "pad": 114}),
        (
            "resize=center_crop,interpolation=area",
            {"resize": "center_crop", "interpolation": "area"},
        ),
        ("color=gray,layout=nchw", {"color": "gray", "layout": "nchw"}),
        ("unit,color=bgr", {"scale": 1 / 255, "color": "bgr"}),
        (" unit , color = bgr ", {"scale": 1 / 255, "color": "bgr"}),
        ("keras:resnet50,color=rgb", {"mean": (103.939, 116.779, 123.68)}),
        ("scale=2,scale=3", {"scale": 3.0}),
    ],
)
def test_parse_reads_presets_and_pairs(text, changes):
    assert Preprocess.parse(text) == Preprocess(**changes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "raw, unit"),
        ("imagenett", "imagenet"),
        ("keras:resnet51", "resnet50"),
        ("unit,", "key=value"),
        ("unit,bgr", "'bgr'"),
        ("colour=bgr", "interpolation"),
        ("color=brg", "rgb, bgr, gray"),
        ("resize=crop", "center_crop"),
        ("size=224", "size=HxW"),
        ("size=0x4", "size=HxW"),
        ("size=-1x4", "size=HxW"),
        ("size=1x2x3", "size=HxW"),
        ("pad=256", "pad=0..255"),
        ("pad=grey", "pad=0..255"),
        ("scale=1/0", "scale=1/255"),
        ("scale=nan", "scale=1/255"),
        ("scale=inf", "scale=1/255"),
        ("scale=1e400", "scale=1/255"),
        ("scale=", "scale=1/255"),
        ("std=0", "above 0"),
        ("std=1:-1:1", "above 0"),
        ("std=1e-400", "above 0"),
        ("mean=1:", "mean="),
    ],
)
def test_parse_refuses_in_one_line_that_says_what_there_is(text, says):
    with pytest.raises(UsageError) as caught:
        Preprocess.parse(text)
    assert "`preprocess" in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(alphabet="unitscalemdrz=:,x/0159.e- ", max_size=30))
def test_parse_of_any_text_is_a_preprocess_or_a_usage_error(text):
    try:
        assert isinstance(Preprocess.parse(text), Preprocess)
    except UsageError as error:
        assert "\n" not in str(error)


def test_for_input_takes_the_window_from_the_model_and_keeps_the_hop():
    complete = Preprocess.parse("window=7,hop=3,mean=1:2:3:4,std=0.5").for_input(STEPS)
    assert (complete.window, complete.hop, complete.layout) == (7, 3, "as_is")
    assert complete.for_input(STEPS) == complete
    assert Preprocess().for_input(STEPS).window == 7
    assert Preprocess().for_input(VECTOR).window is None
    assert Preprocess.parse(complete.as_text()).for_input(STEPS) == complete


@pytest.mark.parametrize("preset", [*PRESETS.values(), *KERAS_APPLICATIONS.values()])
def test_presets_survive_the_bundles_json(preset):
    assert msgspec.json.decode(msgspec.json.encode(preset), type=Preprocess) == preset


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (IMAGE, {"size": (96, 128), "layout": "nhwc", "color": "bgr"}),
        (PLANES, {"size": (96, 128), "layout": "nchw", "color": "bgr"}),
        (GREY, {"size": (96, 128), "layout": "nhwc", "color": "gray"}),
        (NUMBERS, {"size": None, "layout": "as_is", "color": "bgr"}),
    ],
)
def test_for_input_takes_size_layout_and_grey_from_the_model(spec, expected):
    complete = Preprocess.parse("color=bgr").for_input(spec)
    assert {key: getattr(complete, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("text", "spec", "says"),
    [
        ("size=224x224", IMAGE, "224x224 is not the model's input 96x128"),
        ("color=gray", IMAGE, "1-channel"),
        ("mean=1:2", IMAGE, "mean has 2 values"),
        ("std=1:2", PLANES, "std has 2 values"),
        ("imagenet", GREY, "mean has 3 values"),
        ("imagenet", NUMBERS, "mean has 3 values"),
        ("std=1:2", STEPS, "std has 2 values; the model's input takes 1 or 4"),
        (
            "window=8",
            STEPS,
            r"window=8 does not fit .* \[1, 7, 4\], which takes windows of 7 steps",
        ),
        ("hop=2", VECTOR, "hop=2 does not fit .* takes no windows"),
        ("hop=2", IMAGE, "hop=2 does not fit .* takes no windows"),
        ("hop=2", ONE_STEP, "hop=2 does not fit .* takes windows of 1 step"),
    ],
)
def test_for_input_refuses_what_the_model_contradicts(text, spec, says):
    with pytest.raises(UsageError, match=says):
        Preprocess.parse(text).for_input(spec)


@pytest.mark.parametrize(
    ("dtype", "scale", "zero_point", "expected"),
    [
        ("int8", 0.5, -3, [-128, -3, -3, -2, -1, 127]),
        ("uint8", 0.5, 10, [0, 10, 10, 11, 12, 255]),
        ("int16", 0.5, 0, [-2000, 0, 0, 1, 2, 2000]),
        ("uint8", None, None, [0, 0, 0, 0, 1, 255]),
        ("int32", None, None, [-1000, 0, 0, 0, 1, 1000]),
        ("float32", None, None, [-1000, 0, 0.25, 0.4, 1, 1000]),
    ],
)
def test_quantize_rounds_and_saturates(dtype, scale, zero_point, expected):
    spec = TensorSpec("t", (6,), dtype, scale, zero_point)
    quantized = spec.quantize(np.array([-1000, 0, 0.25, 0.4, 1, 1000]))
    assert quantized.dtype == dtype
    np.testing.assert_array_equal(quantized, np.array(expected, dtype))


@given(
    st.integers(-128, 127),
    st.floats(1e-4, 10, allow_nan=False),
    st.lists(st.integers(-128, 127), min_size=1, max_size=20),
)
def test_dequantized_codes_quantize_to_themselves(zero_point, scale, codes):
    spec = TensorSpec("t", (len(codes),), "int8", scale, zero_point)
    real = spec.dequantize(np.array(codes, np.int8))
    assert real.dtype == np.float32
    np.testing.assert_array_equal(spec.quantize(real), codes)


@pytest.fixture(scope="module")
def applications():
    from keras import applications

    return applications


@pytest.mark.convert
def test_every_application_of_keras_has_its_preset(applications):
    there = {
        name
        for name in dir(applications)
        if hasattr(getattr(applications, name), "preprocess_input") and name != "imagenet_utils"
    }
    assert set(KERAS_APPLICATIONS) == there


@pytest.mark.convert
@pytest.mark.parametrize("name", KERAS_APPLICATIONS)
def test_keras_preset_is_what_the_application_does(applications, name):
    from edgekit.runtime.preprocess import Preprocessor

    rgb = np.random.default_rng(0).integers(0, 256, (1, 5, 7, 3)).astype(np.uint8)
    expected = getattr(applications, name).preprocess_input(rgb.astype(np.float32))
    spec = TensorSpec("image", rgb.shape, "float32")
    out = np.empty(rgb.shape, np.float32)
    bgr = rgb[0, :, :, ::-1]
    Preprocessor(Preprocess.parse(f"keras:{name}").for_input(spec), spec)(bgr, out)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("task", "shape", "layout", "count"),
    [
        ("classification", (1, 4), "nhwc", 4),
        ("classification", (1, 1), "nhwc", 2),
        ("segmentation", (1, 8, 8, 4), "nhwc", 4),
        ("segmentation", (1, 8, 8, 1), "nhwc", 2),
        ("segmentation", (1, 4, 8, 8), "nchw", 4),
        ("segmentation", (1, 8, 8), "nhwc", 2),
        ("regression", (1, 4), "nhwc", None),
        ("sequence", (1, 7, 4), "as_is", None),
    ],
)
def test_classes_are_counted_along_the_right_axis(task, shape, layout, count):
    assert class_count(task, TensorSpec("y", shape, "float32"), layout) == count
