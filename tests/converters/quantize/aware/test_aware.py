"""Every layer type through quantization-aware training, and what comes out of it."""

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

import edgekit  # noqa: E402
from edgekit.converters.quantize.aware import layers as own_layers  # noqa: E402
from edgekit.converters.quantize.aware.read import is_quantize_aware, trained_table  # noqa: E402
from edgekit.converters.quantize.graph import run  # noqa: E402
from edgekit.converters.quantize.static import Prepared  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.static import _tapped  # noqa: E402
from edgekit.runtime.backends.litert import Backend  # noqa: E402

layers = keras.layers


def conv(channels=6, **settings):
    return layers.Conv2D(channels, 3, padding="same", **settings)


def pair(merge):
    return lambda t: conv(4)(merge()([conv(4)(t), conv(4, activation="relu")(t)]))


def between(layer):
    return lambda t: layers.Conv2D(4, 1)(layer()(conv()(t)))


IMAGE, ROWS, VECTOR = (8, 8, 4), (16, 4), (6,)

CASES = {
    "Conv1D": (lambda t: layers.Conv1D(5, 3, padding="causal", activation="relu")(t), ROWS),
    "Conv2D": (lambda t: conv(activation="relu")(conv(activation="relu6")(t)), IMAGE),
    "grouped": (lambda t: layers.Conv2D(6, 3, groups=2, dilation_rate=2)(t), IMAGE),
    "DepthwiseConv2D": (lambda t: layers.DepthwiseConv2D(3, depth_multiplier=2)(t), IMAGE),
    "SeparableConv1D": (lambda t: layers.SeparableConv1D(5, 3, activation="relu")(t), ROWS),
    "SeparableConv2D": (lambda t: layers.SeparableConv2D(5, 3, activation="relu")(t), IMAGE),
    "Conv2DTranspose": (
        lambda t: conv(4)(
            layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu")(t)
        ),
        IMAGE,
    ),
    "Dense": (lambda t: layers.Dense(5, "softmax")(layers.Dense(7, "relu")(t)), VECTOR),
    "norm behind": (lambda t: layers.ReLU()(layers.BatchNormalization()(conv()(t))), IMAGE),
    "norm before": (lambda t: layers.Dense(4)(layers.BatchNormalization()(t)), VECTOR),
    "norm alone": (lambda t: layers.BatchNormalization()(layers.ReLU()(t)), IMAGE),
    "norm of a vector": (lambda t: layers.BatchNormalization()(layers.ReLU()(t)), VECTOR),
    "Rescaling": (lambda t: conv()(layers.Rescaling(2.0)(t)), IMAGE),
    "shifting Rescaling": (lambda t: conv()(layers.Rescaling(2.0, -1.0)(t)), IMAGE),
    "Normalization": (lambda t: conv()(layers.Normalization(mean=0.3, variance=2.0)(t)), IMAGE),
    "Add": (pair(lambda: layers.Add()), IMAGE),
    "Add of three": (lambda t: layers.Add()([conv(4)(t), t, layers.ReLU()(t)]), IMAGE),
    "Subtract": (pair(lambda: layers.Subtract()), IMAGE),
    "Multiply": (pair(lambda: layers.Multiply()), IMAGE),
    "Average": (pair(lambda: layers.Average()), IMAGE),
    "Maximum": (pair(lambda: layers.Maximum()), IMAGE),
    "Concatenate": (pair(lambda: layers.Concatenate()), IMAGE),
    "Concatenate of pools": (
        lambda t: layers.Concatenate()([layers.MaxPooling2D(3, 1, "same")(conv(3)(t)), t]),
        IMAGE,
    ),
    "MaxPooling2D": (between(lambda: layers.MaxPooling2D(2)), IMAGE),
    "AveragePooling2D": (between(lambda: layers.AveragePooling2D(2)), IMAGE),
    "ReLU of a pool": (lambda t: layers.ReLU()(layers.AveragePooling2D(2)(conv()(t))), IMAGE),
    "GlobalAveragePooling2D": (lambda t: layers.GlobalAveragePooling2D()(conv()(t)), IMAGE),
    "GlobalMaxPooling2D": (lambda t: layers.GlobalMaxPooling2D()(conv()(t)), IMAGE),
    "pooling of rows": (
        lambda t: layers.GlobalAveragePooling1D()(
            layers.MaxPooling1D(2)(layers.AveragePooling1D(2)(layers.Conv1D(5, 3)(t)))
        ),
        ROWS,
    ),
    "UpSampling2D": (between(lambda: layers.UpSampling2D()), IMAGE),
    "bilinear": (between(lambda: layers.UpSampling2D(interpolation="bilinear")), IMAGE),
    "ZeroPadding2D": (between(lambda: layers.ZeroPadding2D()), IMAGE),
    "Cropping2D": (between(lambda: layers.Cropping2D()), IMAGE),
    "Reshape": (between(lambda: layers.Reshape((4, 16, 6))), IMAGE),
    "Flatten": (lambda t: layers.Dense(3)(layers.Flatten()(conv()(t))), IMAGE),
    "Permute": (between(lambda: layers.Permute((2, 1, 3))), IMAGE),
    "Dropout": (between(lambda: layers.Dropout(0.3)), IMAGE),
    "ReLU": (between(lambda: layers.ReLU()), IMAGE),
    "ReLU6": (between(lambda: layers.ReLU(6.0)), IMAGE),
    "LeakyReLU": (between(lambda: layers.LeakyReLU()), IMAGE),
    "PReLU": (between(lambda: layers.PReLU(shared_axes=(1, 2))), IMAGE),
    "hard_swish": (between(lambda: layers.Activation("hard_silu")), IMAGE),
    "hard_sigmoid": (between(lambda: layers.Activation("hard_sigmoid")), IMAGE),
    "silu": (between(lambda: layers.Activation("silu")), IMAGE),
    "sigmoid": (between(lambda: layers.Activation("sigmoid")), IMAGE),
    "tanh": (between(lambda: layers.Activation("tanh")), IMAGE),
    "elu": (between(lambda: layers.Activation("elu")), IMAGE),
    "gelu": (between(lambda: layers.Activation("gelu")), IMAGE),
    "softmax": (between(lambda: layers.Softmax()), IMAGE),
    "operations": (lambda t: conv()(1.5 - keras.ops.relu(conv()(t)[:, 2:6]) * 2.0), IMAGE),
}


