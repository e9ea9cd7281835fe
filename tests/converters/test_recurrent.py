"""Recurrent Keras models to .tflite: no loops, no state from one sequence to the next."""

import os

import numpy as np
import pytest

from edgekit.errors import ModelError
from edgekit.runtime.backends.litert import Backend
from edgekit.runtime.tflite import describe_tflite

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.recurrent import emit_float, quantize_file  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.sources.recurrent import STEPS_LIMIT, without_loops  # noqa: E402
from edgekit.converters.tflite.convert import convert_graph  # noqa: E402

layers = keras.layers
FUSED = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def rows(*body, steps=12):
    """Return a model of `body`, layer on layer, on sequences of 6 values a step."""
    return keras.Sequential([keras.Input((steps, 6), name="rows"), *body])


def lstm():
    return rows(layers.LSTM(8), layers.Dense(3))


def stacked():
    return rows(layers.LSTM(8, return_sequences=True), layers.LSTM(6), layers.Dense(3))


def gru():
    return rows(layers.GRU(8), layers.Dense(3))


def simple():
    return rows(layers.SimpleRNN(8), layers.Dense(3))


def bidirectional():
    return rows(layers.Bidirectional(layers.LSTM(8)), layers.Dense(3))


def bidirectional_sequences():
    body = layers.Bidirectional(layers.LSTM(5, return_sequences=True), merge_mode="sum")
    return rows(body, layers.Conv1D(4, 3), layers.GlobalAveragePooling1D())


def backwards():
    return rows(layers.LSTM(5, go_backwards=True, return_sequences=True, use_bias=False))


def every_step():
    body = layers.LSTM(8, return_sequences=True)
    return rows(layers.Conv1D(6, 3, padding="same"), layers.BatchNormalization(), body,
                layers.Dropout(0.5), layers.TimeDistributed(layers.Dense(3)))  # fmt: skip


def nested():
    return rows(rows(layers.LSTM(8, return_sequences=True)), layers.LSTM(4))


def beside_its_input():
    entry = keras.Input((12, 6), name="rows")
    joined = layers.Concatenate()([entry, layers.LSTM(8, return_sequences=True)(entry)])
    return keras.Model(entry, layers.Dense(3)(joined))


def own_activation():
    return rows(layers.LSTM(8, activation="relu", recurrent_dropout=0.1), layers.Dense(3))


def encoder_decoder():
    entry = keras.Input((12, 6), name="rows")
    answer, hidden, carry = layers.LSTM(8, return_state=True)(entry)
    again = layers.RepeatVector(5)(answer)
    decoded = layers.LSTM(8, return_sequences=True)(again, initial_state=[hidden, carry])
    return keras.Model(entry, layers.Dense(3)(decoded))


def bidirectional_gru():
    return rows(layers.Bidirectional(layers.GRU(5, reset_after=False)), layers.Dense(3))


def stacked_cells():
    return rows(layers.RNN([layers.LSTMCell(5), layers.GRUCell(4)]), layers.Dense(3))


def masked():
    return rows(layers.Masking(), layers.LSTM(8), layers.Dense(3))


# How many fused operators each becomes.
MODELS = {
    lstm: 1,
    stacked: 2,
    gru: 0,
    simple: 0,
    bidirectional: 2,
    bidirectional_sequences: 2,
    backwards: 1,
    every_step: 1,
    nested: 2,
    beside_its_input: 1,
    own_activation: 0,
    encoder_decoder: 0,
    bidirectional_gru: 0,
    stacked_cells: 0,
    masked: 0,
}


def opened(build, tmp_path):
    keras.utils.set_random_seed(1)
    return open_source(build(), scratch=tmp_path)


def sequences(source, count=60, seed=0):
    rng = np.random.default_rng(seed)
    return [
        tuple(rng.standard_normal(spec.shape).astype(np.float32) for spec in source.inputs)
        for _ in range(count)
    ]


def compiled(source, precision, tmp_path):
    content = emit(source, precision, lambda: iter(sequences(source))).content
    path = tmp_path / f"{precision}.tflite"
    path.write_bytes(content)
    return describe_tflite(content, precision), path


def answers(path, samples):
    """Return the first output for each sample, one after the other in one interpreter."""
    found = []
    with Backend(path, 1) as backend:
        outputs = [np.empty(spec.shape, spec.dtype) for spec in backend.outputs]
        for sample in samples:
            for index, (spec, array) in enumerate(zip(backend.inputs, sample, strict=True)):
                if spec.scale is not None:
                    array = np.clip(np.round(array / spec.scale) + spec.zero_point, -128, 127)
                backend.input_buffer(index)[...] = array
            backend.run(outputs)
            answer, spec = outputs[0].astype(np.float32), backend.outputs[0]
            found.append(answer if spec.scale is None else (answer - spec.zero_point) * spec.scale)
    return np.array(found)


