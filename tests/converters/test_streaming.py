"""Recurrent Keras models to one step: as the whole sequence, or refused by the layer's name."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edgekit
from edgekit.cli import main
from edgekit.errors import ModelError, UsageError

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.converters.sources.keras import keras_source  # noqa: E402
from edgekit.converters.streaming.source import stream_source  # noqa: E402
from edgekit.converters.streaming.step import one_step  # noqa: E402

layers = keras.layers
DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"
STEPS, FEATURES = 6, 3


def over_rows(*body, shape=(STEPS, FEATURES)):
    """Return a model of `body` with random weights, biases and statistics too."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape, name="rows"), *body])
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype == "float32" and len(weight.shape):
            noise = random.normal(0, 0.4, weight.shape)
            positive = "variance" in weight.path or "gamma" in weight.path
            weight.assign(0.5 + abs(noise) if positive else weight + noise)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def sequences(count=3, shape=(STEPS, FEATURES)):
    random = np.random.default_rng(1)
    return random.normal(0, 1, (count, *shape)).astype(np.float32)


def branches():
    rows = keras.Input((STEPS, FEATURES), name="rows")
    one = layers.GRU(4, return_sequences=True)(rows)
    two = layers.Dense(4, activation="tanh")(rows)
    both = layers.Concatenate()([layers.Add()([one, two]), rows])
    return keras.Model(rows, [layers.LSTM(4)(both), layers.SimpleRNN(2)(both)])


def two_inputs():
    one = keras.Input((STEPS, 2), name="one")
    two = keras.Input((STEPS, 3), name="two")
    both = layers.Concatenate()([one, two])
    return keras.Model([one, two], layers.LSTM(3, return_sequences=True)(both))


def shared():
    rows, one = (
        keras.Input((STEPS, FEATURES), name="rows"),
        layers.GRU(FEATURES, return_sequences=True),
    )
    return keras.Model(rows, one(one(rows)))


def nested():
    inner = keras.Sequential([keras.Input((STEPS, 4)), layers.LSTM(3, return_sequences=True)])
    return over_rows(layers.Dense(4), inner, layers.GRU(2))


SEQ = {"return_sequences": True}
MODELS = {
    "lstm": lambda: over_rows(layers.LSTM(4), layers.Dropout(0.5), layers.Dense(2)),
    "lstm, no bias": lambda: over_rows(layers.LSTM(4, use_bias=False)),
    "lstm, relu": lambda: over_rows(
        layers.LSTM(4, activation="relu", recurrent_activation="hard_sigmoid")
    ),
    "every step": lambda: over_rows(layers.LSTM(4, **SEQ), layers.Dense(2, activation="softmax")),
    "stacked": lambda: over_rows(layers.LSTM(4, **SEQ), layers.LSTM(3, **SEQ), layers.GRU(2)),
    "gru": lambda: over_rows(layers.GRU(4)),
    "gru, reset before": lambda: over_rows(layers.GRU(4, reset_after=False)),
    "gru, no bias": lambda: over_rows(layers.GRU(4, use_bias=False, **SEQ)),
    "simple": lambda: over_rows(layers.SimpleRNN(4, activation="relu"), layers.Dense(1)),
    "standardized": lambda: over_rows(
        layers.Normalization(mean=[1, 2, 3], variance=[4, 1, 9]), layers.GRU(3)
    ),
    "normalized": lambda: over_rows(
        layers.BatchNormalization(), layers.LSTM(3, **SEQ), layers.LayerNormalization()
    ),
    "causal": lambda: over_rows(
        layers.Conv1D(5, 3, padding="causal", activation="relu"), layers.LSTM(3)
    ),
    "causal, two steps": lambda: over_rows(
        layers.Conv1D(4, 2, padding="causal"), layers.PReLU(shared_axes=[1])
    ),
    "causal, dilated": lambda: over_rows(
        layers.Conv1D(4, 2, dilation_rate=2, padding="causal"),
        layers.Conv1D(2, 3, dilation_rate=2, padding="causal"),
    ),
    "causal, in groups": lambda: over_rows(
        layers.Dense(4), layers.Conv1D(4, 3, groups=2, padding="causal")
    ),
    "pointwise": lambda: over_rows(
        layers.Conv1D(4, 1), layers.ReLU(), layers.GRU(2), layers.BatchNormalization()
    ),
    "distributed": lambda: over_rows(
        layers.TimeDistributed(layers.Dense(4)),
        layers.SpatialDropout1D(0.5),
        layers.GRU(2, **SEQ),
        layers.TimeDistributed(layers.Dense(2)),
    ),
    "reshaped": lambda: over_rows(
        layers.Reshape((STEPS, FEATURES)),
        layers.GRU(2),
        layers.Reshape((2, 1)),
        layers.Flatten(),
        shape=(STEPS, FEATURES, 1),
    ),
    "branches": branches,
    "two inputs": two_inputs,
    "shared": shared,
    "nested": nested,
}


