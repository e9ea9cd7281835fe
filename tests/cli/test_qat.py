"""`edgekit qat`: what it writes, what it keeps, and how it ends."""

import json

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from edgekit.cli import main  # noqa: E402
from edgekit.converters.quantize.aware.read import is_quantize_aware  # noqa: E402
from edgekit.converters.quantize.aware.train import Training, train  # noqa: E402
from edgekit.errors import DataError, ModelError, OutputError, UsageError  # noqa: E402

layers = keras.layers


def save(path, outputs=3, activation="softmax", layer=layers.Flatten):
    keras.utils.set_random_seed(0)
    stem = layers.Conv2D(4, 3, activation="relu", padding="same")
    head = layers.Dense(outputs, activation)
    keras.Sequential([keras.Input((8, 8, 3)), stem, layer(), head]).save(path / "m.keras")
    return path / "m.keras"


def write(path, labels, name="set.npz"):
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (60, 8, 8, 3)) + np.reshape(labels, (60, *[1] * 3, -1))[..., 0]
    np.savez(path / name, x=x.astype("float32"), y=labels)
    return str(path / name)


def run(path, labels, model=None, **settings):
    given = Training(data=write(path, labels), **{"epochs": 2, "learning_rate": 0.02, **settings})
    return train(model or save(path), path / "out.keras", given, lambda *progress: None)


kinds = np.arange(60) % 3


def test_a_classifier_gets_better_and_is_written_without_its_optimizer(tmp_path):
    told = []
    given = Training(data=write(tmp_path, kinds), epochs=2, learning_rate=0.02, held_out=0.2)
    out = tmp_path / "out.keras"
    found = train(save(tmp_path), out, given, lambda *progress: told.append(progress))
    assert (found.task, found.metric, found.n) == ("classification", "accuracy", 12)
    assert found.after.loss < found.before.loss
    assert found.best_epoch in (1, 2)
    assert ("epoch 2 of 2", 2, 2) in told
    loaded = keras.saving.load_model(out)
    assert is_quantize_aware(loaded) and not loaded.compiled
    assert found.size_bytes == out.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.keras", "out.keras", "set.npz"]


def test_the_same_seed_gives_the_same_scores(tmp_path):
    first, second = (run(tmp_path, kinds, seed=3) for _ in range(2))
    assert first.after.loss == pytest.approx(second.after.loss, rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "outputs", "activation", "layer", "task", "metric"),
    [
        (kinds % 2, 1, "sigmoid", layers.Flatten, "classification", "accuracy"),
        (kinds, 3, None, layers.Flatten, "classification", "accuracy"),
        (kinds.astype("float32"), 1, None, layers.Flatten, "regression", "mae"),
        (np.tile(kinds[:, None, None], (8, 8)), 3, None, layers.ReLU, "segmentation", "mean_iou"),
    ],
    ids=["binary", "logits", "regression", "segmentation"],
)
def test_the_loss_follows_from_labels_and_outputs(
    tmp_path, labels, outputs, activation, layer, task, metric
):
    model = save(tmp_path, outputs, activation, layer)
    found = run(tmp_path, labels, model)
    assert (found.task, found.metric) == (task, metric)
    assert found.after.loss < found.before.loss


def test_training_that_only_harms_leaves_the_weights_as_they_were(tmp_path):
    model = save(tmp_path, 1, None)
    wanted = keras.saving.load_model(model)
    x = np.random.default_rng(0).normal(0, 1, (60, 8, 8, 3)).astype("float32")
    np.savez(tmp_path / "own.npz", x=x, y=wanted.predict(x, verbose=0))
    given = Training(data=str(tmp_path / "own.npz"), learning_rate=0.9, epochs=2)
    found = train(model, tmp_path / "out.keras", given, lambda *progress: None)
    assert found.best_epoch == 0 and found.epochs == 2
    assert found.after.loss == pytest.approx(found.before.loss, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "settings", "error", "message"),
    [
        (kinds + 1, {}, DataError, "the model tells 3 classes apart"),
        (np.tile(kinds[:, None, None], (8, 8)), {}, DataError, "does not fit"),
        (kinds, {"held_out": 0.001}, DataError, "--eval-data"),
        (kinds, {"epochs": 0}, UsageError, "`epochs` must be at least 1; got 0"),
        (kinds, {"learning_rate": 3.0}, UsageError, "learning_rate"),
    ],
)
def test_what_cannot_be_trained_says_why(tmp_path, labels, settings, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, labels, **settings)
    assert not (tmp_path / "out.keras").exists()


def test_the_destination_is_checked_before_the_work(tmp_path):
    model, given = save(tmp_path), Training(data="nowhere.npz")
    for out, error in (
        (tmp_path / "no" / "x.keras", OutputError),
        (tmp_path / "x.h5", UsageError),
        (model, UsageError),
    ):
        with pytest.raises(error):
            train(model, out, given, lambda *progress: None)


def test_several_inputs_are_left_to_python(tmp_path):
    inputs = [keras.Input((3,)), keras.Input((3,))]
    keras.Model(inputs, layers.Dense(2)(layers.Add()(inputs))).save(tmp_path / "two.keras")
    with pytest.raises(ModelError, match=r"edgekit\.quantize_aware"):
        run(tmp_path, kinds, tmp_path / "two.keras")


def test_the_command_line_trains_in_a_process_of_its_own(tmp_path, capsys):
    model, out = save(tmp_path), tmp_path / "out.keras"
    arguments = ["qat", model, "--data", write(tmp_path, kinds), "--epochs", 1, "-o", out]
    assert main([str(a) for a in (*arguments, "--json", "-")]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["epochs"] == 1
    assert "accuracy of the float source" in captured.err
    assert main([str(a) for a in (*arguments, "--scheme", "onnx")]) == 2
    assert "litert, tensorrt" in capsys.readouterr().err
