"""Trained models to .tflite in every precision, compared with what they answer themselves."""

import numpy as np
import pytest

from edgekit.errors import DataError, ModelError, UsageError
from edgekit.runtime.tflite import describe_tflite

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
litert = pytest.importorskip("ai_edge_litert.interpreter")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402

layers = keras.layers
# Largest error allowed, as a part of the largest output.
TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "dynamic": 0.05, "int8": 0.08}


def mobilenet_like():
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 1)(x)
    x = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, layers.Softmax(name="classes")(x))


def residual():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same")(image)
    y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(4)(layers.Flatten()(x)))


def unet_like():
    image = keras.Input((16, 16, 3), name="image")
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    b = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    up = layers.Conv2DTranspose(8, 2, strides=2)(b)
    x = layers.Concatenate()([a, up])
    return keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(x))


def unrolled():
    rows = keras.Input((4, 6), name="rows")
    return keras.Model(rows, layers.Dense(3)(layers.SimpleRNN(5, unroll=True)(rows)))


def two_in_two_out():
    left = keras.Input((8, 8, 1), name="left")
    right = keras.Input((5,), name="right")
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(left))
    x = layers.Concatenate()([x, layers.Dense(6, activation="relu")(right)])
    outputs = {"score": layers.Dense(3)(x), "box": layers.Dense(4, activation="sigmoid")(x)}
    return keras.Model({"right": right, "left": left}, outputs)


def lstm():
    rows = keras.Input((12, 6), name="rows")
    return keras.Model(rows, layers.Dense(3)(layers.LSTM(8)(rows)))


