"""Outputs of 16 bits of an int8 model: whose they are, what they gain, and how they are refused."""

import numpy as np
import pytest

import edgekit
from edgekit.bundle import read_bundle
from edgekit.errors import ModelError, UsageError
from edgekit.runtime.tflite import describe_tflite

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.converters.formats import litert, onnx  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402

layers = keras.layers
RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(48, 32, 32, 3)).astype(np.float32)


def model(*behind, classes=3, head=None):
    """Return a net whose last layer is 0.05 % of its multiplications for 3 classes."""
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.GlobalAveragePooling2D(name="pool", keepdims=head is not None)(x)
    x = (head or layers.Dense(classes, name="logits"))(x)
    for layer in behind:
        x = layer(x)
    return keras.Model(image, x)


def emitted(net, tmp_path, bits=None, data=DATA, **settings):
    source = open_source(net, scratch=tmp_path)

    def samples():
        return ((one[None],) for one in data)

    return litert.emit(source, "int8", samples, int8_steps=(), output_bits=bits, **settings)


def outputs_of(content):
    return [one.dtype for one in describe_tflite(content, "model").outputs]


@pytest.mark.parametrize(
    ("net", "wide"),
    [
        (model, ["logits"]),
        (lambda: model(layers.Softmax(name="soft")), ["logits", "soft"]),
        (lambda: model(layers.Activation("sigmoid", name="s")), ["logits", "s"]),
        (lambda: model(layers.Reshape((3, 1), name="shape")), ["logits", "shape"]),
        (
            lambda: model(layers.Flatten(name="flat"), head=layers.Conv2D(3, 1, name="logits")),
            ["logits", "flat"],
        ),
    ],
    ids=["dense", "softmax", "sigmoid", "reshape", "convolution of one place"],
)
def test_a_small_last_layer_gives_int16(net, wide, tmp_path):
    done = emitted(net(), tmp_path)
    description = describe_tflite(done.content, "model")
    assert [one.dtype for one in description.outputs] == ["int16"]
    assert [one.dtype for one in description.inputs] == ["int8"]
    assert done.twin.wide == tuple(wide) and done.fallbacks == ()
    assert f"outputs of 16 bits, by {', '.join(wide)} in int16; --output-bits 8" in done.notes[-1]
    assert "FLOAT" not in {tensor.dtype.upper()[:5] for tensor in description.tensors}


@pytest.mark.parametrize(
    "net",
    [
        lambda: model(classes=300),
        lambda: model(layers.LeakyReLU(name="leaky")),
        lambda: keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3)]),
    ],
    ids=["a large one", "another layer behind", "a map"],
)
def test_other_outputs_stay_int8(net, tmp_path):
    done = emitted(net(), tmp_path)
    assert outputs_of(done.content) == ["int8"] and done.twin.wide == ()


def test_only_the_outputs_that_qualify_are_wide(tmp_path):
    """What is read again must stay on the grid of its readers."""
    keras.utils.set_random_seed(3)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, padding="same", activation="relu", name="stem")(image)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    one, other = layers.Dense(3, name="one")(pooled), layers.Dense(2, name="other")(pooled)
    done = emitted(keras.Model(image, [one, layers.Softmax(name="soft")(one), other, x]), tmp_path)
    assert outputs_of(done.content) == ["int8", "int8", "int16", "int8"]
    assert done.twin.wide == ("other",)


def test_outputs_are_nearer_to_the_float_model(tmp_path):
    net = model()
    images = np.tile(RNG.normal(size=(64, 1, 1, 3)), (1, 32, 32, 1)).astype(np.float32)
    wanted, noise = net.predict(images, verbose=0), {}
    for bits in (8, 16):
        content = emitted(net, tmp_path, bits, data=images).content
        noise[bits] = float(((run(content, images) - wanted) ** 2).mean())
    assert noise[16] < 0.9 * noise[8], noise


def test_there_is_room_for_logits_that_the_calibration_set_does_not_have(tmp_path):
    net = model()
    seen = np.abs(net.predict(DATA, verbose=0)).max()
    for bits, least, most in ((8, 0.9, 1.1), (16, 3.6, 4.4)):
        spec = describe_tflite(emitted(net, tmp_path, bits).content, "model").outputs[0]
        info = np.iinfo(spec.dtype)
        ends = spec.dequantize(np.array([info.min, info.max], spec.dtype))
        assert least * seen < np.abs(ends).max() < most * seen


