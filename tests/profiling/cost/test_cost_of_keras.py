"""What a converted model costs is what Keras' own layers say, in every format and precision."""

import math

import numpy as np
import pytest

from edgekit.profiling.cost import cost_of

pytestmark = pytest.mark.convert


@pytest.fixture(scope="module")
def net():
    """Return a net with each kind of layer that multiplies, and random biases.

    Without those, a converter merges equal biases into one constant.
    """
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    x = given = keras.Input((16, 16, 3), batch_size=1)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Conv2D(8, 1, groups=2, activation="relu")(x)
    skip = x
    x = layers.Conv2D(12, 3, padding="same")(layers.MaxPooling2D()(x))
    x = layers.Conv2DTranspose(6, 2, strides=2)(x)
    x = layers.Concatenate()([x, skip])
    x = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(given, x)
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(random.normal(0, 0.1, weight.shape))
    return model


def keras_count(model):
    """Return parameters and MACs, layer by layer; BatchNormalization becomes a bias."""
    import keras

    parameters = model.count_params()
    macs = 0
    for layer in model.layers:
        out = math.prod(layer.output.shape[1:])
        if isinstance(layer, keras.layers.BatchNormalization):
            parameters -= layer.count_params() - layer.output.shape[-1]
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            macs += out * math.prod(layer.kernel_size)
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            macs += math.prod(layer.input.shape[1:]) * math.prod(layer.kernel.shape[:3])
        elif isinstance(layer, keras.layers.Conv2D):
            macs += out * math.prod(layer.kernel.shape[:3])
        elif isinstance(layer, keras.layers.Dense):
            macs += math.prod(layer.kernel.shape)
    return parameters, macs


@pytest.mark.parametrize("format", ["litert", "onnx"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_parameters_and_multiplications_are_keras_own(net, precision, format, tmp_path):  # noqa: A002
    import edgekit

    if format == "onnx":
        pytest.importorskip(
            "tf2onnx", reason="tf2onnx is not installed: pip install -e '.[convert]'"
        )
    data = np.random.default_rng(1).uniform(0, 255, (8, 16, 16, 3)).astype(np.float32)
    bundle = edgekit.convert(
        net,
        tmp_path / "m.edgekit",
        format=format,
        precision=precision,
        data=data if precision == "int8" else None,
        task="classification",
    )
    cost = cost_of(bundle)
    assert (cost.parameters, cost.macs) == keras_count(net)
    assert cost.notes == ()
    assert cost.size_bytes == bundle.size_bytes
    multiply = [layer for layer in cost.layers if layer.macs]
    assert {layer.weights for layer in multiply} == {"float32" if precision == "fp32" else "int8"}
