"""Networks that read sequences."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.zoo import Architecture

_STEPS, _FEATURES = 24, 8


def convolutional() -> Any:
    """Kiranyaz et al. 2016, in kind: convolutions along time, of a causal and a plain sort."""
    import keras

    layers = keras.layers
    x = steps = keras.Input((64, _FEATURES))
    for filters, padding in ((16, "same"), (32, "causal")):
        x = layers.Conv1D(filters, 5, padding=padding, use_bias=False)(x)
        x = layers.MaxPooling1D()(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.SeparableConv1D(32, 3, padding="same", activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(steps, layers.Dense(5, activation="softmax")(x))


def recurrent(kind: str) -> Any:
    """Two layers of a kind: one that gives every step, one that gives the last."""
    import keras

    layers = keras.layers

    def layer(units: int, every: bool) -> Any:
        if kind == "BiLSTM":
            return layers.Bidirectional(layers.LSTM(units, return_sequences=every))
        return getattr(layers, kind)(units, return_sequences=every)

    x = steps = keras.Input((_STEPS, _FEATURES))
    x = layer(12, False)(layer(16, True)(x))
    return keras.Model(steps, layers.Dense(5, activation="softmax")(x))


def encoder_decoder() -> Any:
    """Sutskever et al. 2014: the state in which one LSTM ends is the state another starts from."""
    import keras

    layers = keras.layers
    source = keras.Input((_STEPS, _FEATURES), name="source")
    target = keras.Input((_STEPS // 2, _FEATURES), name="target")
    _, *state = layers.LSTM(16, return_state=True)(source)
    x = layers.LSTM(16, return_sequences=True)(target, initial_state=state)
    x = layers.TimeDistributed(layers.Dense(6, activation="softmax"))(x)
    return keras.Model([source, target], x)


def repeated() -> Any:
    """Cho et al. 2014, in kind: the last output of one LSTM is what another reads at each step."""
    import keras

    layers = keras.layers
    x = steps = keras.Input((_STEPS, _FEATURES))
    x = layers.RepeatVector(_STEPS // 2)(layers.LSTM(16)(x))
    x = layers.LSTM(16, return_sequences=True)(x)
    return keras.Model(steps, layers.TimeDistributed(layers.Dense(_FEATURES))(x))


ARCHITECTURES = (
    Architecture("1-D CNN", convolutional, "sequences", note="64 steps of 8"),
    *(
        Architecture(name, partial(recurrent, kind), "sequences", note="24 steps of 8, two layers")
        for name, kind in (
            ("Simple RNN", "SimpleRNN"),
            ("LSTM", "LSTM"),
            ("GRU", "GRU"),
            ("BiLSTM", "BiLSTM"),
        )
    ),
    Architecture(
        "Encoder-decoder, repeated vector", repeated, "sequences", note="24 steps to 12, LSTM"
    ),
    Architecture(
        "Encoder-decoder, passed state",
        encoder_decoder,
        "sequences",
        note="24 steps and 12 to 12, LSTM, two inputs",
    ),
)
