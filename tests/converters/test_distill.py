"""Distillation: its loss against the formula, its limits, what it takes and what it refuses."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

import edgekit  # noqa: E402
from edgekit.converters.distill.augment import augmenter  # noqa: E402
from edgekit.converters.distill.lesson import class_weights, soft_loss  # noqa: E402
from edgekit.converters.distill.settings import Distillation  # noqa: E402
from edgekit.converters.distill.student import heads, scaled  # noqa: E402
from edgekit.converters.distill.teachers import Ensemble, Teacher  # noqa: E402
from edgekit.converters.quantize.aware.read import is_quantize_aware  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402
from edgekit.converters.training.case import Case  # noqa: E402
from edgekit.converters.training.fit import batches  # noqa: E402
from edgekit.data import load_data  # noqa: E402
from edgekit.errors import DataError, ModelError, UsageError  # noqa: E402
from edgekit.specs import Preprocess, TensorSpec  # noqa: E402

ASSETS = Path(__file__).parent.parent / "assets"
layers = keras.layers
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(0, 1, (64, 6)).astype("float32")
Y = (X[:, 0] > 0) + 2 * (X[:, 1] > 0)
GRID = RANDOM.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


def dense(seed=0, units=8, outputs=4, activation=None, inputs=6, hidden="relu"):
    keras.utils.set_random_seed(seed)
    x = keras.Input((inputs,))
    y = layers.Dense(units, hidden, name="hidden")(x)
    return keras.Model(x, layers.Dense(outputs, activation, name="answer")(y), name="net")


def case(task="classification", shape=(1, 3), logits=True):
    spec = TensorSpec(name="out", shape=shape, dtype="float32")
    source = SimpleNamespace(outputs=(spec,), inputs=(spec,))
    return Case(source, Preprocess(), task, gives_logits=logits)


def softmax(values):
    shares = np.exp(values - values.max(-1, keepdims=True))
    return shares / shares.sum(-1, keepdims=True)


def same_weights(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


def distilled(teacher, student, data=(X, Y), **settings):
    given = {"epochs": 2, "held_out": 0.25, "learning_rate": 0.01, **settings}
    return edgekit.distill(teacher, student, data, **given)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 4, 3), (2, 7, 3)], ids=["class", "pixel", "step"])
def test_the_loss_is_the_formula(temperature, logits, shape):
    random = np.random.default_rng(1)
    theirs, ours = random.normal(0, 3, (2, *shape)).astype("float32")
    q, p = softmax(theirs / temperature), softmax(ours / temperature)
    wanted = temperature**2 * (q * (np.log(q) - np.log(p))).sum(-1)
    given = soft_loss(case(logits=logits), temperature)(q, ours if logits else softmax(ours))
    assert np.allclose(given, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("logits", [True, False])
def test_the_loss_of_one_unit_is_that_of_two_classes(logits):
    random = np.random.default_rng(1)
    theirs, ours = random.normal(0, 2, (2, 5, 1)).astype("float32")
    q, p = (1 / (1 + np.exp(-values / 3)) for values in (theirs, ours))
    wanted = 9 * (q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p)))[:, 0]
    output = ours if logits else 1 / (1 + np.exp(-ours))
    given = soft_loss(case(shape=(1, 1), logits=logits), 3.0)(q, output)
    assert np.allclose(given, wanted, rtol=1e-4, atol=1e-4)


def test_of_values_it_is_the_mean_square_and_has_no_temperature():
    given = soft_loss(case("regression", (1, 2)), 4.0)(np.ones((3, 2)), np.zeros((3, 2)))
    assert np.array_equal(given, np.ones(3))


def test_the_focal_loss_is_the_formula_and_ignores_the_ignored_class():
    logits = np.random.default_rng(1).normal(0, 2, (4, 3)).astype("float32")
    labels = np.array([0, 2, 1, 255])
    p = softmax(logits)[[0, 1, 2], labels[:3]]
    given = np.asarray(case("segmentation").loss(focal=2.0)(labels, logits))
    assert np.allclose(given, [*(-((1 - p) ** 2) * np.log(p)), 0], rtol=1e-4)


def test_teachers_answer_with_the_mean_of_their_softened_shares(tmp_path):
    data, temperature = load_data(X[:9]), 3.0
    one, other = dense(1), dense(2, activation="softmax")
    teachers = [
        Teacher(name, open_source(model, scratch=tmp_path), data, None)
        for name, model in (("one", one), ("other", other))
    ]
    assert [teacher.gives_logits for teacher in teachers] == [True, False]
    of_student = case(shape=(1, 4))
    answer, *features = Ensemble(teachers, of_student, temperature).answer(data)
    logits = one.predict(X[:9], verbose=0), np.log(other.predict(X[:9], verbose=0))
    wanted = np.mean([softmax(values / temperature) for values in logits], axis=0)
    assert np.allclose(answer, wanted, atol=1e-5) and not features


def test_without_a_teachers_share_it_is_plain_training_bit_for_bit():
    teacher, student, plain = dense(1, units=16), dense(2), dense(2)
    found = distilled(teacher, student, eval_data=(X, Y), alpha=0, patience=9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    plain.compile(keras.optimizers.Adam(0.01), loss, jit_compile=False)
    rows = batches(lambda chosen: (X[chosen], Y[chosen]), len(X), 32, seed=0)
    plain.fit(rows, epochs=2, shuffle=False, verbose=0)
    assert found.summary.best_epoch == 2
    assert same_weights(found.model, plain)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    teacher = dense(1)
    before = [weight.copy() for weight in teacher.get_weights()]
    found = distilled(teacher, teacher, X, epochs=1, task="classification")
    assert found.summary.metric == "agreement"
    assert found.summary.before.loss == pytest.approx(0, abs=1e-6)
    assert found.summary.before.metric == 1
    assert any("the loss is the teacher's alone" in note for note in found.summary.notes)
    for old, new in zip(before, found.model.get_weights(), strict=True):
        assert np.allclose(old, new, atol=0.05)
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.get_weights(), strict=True))


def test_an_unlabelled_student_learns_the_answers_of_two_teachers():
    teachers = [dense(1, units=16), dense(2, activation="softmax")]
    found = distilled(teachers, dense(3), X, epochs=6, learning_rate=0.03, task="classification")
    assert found.summary.after.loss < 0.5 * found.summary.before.loss
    assert found.summary.teacher is None
    kinds = [note.rpartition(" ")[2] for note in found.summary.notes if "answers with" in note]
    assert kinds == ["logits", "probabilities"]


def test_hints_reach_the_student_and_their_adapters_are_dropped():
    teacher, student = dense(1, 3, hidden="linear"), dense(2, 4, hidden="linear")
    settings = {"epochs": 4, "batch_size": 4, "learning_rate": 0.03, "alpha": 1.0}
    hints = {"hints": {"hidden": "hidden"}, "hint_weight": 1000.0}
    with_hint = distilled(teacher, student, **hints, **settings)
    assert [layer.name for layer in with_hint.model.layers] == [s.name for s in student.layers]

    def distance(model):
        """Return what is left of the teacher's features beyond a linear map of the student's."""
        ours, theirs = (
            np.asarray(keras.Model(m.inputs[0], m.get_layer("hidden").output)(X))
            for m in (model, teacher)
        )
        ours = np.hstack([ours, np.ones((len(ours), 1))])
        left = theirs - ours @ np.linalg.lstsq(ours, theirs, rcond=None)[0]
        return float(np.square(left).mean())

    assert distance(with_hint.model) < 0.3 * distance(student)


def test_pictures_of_a_teacher_of_another_kind_and_a_student_for_int8(tmp_path):
    """The teacher is a `.tflite` of raw pixels; the student takes others and trains for int8."""
    colours = np.eye(4, 3, dtype=np.uint8)
    colours[3] = 1
    y = np.arange(48) % 4
    noise = np.random.default_rng(0).integers(0, 80, (48, 16, 16, 3), dtype=np.uint8)
    x = noise + 170 * colours[y][:, None, None]
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3, 2, activation="relu")(image))
    student = keras.Model(image, layers.Dense(4, "softmax")(pooled))
    found = distilled(
        ASSETS / "classifier_fp32.tflite",
        student,
        (x, y),
        out=tmp_path / "aware.keras",
        preprocess="unit",
        teacher_preprocess="raw",
        augment=keras.layers.RandomFlip(seed=0),
        epochs=6,
        batch_size=8,
        learning_rate=0.03,
        qat=True,
    )
    assert found.summary.teacher.metric == 1
    assert found.summary.after.loss < 0.95 * found.summary.before.loss
    assert is_quantize_aware(found.model)
    bundle = edgekit.convert(
        tmp_path / "aware.keras", tmp_path / "out.edgekit", precision="int8", preprocess="unit"
    )
    tensor = bundle.manifest.inputs[0]
    assert tensor.dtype == bundle.manifest.outputs[0].dtype == "int8"


def masked(x):
    """Return a network of a class a pixel, which gives three of them."""
    image = keras.Input((8, 8, 3))
    inner = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    return keras.Model(image, layers.Conv2D(3, 1)(inner))


def test_segmentation_is_pixel_by_pixel_with_weights_and_moved_masks():
    keras.utils.set_random_seed(0)
    masks = (GRID[..., 0] // 100).astype(np.int64)
    masks[:, 0] = 255  # the class that is ignored
    found = distilled(
        masked(0),
        masked(1),
        (GRID, masks),
        preprocess="unit",
        augment="shift,flip",
        class_weights="balanced",
        clip_norm=1.0,
        cosine=True,
    )
    assert (found.summary.task, found.summary.metric) == ("segmentation", "mean_iou")
    assert found.summary.after.loss <= found.summary.before.loss


def recurrent(units, seed):
    keras.utils.set_random_seed(seed)
    steps = keras.Input((5, 3))
    x = layers.LSTM(units, return_sequences=True, name="memory")(steps)
    return keras.Model(steps, layers.Dense(3, name="answer")(x))


def test_sequences_are_learned_step_by_step():
    x = np.random.default_rng(0).normal(0, 1, (24, 5, 3)).astype("float32")
    settings = {"hints": {"memory": "memory"}, "augment": "shift", "epochs": 1}
    found = distilled(recurrent(6, 0), "width=0.5", (x, np.zeros((24, 5), int)), **settings)
    assert found.summary.task == "sequence"
    assert found.model.get_layer("memory").units == 3
    assert found.summary.after.loss < found.summary.before.loss


def test_frozen_layers_stay_and_are_freed_after_some_epochs():
    """The first epoch takes long steps and the second short ones: who moved when shows."""
    student = dense(2)
    settings = {"eval_data": (X, Y), "learning_rate": 0.02, "unfrozen_learning_rate": 1e-5}
    found = distilled(dense(1), student, freeze="hid*", freeze_epochs=1, **settings)
    assert found.summary.epochs == found.summary.best_epoch == 2
    moved = {
        name: np.abs(layer.get_weights()[0] - student.get_layer(name).get_weights()[0]).max()
        for name in ("hidden", "answer")
        for layer in [found.model.get_layer(name)]
    }
    assert 0 < moved["hidden"] < 1e-3 < moved["answer"]
    assert found.model.get_layer("hidden").trainable


def test_class_weights_are_counted_or_given():
    data = load_data((X[:8], np.array([0, 0, 0, 0, 1, 1, 2, 2])))
    of_student = case(shape=(1, 3))
    for given, wanted in (("balanced", [2 / 3, 4 / 3, 4 / 3]), ({1: 5.0}, [1, 5, 1])):
        settings = Distillation(data=None, class_weights=given)
        assert class_weights(of_student, data, settings)[:3] == pytest.approx(wanted)
    with pytest.raises(UsageError, match="has class 3; the model tells 3 classes apart"):
        class_weights(of_student, data, Distillation(data=None, class_weights={3: 1.0}))


def test_a_mask_moves_with_its_frame():
    masks = GRID[..., 2].astype(np.int64)  # RGB, and what is read is BGR
    data = load_data((GRID, masks))
    moved = augmenter("shift,flip", 3, masks=True)(data)
    assert not np.array_equal(np.stack(list(moved)), np.stack(list(data)))
    for frame, mask in zip(moved, moved.labels, strict=True):
        assert np.array_equal(frame[..., 0], mask)
    again = augmenter("shift,flip", 3, masks=True)(data)
    assert all(np.array_equal(a, b) for a, b in zip(moved, again, strict=True))
    other = augmenter("shift,flip", 4, masks=True)(data)
    assert not all(np.array_equal(a, b) for a, b in zip(moved, other, strict=True))


def test_a_layer_of_keras_gets_rgb_and_its_result_is_what_is_read():
    seen = []

    def layer(batch, training):
        seen.append(batch)
        return batch * 2

    changed = list(augmenter(layer, 0, masks=False)(load_data(GRID)))
    assert np.array_equal(seen[0], GRID.astype("float32"))
    assert np.array_equal(changed[0], np.minimum(2 * GRID[0, ..., ::-1].astype(int), 255))


def test_a_narrower_network_keeps_its_answers_and_its_names():
    x = keras.Input((16, 16, 3), name="image")
    y = layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = layers.BatchNormalization()(y)
    z = layers.DepthwiseConv2D(3, padding="same")(y)
    block = keras.Sequential([keras.Input((16, 16, 8)), layers.Conv2D(8, 1)], name="block")
    y = layers.Add()([y, block(z)])
    y = layers.TimeDistributed(layers.Conv1D(6, 3))(y)
    y = layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, layers.Softmax()(layers.Dense(5, name="classes")(y)))
    assert [layer.name for layer in heads(model)] == ["classes"]
    narrow = scaled(model, 0.5)
    assert narrow.get_layer("stem").filters == 4
    assert narrow.get_layer("block").layers[-1].filters == 4
    assert narrow.output_shape == model.output_shape
    assert [layer.name for layer in narrow.layers] == [layer.name for layer in model.layers]
    assert narrow.count_params() < 0.5 * model.count_params()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (layers.Conv2D(8, 3, groups=2, name="grouped"), r"grouped \(Conv2D\) has 2 groups"),
        (
            layers.MultiHeadAttention(2, 4, name="looks"),
            r"looks \(MultiHeadAttention\) has a width",
        ),
        (layers.Reshape((8 * 64,)), "cannot be made narrower"),
    ],
    ids=["groups", "attention", "shape"],
)
def test_what_cannot_be_narrower_is_named(layer, message):
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, padding="same")(x)
    y = layer(y, y) if isinstance(layer, layers.MultiHeadAttention) else layer(y)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    with pytest.raises(ModelError, match=message):
        scaled(model, 0.5)


def two_inputs():
    given = [keras.Input((6,)), keras.Input((6,))]
    return keras.Model(given, layers.Dense(4)(layers.Add()(given)))


def without_numbers():
    model = dense()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    return model


@pytest.mark.parametrize(
    ("teacher", "student", "settings", "error", "message"),
    [
        (dense(outputs=5), dense(), {}, ModelError, r"answers with \[None, 5\], the student with"),
        (dense(inputs=7), dense(), {}, DataError, "6"),
        (dense(), dense(), {"data": (X, Y + 2)}, DataError, "the model tells 4 classes apart"),
        (dense(), dense(), {"data": (X[:1], Y[:1])}, DataError, "cannot be held out"),
        (dense(), dense(), {"eval_data": X}, DataError, "has no labels"),
        (two_inputs(), dense(), {}, ModelError, "has 2 inputs and 1 outputs"),
        (dense(), two_inputs(), {}, ModelError, "this one has 2 and 1"),
        (dense(), "nowhere.keras", {}, ModelError, "no model at nowhere.keras"),
        (dense(), 7, {}, UsageError, "must be a path, width=0.5 or a Keras 3 model; got"),
        ([], dense(), {}, UsageError, "`teacher` is empty"),
        (dense(), "width=2", {}, UsageError, "must be above 0 and at most 1; got '2'"),
        (dense(), "width=half", {}, UsageError, "got 'half'"),
        (dense(), dense(), {"hints": {"no": "hidden"}}, ModelError, "has no layer 'no'; it has"),
        (dense(), dense(), {"hints": {"hidden": "no"}}, ModelError, "the student has no layer"),
        (dense(), dense(), {"alpha": 1.5}, UsageError, "`alpha` must be the teacher's share"),
        (dense(), dense(), {"temperature": 0}, UsageError, "`temperature` must be above 0; got 0"),
        (dense(), dense(), {"augment": "spin"}, UsageError, "one of shift, flip; got 'spin'"),
        (dense(), dense(), {"augment": 3}, UsageError, "or a layer of Keras; got int"),
        (dense(), dense(), {"augment": "flip"}, UsageError, "flip is for pictures"),
        (dense(), dense(), {"class_weights": "even"}, UsageError, "must be one of balanced"),
        (dense(), dense(), {"class_weights": {0: -1}}, UsageError, "must be 0 or more"),
        (dense(), dense(), {"freeze": "stem"}, UsageError, "'stem' is no layer; there are hidden"),
        (dense(), dense(), {"freeze": "*"}, UsageError, "is every layer"),
        (dense(), dense(), {"freeze_epochs": 9}, UsageError, "must be in 1..2; got 9"),
        (dense(), dense(), {"scheme": "tensorrt"}, UsageError, "need `qat`"),
        (dense(), dense(), {"freeze_after": 2}, UsageError, "need `qat`"),
        (dense(), dense(), {"task": "guess"}, UsageError, "`task` must be one of"),
        (without_numbers(), dense(), {}, ModelError, "teacher .* answers with NaN or infinity"),
        (dense(), without_numbers(), {}, ModelError, "the model.s loss is NaN before training"),
        (dense(), dense(), {"out": "out.h5"}, UsageError, "must be NAME.keras"),
    ],
)
def test_what_cannot_be_says_why(teacher, student, settings, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message) as raised:
        distilled(teacher, student, **{"out": "out.keras", **settings})
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_hints_of_other_shapes_are_refused():
    settings = {"hints": {"memory": "memory"}, "data": np.zeros((8, 5, 3), "float32")}
    teacher = recurrent(4, 0)
    steps = keras.Input((5, 3))
    inner = layers.Flatten(name="memory")(steps)
    student = keras.Model(steps, layers.Reshape((5, 3))(layers.Dense(15)(inner)))
    with pytest.raises(ModelError, match=r"layer 'memory' does not fit: it gives \[None, 15\]"):
        distilled(teacher, student, **settings)