def samples_of(source, count=2):
    random = np.random.default_rng(2)
    return [
        tuple(random.normal(0, 1, spec.shape).astype(np.float32) for spec in source.inputs)
        for _ in range(count)
    ]


@pytest.mark.parametrize("name", MODELS)
def test_the_stream_equals_the_whole_sequence(name):
    source = keras_source(MODELS[name](), None)
    stream = stream_source(source)
    for inputs in samples_of(source):
        whole = source.predict(inputs)
        found = [
            step for step in stream.run([a[:, place] for a in inputs] for place in range(STEPS))
        ]
        for number, expected in enumerate(whole):
            steps = [step[number] for step in found]
            here = np.stack(steps, axis=1) if stream.every_step else steps[-1]
            assert here.shape == expected.shape
            assert np.abs(here - expected).max() <= 1e-5
    stream.check(samples_of(source))


def test_the_check_finds_a_stream_that_is_another_model():
    one, other = (keras_source(over_rows(layers.GRU(2), layers.Dense(2)), None) for _ in range(2))
    stream = stream_source(one)
    other.model.layers[-1].set_weights([np.full((2, 2), 3.0), np.zeros(2)])
    wrong = type(stream)(keras_source(other.model, None), stream.step, stream.every_step)
    with pytest.raises(ModelError, match="does not equal its whole sequence"):
        wrong.check(samples_of(one))


def last_step():
    rows = keras.Input((STEPS, FEATURES))
    return keras.Model(rows, layers.LSTM(3)(rows[:, ::-1]))


def attention():
    rows = keras.Input((STEPS, FEATURES))
    return keras.Model(rows, layers.GRU(2)(layers.MultiHeadAttention(1, 2)(rows, rows)))


def encoder_decoder():
    rows = keras.Input((STEPS, FEATURES))
    _, hidden, cell = layers.LSTM(3, return_state=True, name="encoder")(rows)
    return keras.Model(rows, layers.LSTM(3, name="decoder")(rows, initial_state=[hidden, cell]))


def some_outputs():
    rows = keras.Input((STEPS, FEATURES))
    return keras.Model(rows, [layers.GRU(2)(rows), layers.GRU(2, **SEQ)(rows)])