def run(content, images):
    from ai_edge_litert.interpreter import Interpreter

    description = describe_tflite(content, "model")
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(taken["index"], description.inputs[0].quantize(image[None]))
        interpreter.invoke()
        value = interpreter.get_tensor(given["index"])
        rows.append(description.outputs[0].dequantize(value)[0])
    return np.array(rows)


def test_8_bits_and_16_can_be_asked_for(tmp_path):
    assert outputs_of(emitted(model(), tmp_path, 8).content) == ["int8"]
    assert outputs_of(emitted(model(classes=300), tmp_path, 16).content) == ["int16"]
    with pytest.raises(ModelError, match="`output_bits` 16: no output of this model is made by"):
        emitted(model(layers.LeakyReLU()), tmp_path, 16)


def test_a_table_can_keep_the_last_layer_int8_or_float(tmp_path):
    table = emitted(model(), tmp_path).table
    assert table.precisions == {}
    for chosen, dtype in (("int8", "int8"), ("fp32", "int8"), ("int16x8", "int16")):
        table.precisions["logits"] = chosen
        done = emitted(model(), tmp_path, ranges=table)
        assert outputs_of(done.content) == [dtype], chosen
        assert [one.what for one in done.fallbacks] == (
            ["FULLY_CONNECTED logits"] if chosen == "fp32" else []
        )


def test_a_table_that_keeps_a_layer_int8_says_nothing_to_onnx(tmp_path):
    pytest.importorskip("tf2onnx")
    table = emitted(model(), tmp_path).table
    table.precisions["logits"] = "int8"
    source = onnx.fitted(open_source(model(), scratch=tmp_path))
    pictures = DATA.transpose(0, 3, 1, 2)
    done = onnx.emit(
        source, "int8", lambda: ((one[None],) for one in pictures), int8_steps=(), ranges=table
    )
    assert done.fallbacks == ()


def test_a_bundle_with_outputs_of_16_bits_opens_and_answers(tmp_path):
    net = model(layers.Softmax(name="soft"))
    settings = {"precision": "int8", "data": DATA, "labels": ["a", "b", "c"]}
    bundle = edgekit.convert(net, tmp_path / "wide.edgekit", **settings)
    assert bundle.manifest.outputs[0].dtype == "int16"
    with edgekit.open(bundle.path) as opened:
        found = opened(DATA[0])
        assert found.outputs[0].dtype == np.int16
        np.testing.assert_allclose(found.raw[0], net.predict(DATA[:1], verbose=0)[0], atol=0.05)
        assert sum(one.score for one in found.value) == pytest.approx(1, abs=0.01)
    again = tmp_path / "again.edgekit"
    edgekit.convert(net, again, **settings, ranges=bundle.path)
    assert (again / "model.tflite").read_bytes() == bundle.model_path.read_bytes()
    edgekit.convert(net, tmp_path / "narrow.edgekit", **settings, output_bits=8)
    assert read_bundle(tmp_path / "narrow.edgekit").manifest.outputs[0].dtype == "int8"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"precision": "int8", "output_bits": 12}, "`output_bits` must be 8 or 16; got 12"),
        ({"precision": "fp32", "output_bits": 8}, "is about int8 models of litert; got"),
        (
            {"precision": "int8", "format": "onnx", "output_bits": 16},
            "is about int8 models of litert; got `format` onnx",
        ),
    ],
)
def test_bits_that_cannot_be_are_refused(settings, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        edgekit.convert(model(), tmp_path / "x.edgekit", data=DATA, **settings)


def test_bits_that_the_source_decides_are_refused(tmp_path):
    (tmp_path / "done.tflite").write_bytes(emitted(model(), tmp_path).content)
    source = open_source(tmp_path / "done.tflite", scratch=tmp_path)
    assert source.precision == "int8"  # for all that its outputs are int16
    assert litert.emit(source, "int8", None).content == source.content
    with pytest.raises(ModelError, match="`output_bits` cannot be chosen .* is int8 already"):
        litert.emit(source, "int8", None, output_bits=8)
    steps = keras.Input((6, 4))
    recurrent = keras.Model(steps, layers.Dense(2)(layers.LSTM(4)(steps)))
    with pytest.raises(ModelError, match="since recurrent layers give int8: leave it out"):
        litert.emit(open_source(recurrent, scratch=tmp_path), "int8", None, output_bits=16)
