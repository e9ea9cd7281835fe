"""Opening trained models of every kind, without running what came with them."""

import io
import json
import os
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edgekit.converters.sources.trusted_config import check_config
from edgekit.errors import EdgeKitError, ModelError, UnsafeModelError, UsageError
from edgekit.specs import TensorSpec

pytestmark = pytest.mark.convert
keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
h5py = pytest.importorskip("h5py")

from edgekit.converters.formats.litert import emit  # noqa: E402
from edgekit.converters.sources import open_source  # noqa: E402

layers = keras.layers


def small(shape=(8, 8, 3), **options):
    image = keras.Input(shape, name="image", **options)
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(5, name="scores")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x, name="small")


def image(shape=(1, 8, 8, 3)):
    return np.random.default_rng(3).random(shape, np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One small model, saved in every way that Keras 3 has."""
    folder = tmp_path_factory.mktemp("saved")
    keras.utils.set_random_seed(0)
    model = small()
    model.save(folder / "m.keras")
    model.save(folder / "m.h5")
    model.export(folder / "saved_model", verbose=False)
    source = open_source(model, scratch=folder)
    (folder / "m.tflite").write_bytes(emit(source, "fp32", None).content)
    return folder, np.asarray(model(image()))


@pytest.fixture(scope="module")
def keras_2(tmp_path_factory):
    """A .h5 of Keras 2 that Keras 3 refuses, and what it answers; made in a process of its own."""
    pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("keras_2")
    script = """
import sys, numpy as np, tf_keras as k, tensorflow as tf
image = k.Input((8, 8, 3), name="image"); size = k.Input((2,), name="a_size")
x = k.layers.DepthwiseConv2D(3, padding="same")(image)
x = k.layers.BatchNormalization()(x)
x = tf.nn.relu6(x + 0.5)
x = k.layers.Flatten()(x)
x = k.layers.Concatenate()([x, size])
m = k.Model([image, size], [k.layers.Dense(5, name="z_scores")(x), k.layers.Dense(2, name="a")(x)])
m.save(sys.argv[1] + "/m.h5")
image = np.random.default_rng(3).random((1, 8, 8, 3), np.float32)
z, a = m([image, np.ones((1, 2), np.float32)])
np.savez(sys.argv[1] + "/answers.npz", z=z, a=a)
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
    )
    return folder / "m.h5", np.load(folder / "answers.npz")


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("m.keras", "keras", 1e-6),
        ("m.h5", "keras", 1e-6),
        ("saved_model", "saved_model", 1e-6),
        ("m.tflite", "tflite", 1e-5),
    ],
)
def test_every_kind_answers_as_the_model(saved, tmp_path, name, kind, tolerance):
    folder, expected = saved
    source = open_source(folder / name, scratch=tmp_path)
    assert source.kind == kind
    assert source.inputs == (TensorSpec(name="image", shape=(1, 8, 8, 3), dtype="float32"),)
    assert [(t.shape, t.dtype) for t in source.outputs] == [((1, 5), "float32")]
    (got,) = source.predict([image()])
    np.testing.assert_allclose(got, expected, atol=tolerance)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved_model"])
def test_every_kind_converts(saved, tmp_path, name):
    folder, expected = saved
    source = open_source(folder / name, scratch=tmp_path)
    path = tmp_path / "out.tflite"
    path.write_bytes(emit(source, "fp32", None).content)
    (got,) = open_source(path, scratch=tmp_path).predict([image()])
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_keras_model_stays_reachable(saved, tmp_path):
    folder, _ = saved
    assert isinstance(open_source(folder / "m.keras", scratch=tmp_path).model, keras.Model)
    assert open_source(folder / "saved_model", scratch=tmp_path).model is None


def test_keras_2_goes_through_tf_keras(keras_2, tmp_path):
    path, answers = keras_2
    source = open_source(path, scratch=tmp_path)
    assert source.kind == "keras_legacy"
    assert [t.name for t in source.inputs] == ["image", "a_size"]
    assert [t.name for t in source.outputs] == ["z_scores", "a"]
    got = source.predict([image(), np.ones((1, 2), np.float32)])
    np.testing.assert_allclose(got[0], answers["z"], atol=1e-5)
    np.testing.assert_allclose(got[1], answers["a"], atol=1e-5)
    path = tmp_path / "out.tflite"
    path.write_bytes(emit(source, "fp32", None).content)
    got = open_source(path, scratch=tmp_path).predict([image(), np.ones((1, 2), np.float32)])
    np.testing.assert_allclose(got[0], answers["z"], atol=1e-4)