def snr_db(source, path):
    samples = sequences(source, 20, seed=9)
    expected = np.array([source.predict(sample)[0] for sample in samples])
    error = answers(path, samples) - expected
    return 10 * np.log10((expected**2).sum() / max((error**2).sum(), 1e-30))


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_int8_models_run_without_loops(build, tmp_path):
    source = opened(build, tmp_path)
    description, path = compiled(source, "int8", tmp_path)
    names = [operator.name for operator in description.operators]
    assert names.count(FUSED) == MODELS[build]
    assert description.subgraphs == 1
    assert not any(operator.is_custom for operator in description.operators)
    assert {spec.dtype for spec in (*description.inputs, *description.outputs)} == {"int8"}
    assert snr_db(source, path) >= 20


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_what_is_quantized_computes_what_the_model_does(build, tmp_path):
    source = opened(build, tmp_path)
    path = tmp_path / "float.tflite"
    path.write_bytes(emit_float(source, convert_graph))
    assert snr_db(source, path) >= 100


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_float_models_keep_a_loop_that_needs_no_reset(build, tmp_path):
    source = opened(build, tmp_path)
    description, path = compiled(source, "fp32", tmp_path)
    names = {operator.name for operator in description.operators}
    assert "WHILE" in names and FUSED not in names
    assert snr_db(source, path) >= 100


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 50), ("dynamic", 25)])
@pytest.mark.parametrize("build", [lstm, gru], ids=lambda build: build.__name__)
def test_light_precisions(build, precision, least_db, tmp_path):
    source = opened(build, tmp_path)
    assert snr_db(source, compiled(source, precision, tmp_path)[1]) >= least_db


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("build", [lstm, bidirectional, gru], ids=lambda build: build.__name__)
def test_a_sequence_is_answered_as_if_it_were_the_first(build, precision, tmp_path):
    source = opened(build, tmp_path)
    path = compiled(source, precision, tmp_path)[1]
    first, second = sequences(source, 2, seed=3)
    alone = answers(path, [second])[0]
    assert np.array_equal(answers(path, [first, second])[1], alone)
    assert not np.array_equal(answers(path, [first])[0], alone)


def test_inputs_and_outputs_keep_names_and_order(tmp_path):
    def build():
        late, early = keras.Input((9, 6), name="z"), keras.Input((9, 6), name="a")
        left, right = layers.LSTM(4)(late), layers.LSTM(5)(early)
        return keras.Model([late, early], {"wide": right, "narrow": left})

    source = opened(build, tmp_path)
    for precision in ("fp32", "int8"):
        description, path = compiled(source, precision, tmp_path)
        assert [spec.name for spec in description.inputs] == ["z", "a"]
        assert [spec.shape for spec in description.outputs] == [(1, 4), (1, 5)]
        assert snr_db(source, path) >= 20


def test_tracing_leaves_the_model_as_it_was(tmp_path):
    model = bidirectional()
    config, sample = model.get_config(), np.ones((2, 12, 6), np.float32)
    expected = model.predict(sample, verbose=0)
    compiled(open_source(model, scratch=tmp_path), "int8", tmp_path)
    assert model.get_config() == config
    assert np.array_equal(model.predict(sample, verbose=0), expected)
    model.compile("sgd", "mse")
    model.fit(sample, expected, verbose=0)


def test_what_can_be_neither_fused_nor_unrolled_is_refused_by_name(tmp_path):
    source = opened(lambda: rows(layers.GRU(4, name="long"), steps=STEPS_LIMIT + 1), tmp_path)
    with pytest.raises(ModelError, match=r"'long' .*it is a GRU.* 129 steps are too many"):
        compiled(source, "int8", tmp_path)


def test_stateful_layers_are_refused_by_name(tmp_path):
    def build():
        entry = keras.Input(batch_shape=(1, 12, 6))
        return keras.Model(entry, layers.LSTM(4, stateful=True, name="keeps")(entry))

    with pytest.raises(ModelError, match=r"layer 'keeps' is stateful"), without_loops(build()):
        pass


def test_a_quantizer_that_ends_its_process_is_one_line(tmp_path, monkeypatch):
    # TensorFlow's does on loops, which no other test lets it see.
    monkeypatch.setattr(
        "edgekit.converters.recurrent.emit_float", lambda source, convert: convert(source, "fp32")
    )
    with pytest.raises(ModelError, match="its process was ended by signal") as caught:
        compiled(opened(lstm, tmp_path), "int8", tmp_path)
    assert "\n" not in str(caught.value)


def test_what_the_quantizer_cannot_read_is_one_line(tmp_path):
    (tmp_path / "damaged").write_bytes(b"no model")
    np.savez(tmp_path / "samples.npz", np.zeros((1, 1, 2), np.float32))
    with pytest.raises(ModelError, match="cannot make this recurrent model int8") as caught:
        quantize_file(
            str(tmp_path / "damaged"), str(tmp_path / "samples.npz"), os.fspath(tmp_path / "out")
        )
    assert "\n" not in str(caught.value)