def trained(model, seed=0):
    """Give all weights values as training might, BatchNormalization's statistics too."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            trained(layer, seed)
        elif isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 2, np.shape(w)) for w in layer.get_weights()])
        elif not isinstance(layer, layers.Normalization):
            weights = layer.get_weights()
            layer.set_weights([w + random.normal(0, 0.1, w.shape) for w in weights])
    return model


def samples_of(shape, count=24, seed=1):
    return np.random.default_rng(seed).normal(0, 1, (count, *shape)).astype("float32")


def model_of(name):
    """Return a model of one layer type among others, and samples."""
    keras.utils.set_random_seed(0)
    make, shape = CASES[name]
    inputs = keras.Input(shape, name="data")
    return trained(keras.Model(inputs, make(inputs))), samples_of(shape)


def answers(model, samples):
    return [np.asarray(a) for a in keras.tree.flatten(model(samples, training=False))]


def difference(one, other):
    return max(np.abs(a - b).max() / np.abs(a).max() for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_layer_is_made_aware_trains_and_is_saved(name, tmp_path):
    model, samples = model_of(name)
    aware = edgekit.quantize_aware(model, calibration=samples)
    assert is_quantize_aware(aware) and not is_quantize_aware(model)
    given = answers(aware, samples)
    assert 0 < difference(answers(model, samples), given) < 0.1

    with tf.GradientTape() as tape:
        (answer,) = keras.tree.flatten(aware(samples, training=True))
        loss = tf.reduce_mean((answer - samples_of(answer.shape[1:], len(answer), 2)) ** 2)
    assert np.isfinite(loss)
    gradients = tape.gradient(loss, [weight.value for weight in aware.trainable_weights])
    assert gradients and all(np.isfinite(g).all() and np.any(g) for g in gradients)

    aware.save(tmp_path / "aware.keras")
    loaded = keras.saving.load_model(tmp_path / "aware.keras")
    assert difference(answers(aware, samples), answers(loaded, samples)) == 0
    opened = open_source(tmp_path / "aware.keras", scratch=tmp_path)
    np.testing.assert_allclose(
        opened.predict([samples[:1]])[0], answers(aware, samples[:1])[0], rtol=1e-3, atol=0.02
    )


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_read_back_is_the_model_without_fake_quantization(name, monkeypatch):
    model, samples = model_of(name)
    aware = edgekit.quantize_aware(model, calibration=samples)
    graph, table = trained_table(aware)
    assert not {type(step.layer).__module__.partition(".")[0] for step in graph.steps} - {"keras"}
    assert "BatchNormalization" not in {type(step.layer).__name__ for step in graph.steps}
    assert table.origin == "trained" and table.scheme == "litert" and not table.precisions
    assert set(table.tensors) <= set(graph.names().values())
    assert all(
        found.min <= 0 <= found.max and found.min < found.max for found in table.tensors.values()
    )
    monkeypatch.setattr(own_layers, "round_weights", lambda weights, axes: weights)
    monkeypatch.setattr(keras.quantizers, "fake_quant_with_min_max_vars", lambda x, low, high: x)
    assert difference(answers(aware, samples), run(graph, [samples])) < 1e-4
    assert difference(answers(model, samples), run(graph, [samples])) < 1e-4


def int8_of(aware, path):
    """Write a quantize-aware model in integers; returns what stayed float."""
    graph, table = trained_table(aware)
    twin = _tapped(open_source(aware, scratch=path), Prepared(graph, ()), ())
    done = twin.with_table(table).quantize("int8")
    (path / "m.tflite").write_bytes(done.content)
    return {kind for _, kind, precision in done.operators if precision != "int8"}


def int8_difference(aware, samples, path):
    """Return by how many steps each output of the int8 model is beside the aware model's."""
    with Backend(path / "m.tflite", 1) as backend:
        (spec,) = backend.inputs
        (answer,) = backend.outputs
        out = np.empty(answer.shape, answer.dtype)
        given = []
        for sample in samples:
            whole = np.rint(sample / spec.scale) + spec.zero_point
            backend.input_buffer(0)[0] = np.clip(whole, -128, 127)
            backend.run([out])
            given.append(out[0].astype(int))
    wanted = np.rint(answers(aware, samples)[0] / answer.scale) + answer.zero_point
    return np.abs(np.clip(wanted, -128, 127) - given)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_int8_model_answers_as_the_aware_model_does(name, tmp_path):
    model, samples = model_of(name)
    aware = edgekit.quantize_aware(model, calibration=samples)
    assert int8_of(aware, tmp_path) == set()
    assert np.mean(int8_difference(aware, samples, tmp_path) <= 4) >= 0.99