def test_saved_model_with_several_inputs_and_outputs(tmp_path):
    class Module(tf.Module):
        def __init__(self):
            super().__init__()
            self.factor = tf.Variable(3.0)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, 4), tf.float32, "second"),
                tf.TensorSpec((None, 2), tf.float32, "first"),
            ]
        )
        def call(self, second, first):
            return {"z": second * self.factor, "b": tf.reduce_sum(first, 1, keepdims=True)}

    module = Module()
    folder = tmp_path / "m"
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.call})
    source = open_source(folder, scratch=tmp_path)
    assert sorted(t.name for t in source.inputs) == ["first", "second"]
    assert [(t.name, t.shape) for t in source.outputs] == [("b", (1, 1)), ("z", (1, 4))]
    values = {"second": np.ones((1, 4), np.float32), "first": np.full((1, 2), 2, np.float32)}
    b, z = source.predict([values[t.name] for t in source.inputs])
    np.testing.assert_allclose(b, [[4]])
    np.testing.assert_allclose(z, [[3, 3, 3, 3]])
    path = tmp_path / "out.tflite"
    path.write_bytes(emit(source, "fp32", None).content)
    again = open_source(path, scratch=tmp_path).predict([values[t.name] for t in source.inputs])
    np.testing.assert_allclose(again[1], z)


def test_many_outputs_of_a_saved_model_keep_their_order(tmp_path):
    rows = keras.Input((12,), name="rows")
    outputs = [rows[:, index : index + 1] for index in range(12)]
    keras.Model(rows, outputs).export(tmp_path / "m", verbose=False)
    source = open_source(tmp_path / "m", scratch=tmp_path)
    got = source.predict([np.arange(12, dtype=np.float32)[None]])
    assert [float(array[0, 0]) for array in got] == list(range(12))


def test_open_dimensions_are_fixed_by_input_shape(tmp_path):
    model = small((None, None, 3))
    with pytest.raises(ModelError, match="--input-shape 1x224x224x3"):
        open_source(model, scratch=tmp_path)
    source = open_source(model, scratch=tmp_path, input_shape=(1, 16, 12, 3))
    assert source.inputs[0].shape == (1, 16, 12, 3)
    (got,) = source.predict([image((1, 16, 12, 3))])
    np.testing.assert_allclose(got, np.asarray(model(image((1, 16, 12, 3)))), atol=1e-6)


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "saved_model", "m.tflite"])
@pytest.mark.parametrize("shape", [(1, 9, 9, 3), (2, 8, 8, 3), (1, 8, 8), (), (1, 8, 8, -3)])
def test_input_shape_that_contradicts(saved, tmp_path, name, shape):
    with pytest.raises(ModelError, match="contradicts"):
        open_source(saved[0] / name, scratch=tmp_path, input_shape=shape)


def test_input_shape_that_agrees(saved, tmp_path):
    for name in ("m.keras", "saved_model", "m.tflite"):
        source = open_source(saved[0] / name, scratch=tmp_path, input_shape=(1, 8, 8, 3))
        assert source.inputs[0].shape == (1, 8, 8, 3)


def test_predict_checks_its_inputs(saved, tmp_path):
    for name in ("m.keras", "m.tflite"):
        source = open_source(saved[0] / name, scratch=tmp_path)
        with pytest.raises(ModelError, match="shape"):
            source.predict([image((1, 4, 4, 3))])
        with pytest.raises(ModelError, match="takes 1 inputs; got 2"):
            source.predict([image(), image()])


def test_what_is_no_model_in_memory(tmp_path):
    with pytest.raises(UsageError, match="Keras 3 model; got builtins.dict"):
        open_source({}, scratch=tmp_path)


# --- what a file would execute -----------------------------------------------------------------


class Scale(keras.layers.Layer):
    """A custom layer."""

    def call(self, x):
        return x * 2.0


def double(x):
    """Stand for a named function in a Lambda."""
    return x * 2.0


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_layer_needs_custom_objects(tmp_path, suffix):
    rows = keras.Input((3,), name="rows")
    path = tmp_path / f"custom{suffix}"
    keras.Model(rows, Scale(name="scale")(rows)).save(path)
    with pytest.raises(UnsafeModelError, match=r"layer 'scale' needs 'Scale'.*custom_objects="):
        open_source(path, scratch=tmp_path)
    source = open_source(path, scratch=tmp_path, custom_objects={"Scale": Scale})
    (got,) = source.predict([np.ones((1, 3), np.float32)])
    np.testing.assert_allclose(got, [[2, 2, 2]])