REFUSED = {
    "from its end": lambda: over_rows(layers.Bidirectional(layers.LSTM(2), name="named")),
    "begins with the last step": lambda: over_rows(layers.GRU(2, go_backwards=True, name="named")),
    "padding 'same'": lambda: over_rows(
        layers.Conv1D(2, 3, padding="same", name="named"), layers.GRU(2)
    ),
    "padding 'valid'": lambda: over_rows(layers.Conv1D(2, 3, name="named"), layers.GRU(2)),
    "an output for every 2": lambda: over_rows(
        layers.Conv1D(2, 3, strides=2, padding="causal", name="named")
    ),
    "over the whole sequence": lambda: over_rows(
        layers.GRU(2, **SEQ), layers.GlobalAveragePooling1D(name="named")
    ),
    "joins several steps": lambda: over_rows(
        layers.GRU(2, **SEQ), layers.MaxPooling1D(2, name="named")
    ),
    "moves the steps": lambda: over_rows(layers.GRU(2, **SEQ), layers.Flatten(name="named")),
    "mixes the steps": lambda: over_rows(layers.Reshape((3, 6), name="named"), layers.GRU(2)),
    "begins a new sequence": lambda: over_rows(layers.GRU(2), layers.RepeatVector(3, name="named")),
    "acts along the steps": lambda: over_rows(
        layers.GRU(2, **SEQ), layers.BatchNormalization(axis=1, name="named")
    ),
    "a slope for each step": lambda: over_rows(layers.GRU(2, **SEQ), layers.PReLU(name="named")),
    "is not known": lambda: over_rows(
        layers.GRU(2, **SEQ), layers.GroupNormalization(1, name="named")
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_layer_that_cannot_stream_is_named_with_the_reason_and_what_to_do(reason):
    with pytest.raises(ModelError, match=f"layer 'named' .* cannot stream: .*{reason}.*; .+"):
        one_step(keras_source(REFUSED[reason](), None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (last_step, "cannot stream"),
        (attention, "compares all steps"),
        (encoder_decoder, "'encoder' .* hands its state"),
        (some_outputs, "some outputs of this model are for each step"),
        (lambda: over_rows(layers.Dense(2)), "keeps nothing from step to step"),
        (lambda: over_rows(layers.Dense(2), shape=(FEATURES,)), r"inputs of \[steps, features\]"),
        (lambda: over_rows(layers.Masking(), layers.GRU(2)), "masks steps"),
        (lambda: over_rows(layers.GRU(2, dtype="float16")), "computes in float16"),
    ],
)
def test_models_that_cannot_stream_are_refused(make, message):
    with pytest.raises(ModelError, match=message):
        stream_source(keras_source(make(), None))


def convert(tmp_path, model, data, **options):
    return edgekit.convert(model, tmp_path / "s.edgekit", data=data, streaming=True, **options)


@pytest.fixture(scope="module")
def keywords():
    """Return a model that has all there is to be made int8, and its sequences."""
    model = over_rows(
        layers.Normalization(mean=[1, 0, 2], variance=[4, 1, 9]),
        layers.Conv1D(5, 3, padding="causal", activation="relu"),
        layers.GRU(6, return_sequences=True),
        layers.LSTM(6),
        layers.Dense(3, activation="softmax"),
    )
    return model, sequences(24) * 2 + 1


@pytest.mark.parametrize("format_", ["litert", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_float_stream_proves_itself(tmp_path, keywords, format_):
    model, data = keywords
    bundle = convert(tmp_path, model, data, format=format_)
    manifest = bundle.manifest
    assert manifest.parity.max_abs <= 1e-4
    assert manifest.streaming.drift.steps == 1000
    assert manifest.streaming.drift.max_abs <= 1e-4
    assert [spec.shape for spec in manifest.data_inputs] == [(1, FEATURES)]
    assert len(manifest.streaming.states) == 4  # past steps, GRU, LSTM twice
    with edgekit.open(bundle, backend=None if format_ == "litert" else "onnxruntime") as opened:
        for row in data[0]:
            last = opened(row)
        expected = model.predict(data[:1], verbose=0)
    assert np.abs(last.raw - expected).max() <= 1e-4


@pytest.mark.parametrize("format_", ["litert", "onnx"])
def test_an_int8_stream_stays_near_for_a_thousand_steps(tmp_path, keywords, format_, capsys):
    model, data = keywords
    bundle = convert(tmp_path, model, data, precision="int8", format=format_)
    manifest, drift = bundle.manifest, bundle.manifest.streaming.drift
    assert manifest.parity.snr_db >= 20
    assert drift.snr_db >= 20
    blocks = drift.blocks_snr_db
    assert len(blocks) * drift.block_steps == drift.steps
    assert np.mean(blocks[-5:]) >= np.mean(blocks[:5]) - 6  # it does not grow
    assert manifest.fallbacks == ()
    if format_ == "litert":
        kinds = [manifest.inputs[pair.input].dtype for pair in manifest.streaming.states]
        assert kinds == ["int8", "int16", "int8", "int16"]
        assert (bundle.path / "report.html").read_text().count("1,000 steps")
        summary = json.loads((bundle.path / "report.json").read_text())
        assert summary["drift"] == json.loads(msgspec.json.encode(drift))
        keys = re.findall(r"^\| `drift\.(\w+)", DOCUMENT.read_text(), re.M)
        assert keys == list(summary["drift"])
        assert main(["inspect", str(bundle.path)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "4 states, zero on: first, gap, source back, end of sequence; 1000" in shown
        assert "more than 8 bits" in " ".join(summary["notes"])


def test_what_is_answered_is_a_state_too(tmp_path):
    """The output of the last layer is what goes into the next step."""
    model = over_rows(layers.GRU(3, return_sequences=True))
    bundle = convert(tmp_path, model, sequences(8), precision="int8", reset_on=["dropped"])
    assert bundle.manifest.task == "sequence"
    assert bundle.manifest.streaming.reset_on == ("dropped",)
    assert bundle.manifest.parity.snr_db >= 25


def test_rows_of_bytes_are_preprocessed_as_frames(tmp_path):
    model = over_rows(layers.GRU(3), layers.Dense(2))
    rows = np.random.default_rng(0).integers(0, 256, (8, STEPS, FEATURES), np.uint8)
    bundle = convert(tmp_path, model, rows, preprocess="unit")
    assert bundle.golden()[0].frame.shape == (STEPS, FEATURES)
    expected = model.predict(rows[:1] / np.float32(255), verbose=0)
    with edgekit.open(bundle) as opened:
        assert np.abs(opened.predict_sample(rows[0]).raw - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset_on": ["gap"], "streaming": False}, "`reset_on` is about the state"),
        ({"reset_on": ["monday"]}, "`reset_on` must be one of gap"),
        ({"precision": "auto", "max_drop": 0.1}, "`precision` auto mixes"),
        ({"precision": "int8"}, "needs `data`"),
    ],
)
def test_settings_that_cannot_be_together_are_refused(tmp_path, options, message):
    model = over_rows(layers.GRU(2))
    with pytest.raises(UsageError, match=message):
        edgekit.convert(model, tmp_path / "s.edgekit", **{"streaming": True, **options})


def test_a_compiled_file_has_no_layers_to_stream(tmp_path):
    file = Path(__file__).parent.parent / "assets" / "classifier_fp32.tflite"
    with pytest.raises(ModelError, match="give the .keras file"):
        edgekit.convert(file, tmp_path / "s.edgekit", streaming=True)
