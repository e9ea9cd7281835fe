"""Small Keras models of the families that EdgeKit is for, for tests of several formats."""

import keras

layers = keras.layers
SIDE = 16


def conv(x, filters, stride=1, activation="relu", depthwise=False):
    if depthwise:
        x = layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False)(x)
    else:
        x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x) if activation else x


def mobilenet():
    x = image = keras.Input((SIDE, SIDE, 3), name="image")
    x = conv(x, 8, 2, "relu6")
    y = conv(conv(x, 8, 1, "relu6", True), 8, 1, None)
    x = conv(layers.Add(name="sum")([x, y]), 8, 2, "hard_silu", True)
    x = layers.Conv2D(8, 3, 2, name="padded")(layers.ZeroPadding2D(((0, 1), (0, 1)))(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(5, activation="softmax", name="classes")(x))


def resnet():
    x = image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.MaxPooling2D()(conv(x, 8))
    for filters, stride in ((8, 1), (12, 2)):
        y = conv(conv(x, filters, stride), filters, 1, None)
        x = layers.Conv2D(filters, 1, stride)(x) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    return keras.Model(image, layers.Dense(5, name="classes")(x))


def unet():
    x = image = keras.Input((SIDE, SIDE, 3), name="image")
    skip = conv(x, 6)
    x = conv(layers.MaxPooling2D()(skip), 8)
    x = layers.Concatenate()([layers.Conv2DTranspose(6, 2, 2)(x), skip])
    x = layers.UpSampling2D(interpolation="bilinear")(layers.MaxPooling2D()(conv(x, 6)))
    return keras.Model(image, layers.Conv2D(3, 1, activation="softmax", name="mask")(x))


def lstm():
    x = steps = keras.Input((10, 6), name="steps")
    x = layers.Bidirectional(layers.LSTM(8, return_sequences=True))(x)
    return keras.Model(steps, layers.Dense(3, name="out")(layers.LSTM(7)(x)))


def gru():
    steps = keras.Input((10, 6), name="steps")
    return keras.Model(steps, layers.Dense(3, name="out")(layers.GRU(8)(steps)))


def grouped():
    """Return a model with what Keras has XLA compile, and with its exact GELU."""
    x = image = keras.Input((SIDE, SIDE, 3), name="image")
    x = layers.Conv2D(8, 3, 2, activation="gelu")(x)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, groups=4, activation="gelu")(x))
    return keras.Model(image, layers.Dense(5, name="classes")(x))


MODELS = {m.__name__: m for m in (mobilenet, resnet, unet, lstm, gru, grouped)}


def with_statistics(model, random):
    """Give a model's BatchNormalizations statistics as after training; return it."""
    for weight in model.weights:
        if "moving_variance" in weight.path:
            weight.assign(random.uniform(0.2, 2, weight.shape))
        elif "moving_mean" in weight.path or "beta" in weight.path:
            weight.assign(random.normal(0, 0.3, weight.shape))
    return model