def own_loss(truth, answer):
    """Stand for a loss of the trainer's own."""
    return keras.ops.mean(keras.ops.abs(truth - answer))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_losses_of_training_are_not_needed(tmp_path, suffix):
    model = small()
    model.compile(optimizer="adam", loss=own_loss, metrics=["mae"])
    model.save(tmp_path / f"m{suffix}")
    assert open_source(tmp_path / f"m{suffix}", scratch=tmp_path).kind == "keras"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_lambda_with_code_is_refused_always(tmp_path, suffix):
    rows = keras.Input((3,), name="rows")
    path = tmp_path / f"code{suffix}"
    keras.Model(rows, layers.Lambda(lambda x: x + 1, name="sneaky")(rows)).save(path)
    for custom_objects in (None, {"Lambda": layers.Lambda}):
        with pytest.raises(UnsafeModelError, match="layer 'sneaky' is a Lambda"):
            open_source(path, scratch=tmp_path, custom_objects=custom_objects)


def test_lambda_of_a_named_function_needs_it(tmp_path):
    rows = keras.Input((3,), name="rows")
    path = tmp_path / "named.keras"
    keras.Model(rows, layers.Lambda(double, name="named")(rows)).save(path)
    with pytest.raises(UnsafeModelError, match="layer 'named'"):
        open_source(path, scratch=tmp_path)
    source = open_source(path, scratch=tmp_path, custom_objects={"double": double})
    (got,) = source.predict([np.ones((1, 3), np.float32)])
    np.testing.assert_allclose(got, [[2, 2, 2]])