MODELS = {f.__name__: f for f in (mobilenet_like, residual, unet_like, two_in_two_out, unrolled)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Each model once, as a source; freezing is what takes the time."""
    opened = {}

    def get(name):
        if name not in opened:
            keras.utils.set_random_seed(1)
            model = {**MODELS, "lstm": lstm}[name]()
            opened[name] = open_source(model, scratch=tmp_path_factory.mktemp("scratch"))
        return opened[name]

    return get


def samples(source, count=24, seed=0):
    rng = np.random.default_rng(seed)
    return [
        tuple(rng.random(spec.shape, np.float32) for spec in source.inputs) for _ in range(count)
    ]


def run(content, sample):
    """Run a .tflite on float inputs; return its outputs as float, in its order."""
    description = describe_tflite(content, "model")
    interpreter = litert.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    pairs = zip(interpreter.get_input_details(), description.inputs, sample, strict=True)
    for detail, spec, array in pairs:
        interpreter.set_tensor(detail["index"], spec.quantize(array))
    interpreter.invoke()
    pairs = zip(interpreter.get_output_details(), description.outputs, strict=True)
    return [spec.dequantize(interpreter.get_tensor(d["index"])) for d, spec in pairs]


def assert_parity(source, content, precision):
    for sample in samples(source, 4):
        expected = source.predict(sample)
        got = run(content, sample)
        assert [g.shape for g in got] == [e.shape for e in expected]
        for g, e in zip(got, expected, strict=True):
            assert np.abs(g - e).max() <= TOLERANCE[precision] * np.abs(e).max()


@pytest.mark.parametrize("precision", list(TOLERANCE))
@pytest.mark.parametrize("name", list(MODELS))
def test_every_precision_answers_as_the_source_does(sources, name, precision):
    source = sources(name)
    calibration = (lambda: iter(samples(source))) if precision == "int8" else None
    emitted = emit(source, precision, calibration)
    assert emitted.fallbacks == () or precision == "dynamic"
    description = describe_tflite(emitted.content, name)
    wanted = "int8" if precision == "int8" else "float32"
    assert {t.dtype for t in (*description.inputs, *description.outputs)} == {wanted}
    assert [t.name for t in description.inputs] == [t.name for t in source.inputs]
    assert_parity(source, emitted.content, precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic"])
def test_float_lstm_keeps_its_loop(sources, precision):
    source = sources("lstm")
    emitted = emit(source, precision, None)
    assert describe_tflite(emitted.content, "lstm").subgraphs > 1
    assert_parity(source, emitted.content, precision)


def test_int8_loop_is_refused_before_the_converter_ends_the_process(sources, tmp_path):
    path = tmp_path / "lstm.tflite"
    path.write_bytes(emit(sources("lstm"), "fp32", None).content)
    source = open_source(path, scratch=tmp_path)
    with pytest.raises(ModelError, match="fp32, fp16 or dynamic"):
        emit(source, "int8", lambda: iter(samples(source)))


def test_recurrent_saved_model_of_open_batch_says_what_to_do(tmp_path):
    lstm().export(tmp_path / "m", verbose=False)
    source = open_source(tmp_path / "m", scratch=tmp_path)
    with pytest.raises(ModelError, match="batch 1, or give the .keras file"):
        emit(source, "fp32", None)


def test_dynamic_reports_weights_too_small_to_quantize(tmp_path):
    rows = keras.Input((64,), name="rows")
    large = open_source(keras.Model(rows, layers.Dense(32)(rows)), scratch=tmp_path)
    assert emit(large, "dynamic", None).fallbacks == ()
    rows = keras.Input((4,), name="rows")
    tiny = open_source(keras.Model(rows, layers.Dense(3)(rows)), scratch=tmp_path)
    assert [f.what for f in emit(tiny, "dynamic", None).fallbacks] == ["all weights"]


def test_int8_weights_are_per_channel(sources):
    source = sources("residual")
    emitted = emit(source, "int8", lambda: iter(samples(source)))
    tensors = describe_tflite(emitted.content, "residual").tensors
    assert any(t.is_per_channel and t.constant_bytes for t in tensors)


def test_operators_without_int8_kernel_are_reported(tmp_path):
    rows = keras.Input((8,), name="rows")
    x = layers.Dense(6)(rows)
    model = keras.Model(rows, layers.Dense(2)(keras.ops.sin(x)))
    source = open_source(model, scratch=tmp_path)
    emitted = emit(source, "int8", lambda: iter(samples(source)))
    assert [f.what.split()[0] for f in emitted.fallbacks] == ["SIN"]
    assert "float" in emitted.fallbacks[0].reason
    assert_parity(source, emitted.content, "int8")


def test_operators_that_litert_lacks_are_named(tmp_path):
    rows = keras.Input((8,), name="rows")
    source = open_source(keras.Model(rows, keras.ops.arcsinh(rows)), scratch=tmp_path)
    with pytest.raises(ModelError, match="(?i)asinh") as caught:
        emit(source, "fp32", None)
    assert "\n" not in str(caught.value)


def test_integer_inputs_stay_integers(tmp_path):
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Flatten()(layers.Embedding(20, 4)(words))
    source = open_source(keras.Model(words, layers.Dense(3)(x)), scratch=tmp_path)
    rng = np.random.default_rng(0)
    data = [(rng.integers(0, 20, (1, 6), np.int32),) for _ in range(16)]
    emitted = emit(source, "int8", lambda: iter(data))
    description = describe_tflite(emitted.content, "words")
    assert [t.dtype for t in description.inputs] == ["int32"]
    assert [t.dtype for t in description.outputs] == ["int8"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic", "int8"])
@pytest.mark.parametrize("name", ["mobilenet_like", "unet_like", "two_in_two_out"])
def test_float_tflite_as_source(sources, tmp_path, name, precision):
    path = tmp_path / "model.tflite"
    path.write_bytes(emit(sources(name), "fp32", None).content)
    source = open_source(path, scratch=tmp_path)
    assert source.kind == "tflite"
    for sample in samples(source, 2):
        for a, b in zip(source.predict(sample), sources(name).predict(sample), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    calibration = (lambda: iter(samples(source))) if precision == "int8" else None
    emitted = emit(source, precision, calibration)
    if precision == "int8":
        description = describe_tflite(emitted.content, name)
        assert {t.dtype for t in (*description.inputs, *description.outputs)} == {"int8"}
        assert any(t.is_per_channel for t in description.tensors)
        assert emitted.fallbacks == ()
    assert_parity(source, emitted.content, precision)


def test_quantized_tflite_stays_what_it_is(sources, tmp_path):
    original = sources("residual")
    path = tmp_path / "int8.tflite"
    path.write_bytes(emit(original, "int8", lambda: iter(samples(original))).content)
    source = open_source(path, scratch=tmp_path)
    for precision in ("fp32", "fp16", "dynamic"):
        with pytest.raises(ModelError, match="int8 already"):
            emit(source, precision, None)
    kept = emit(source, "int8", None)
    assert kept.content == path.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "dynamic"])
def test_tflite_knows_its_own_precision(tmp_path, precision):
    rows = keras.Input((64,), name="rows")
    model = open_source(keras.Model(rows, layers.Dense(32)(rows)), scratch=tmp_path)
    path = tmp_path / "m.tflite"
    path.write_bytes(emit(model, precision, None).content)
    source = open_source(path, scratch=tmp_path)
    assert source.precision == precision
    assert emit(source, precision, None).content == path.read_bytes()


def test_int8_needs_calibration(sources):
    with pytest.raises(UsageError, match="--data"):
        emit(sources("residual"), "int8", None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([], "empty"),
        ([(np.zeros((1, 4, 4, 3), np.float32),)], "sample 1 .*shape"),
        ([(np.full((1, 16, 16, 3), np.nan, np.float32),)], "NaN"),
        ([(np.zeros((1, 16, 16, 3), np.float32),) * 2], "takes 1 inputs; got 2"),
    ],
)
def test_calibration_that_does_not_fit(sources, data, says):
    with pytest.raises(DataError, match=says):
        emit(sources("residual"), "int8", lambda: iter(data))


def test_unknown_precision(sources):
    with pytest.raises(UsageError, match="fp32, fp16, dynamic, int8"):
        emit(sources("residual"), "int4", None)


def test_progress_counts_calibration(sources):
    seen = []
    source = sources("residual")
    emit(source, "int8", lambda: iter(samples(source, 5)), lambda *event: seen.append(event))
    phases = list(dict.fromkeys(phase for phase, _, _ in seen))
    assert phases == ["read samples", "equalize", "round and correct", "convert", "calibrate"]
    assert ("calibrate", 5, 0) in seen