def rewrite(path, change):
    """Change the configuration inside a .keras file."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"class_name": "Popen", "module": "subprocess", "config": {"args": "x"}}, "Popen"),
        ({"class_name": "function", "module": "os", "config": "system"}, "system"),
        ({"class_name": "function", "module": "keras.utils", "config": "get_file"}, "get_file"),
        ({"class_name": "function", "module": "keras.models", "config": "load_model"}, "load_m"),
        ({"class_name": "function", "module": "builtins", "config": "exec"}, "exec"),
        ({"class_name": "__lambda__", "config": {"value": "4wEAAAA="}}, "Lambda"),
        ({"class_name": "Thing", "module": "keras_hub.layers", "config": {}}, "Thing"),
        ({"class_name": "TFOpLambda", "config": {"function": "io.write_file"}}, "io.write_file"),
        ({"class_name": "TensorFlowOpLayer", "config": {}}, "TensorFlowOpLayer"),
        ({"class_name": 7, "config": {}}, "no name"),
    ],
)
def test_objects_that_are_not_keras_own(saved, tmp_path, entry, says):
    path = tmp_path / "m.keras"
    path.write_bytes((saved[0] / "m.keras").read_bytes())
    rewrite(path, lambda config: config["config"]["layers"][1]["config"].update(activation=entry))
    with pytest.raises(ModelError, match=says) as caught:
        open_source(path, scratch=tmp_path)
    assert "\n" not in str(caught.value)


def test_functions_of_keras_are_its_own(saved, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes((saved[0] / "m.keras").read_bytes())
    entry = {"class_name": "function", "module": "keras.activations", "config": "tanh"}
    rewrite(path, lambda config: config["config"]["layers"][1]["config"].update(activation=entry))
    assert open_source(path, scratch=tmp_path).kind == "keras"


def test_keras_zip_of_keras_2_says_how_to_save_it(saved, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes((saved[0] / "m.keras").read_bytes())
    rewrite(path, lambda config: config.update(module="tf_keras.src.engine.functional"))
    with pytest.raises(ModelError, match="save it as .h5 or SavedModel"):
        open_source(path, scratch=tmp_path)


def test_saved_model_that_reads_files(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.float32, "x")])
        def call(self, x):
            size = tf.strings.length(tf.io.read_file("/etc/passwd"))
            return {"y": x + tf.cast(size, tf.float32)}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.call})
    with pytest.raises(UnsafeModelError, match="ReadFile"):
        open_source(tmp_path / "m", scratch=tmp_path)


def test_saved_model_that_writes_files_under_the_savers_name(tmp_path):
    """The saver of every SavedModel may write; a function that only bears its name may not."""
    target = tmp_path / "written"

    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.float32, "x")])
        def _traced_save(self, x):
            tf.raw_ops.SaveV2(
                prefix=str(target), tensor_names=["x"], shape_and_slices=[""], tensors=[x]
            )
            return {"y": tf.boolean_mask(x, x > 0)}  # a shape that only running would tell

    module = Module()
    signatures = {"serving_default": module._traced_save}
    tf.saved_model.save(module, str(tmp_path / "m"), signatures=signatures)
    with pytest.raises(UnsafeModelError, match="SaveV2"):
        open_source(tmp_path / "m", scratch=tmp_path)
    assert not list(tmp_path.glob("written*"))


@pytest.mark.parametrize("entry", ["TFSMLayer", "StringLookup"])
def test_layers_that_read_files_are_refused(entry):
    inner = (
        {"name": "reader", "filepath": "/etc"}
        if entry == "TFSMLayer"
        else {
            "name": "reader",
            "vocabulary": "/etc/passwd",
        }
    )
    layer = {"class_name": entry, "module": "keras.layers", "config": inner}
    config = {"class_name": "Sequential", "module": "keras", "config": {"layers": [layer]}}
    with pytest.raises(UnsafeModelError, match=f"layer 'reader' is a {entry} that reads"):
        check_config(config, {}, "m.keras")


def test_saved_model_that_calls_python(tmp_path):
    class Module(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, 2), tf.float32, "x")])
        def call(self, x):
            return {"y": tf.ensure_shape(tf.numpy_function(lambda v: v, [x], tf.float32), (1, 2))}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"serving_default": module.call})
    with pytest.raises(UnsafeModelError, match="PyFunc"):
        open_source(tmp_path / "m", scratch=tmp_path)


def test_saved_model_without_signature(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
    with pytest.raises(ModelError, match="no signature serving_default; it has none"):
        open_source(tmp_path / "m", scratch=tmp_path)


# --- damaged files -----------------------------------------------------------------------------


def _deep(_):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", '{"class_name": "Model", "config": ' + "[" * 100_000)
    return buffer.getvalue()


def _nested(_):
    config = '{"class_name": "Model", "config": ' + "[" * 400 + "]" * 400 + "}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", config)
    return buffer.getvalue()


DAMAGES = {
    "empty": lambda _: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "only the start": lambda content: content[:16],
    "random": lambda content: random.Random(1).randbytes(len(content)),
    "start, then random": lambda content: content[:8] + random.Random(1).randbytes(2000),
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.tflite"])
def test_damaged_files(saved, tmp_path, name, damage):
    path = tmp_path / name
    path.write_bytes(DAMAGES[damage]((saved[0] / name).read_bytes()))
    assert_one_line(path, tmp_path)


@pytest.mark.parametrize("make", [_deep, _nested])
def test_absurdly_nested_configuration(tmp_path, make):
    path = tmp_path / "deep.keras"
    path.write_bytes(make(None))
    assert_one_line(path, tmp_path, "deeply")


def test_packed_bomb(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", bytes(65 << 20))
    assert_one_line(path, tmp_path, "refused")


@pytest.mark.parametrize("name", ["m.keras", "m.tflite"])
def test_flipped_bits(saved, tmp_path, name):
    content = (saved[0] / name).read_bytes()
    rng = random.Random(4)
    for _ in range(10):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path = tmp_path / name
        path.write_bytes(bytes(damaged))
        try:
            open_source(path, scratch=tmp_path)
        except EdgeKitError as error:
            assert "\n" not in str(error)  # what got through unharmed may open


@pytest.mark.parametrize("damage", list(DAMAGES))
@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.index"])
def test_damaged_saved_model(saved, tmp_path, part, damage):
    folder = tmp_path / "m"
    for file in (saved[0] / "saved_model").rglob("*"):
        if file.is_file():
            copy = folder / file.relative_to(saved[0] / "saved_model")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    (folder / part).write_bytes(DAMAGES[damage]((folder / part).read_bytes()))
    assert_one_line(folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("m.onnx", b"x", "is not an .onnx file"),
        ("model", b"x", "unknown kind ''"),
        ("m.keras", b"\x89HDF\r\n\x1a\n", "its content is that of .h5"),
        ("m.h5", b"PK\x03\x04____", "is not a Keras HDF5 model"),
    ],
)
def test_wrong_kinds(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_bytes(content)
    assert_one_line(path, tmp_path, says)


def test_missing_and_empty_folders(tmp_path):
    assert_one_line(tmp_path / "no.keras", tmp_path, "no model at")
    assert_one_line(tmp_path, tmp_path, "without saved_model.pb")


def test_weights_only(tmp_path):
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    assert_one_line(tmp_path / "weights.h5", tmp_path, "weights without a model")


def assert_one_line(path, scratch, says=None):
    with pytest.raises(ModelError, match=says) as caught:
        open_source(path, scratch=scratch)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_model_of_python_code_needs_a_shape(tmp_path):
    class Coded(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Coded()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(ModelError, match="does not say what it takes.*--input-shape"):
        open_source(model, scratch=tmp_path)
    x = np.ones((1, 4), np.float32)
    source = open_source(model, scratch=tmp_path, input_shape=(1, 4))
    np.testing.assert_allclose(source.predict([x])[0], model(x), rtol=1e-5)
