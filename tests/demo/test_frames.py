"""The demo's frames and video, and the trained model that is shipped with it."""

import errno
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import edgekit.demo
from edgekit.cli import main
from edgekit.errors import OutputError, UsageError

cv2 = pytest.importorskip("cv2")

from edgekit.demo.frames import LABELS, animate, draw_frame, make_set, write_video  # noqa: E402

DEMO = Path(edgekit.demo.__file__).parent
TRAIN = Path(__file__).parents[2] / "examples" / "train_demo_model.py"


def signed(frames):
    return frames.astype(np.float32) / 127.5 - 1


def test_importing_the_frames_imports_neither_opencv_nor_a_framework():
    code = (
        "import sys, edgekit.demo.frames; "
        "print([m for m in ('cv2', 'keras', 'tensorflow') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("label", range(len(LABELS)))
@pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 130), (121, 64)])
def test_a_frame_is_bgr_uint8_and_the_same_for_the_same_seed(label, height, width):
    first = draw_frame(label, np.random.default_rng(7), height, width)
    again = draw_frame(label, np.random.default_rng(7), height, width)
    assert first.shape == (height, width, 3)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)


def test_each_label_draws_something_else_over_the_same_background():
    drawn = [
        draw_frame(label, np.random.default_rng(3), 96, 96).astype(int)
        for label in range(len(LABELS))
    ]
    for index, one in enumerate(drawn):
        for other in drawn[index + 1 :]:
            changed = np.abs(one - other).max(axis=2) > 40
            assert 0.01 < changed.mean() < 0.6


@pytest.mark.parametrize("label", [-1, len(LABELS)])
def test_a_label_that_is_not_there_is_refused(label):
    with pytest.raises(UsageError, match=rf"`label_index` must be 0 to 7; got {label}"):
        draw_frame(label, np.random.default_rng(0), 96, 96)


def test_a_set_is_deterministic_balanced_and_typed():
    frames, labels = make_set(40, seed=4)
    assert frames.shape == (40, 96, 96, 3)
    assert frames.dtype == np.uint8
    assert labels.shape == (40,)
    assert labels.dtype == np.int64
    assert np.bincount(labels, minlength=len(LABELS)).tolist() == [5] * len(LABELS)
    again, labels_again = make_set(40, seed=4)
    np.testing.assert_array_equal(frames, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert not np.array_equal(frames, make_set(40, seed=5)[0])


def test_a_set_may_be_of_any_count_and_size():
    frames, labels = make_set(3, seed=0, size=(32, 64))
    assert frames.shape == (3, 32, 64, 3)
    assert len(labels) == 3
    empty, none = make_set(0, seed=0)
    assert empty.shape == (0, 96, 96, 3)
    assert none.dtype == np.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0), "`count` must be 0 or more; got -1"),
        ((1, 0, (8, 96)), "16 pixels or more; got 8x96"),
    ],
)
def test_a_set_that_cannot_be_drawn_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        make_set(*arguments)


def test_the_animation_shows_every_label_and_moves_smoothly():
    shown, previous, steps = [], None, []
    for label, frame in animate(seconds=10, size=(160, 120), rate_hz=30, seed=2):
        assert frame.shape == (120, 160, 3)
        if shown and label == shown[-1]:
            steps.append(np.abs(frame.astype(int) - previous).mean())
        shown.append(label)
        previous = frame
    assert len(shown) == 300
    assert set(shown) == set(range(len(LABELS)))
    assert sum(one != other for one, other in zip(shown, shown[1:], strict=False)) == 7
    # Something moves in every frame, and nothing jumps.
    assert min(steps) > 0.05
    assert max(steps) < 25


def test_the_video_holds_the_frames_that_were_drawn(tmp_path):
    path = tmp_path / "shapes.mp4"
    write_video(path, seconds=1.5, size=(160, 120), rate_hz=20, seed=6)
    assert [file.name for file in tmp_path.iterdir()] == ["shapes.mp4"]
    video = cv2.VideoCapture(str(path))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    for _, drawn in animate(1.5, (160, 120), 20, 6):
        found, frame = video.read()
        assert found
        assert np.abs(frame.astype(int) - drawn).mean() < 12
    assert not video.read()[0]


def test_a_video_replaces_an_older_one(tmp_path):
    path = tmp_path / "shapes.mp4"
    path.write_bytes(b"old")
    write_video(path, seconds=0.2, size=(64, 48))
    assert cv2.VideoCapture(str(path)).read()[0]


def test_a_video_in_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*its folder does not exist"):
        write_video(tmp_path / "missing" / "shapes.mp4", seconds=0.2, size=(64, 48))


def test_a_video_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "shapes.mp4"
    path.write_bytes(b"old")

    def full_disk(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("edgekit.demo.frames.draw_shape", full_disk)
    with pytest.raises(OutputError, match="the disk is full"):
        write_video(path, seconds=0.2, size=(64, 48))
    assert [file.name for file in tmp_path.iterdir()] == ["shapes.mp4"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("shapes.avi", {}, "must end in .mp4"),
        ("shapes.mp4", {"seconds": 0}, "must give a frame or more; got 0"),
        ("shapes.mp4", {"rate_hz": 0}, "must give a frame or more"),
        ("shapes.mp4", {"size": (65, 48)}, "even"),
    ],
)
def test_a_video_that_cannot_be_is_refused(tmp_path, name, settings, message):
    with pytest.raises(UsageError, match=message):
        write_video(tmp_path / name, **settings)
    assert not list(tmp_path.iterdir())


def test_the_labels_file_names_the_classes_in_order():
    assert (DEMO / "labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)
    assert (DEMO / "model.keras").stat().st_size < 600_000


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    return keras.saving.load_model(DEMO / "model.keras", compile=False, safe_mode=True)


@pytest.mark.convert
def test_the_shipped_model_names_new_frames(model):
    frames, labels = make_set(300, seed=1234)
    answers = model.predict(signed(frames), verbose=0)
    assert answers.shape == (300, len(LABELS))
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    assert (answers.argmax(axis=1) == labels).mean() >= 0.95


@pytest.mark.convert
def test_the_shipped_model_names_the_shapes_of_a_video(model):
    labels, frames = zip(*list(animate(10, (640, 480), rate_hz=6, seed=11)), strict=True)
    inputs = np.stack([cv2.resize(frame, (96, 96))[..., ::-1] for frame in frames])
    answers = model.predict(signed(inputs), verbose=0).argmax(axis=1)
    assert (answers == np.array(labels)).mean() >= 0.95


@pytest.mark.convert
def test_the_training_script_writes_a_model_and_its_labels(tmp_path):
    pytest.importorskip("tensorflow")
    output = tmp_path / "model.keras"
    command = [sys.executable, TRAIN, "--output", output, "--epochs", "1", "--samples", "64"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "parameters" in result.stdout
    assert output.stat().st_size < 600_000
    assert (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines() == list(LABELS)


def test_the_shipped_model_loads_in_the_oldest_keras_that_is_pinned():
    """Keras loads what older versions of it saved, not what newer ones did."""
    import json
    import re
    import zipfile
    from pathlib import Path

    import edgekit.demo

    model = Path(edgekit.demo.__file__).with_name("model.keras")
    with zipfile.ZipFile(model) as archive:
        saved_by = json.loads(archive.read("metadata.json"))["keras_version"]
    constraints = Path(__file__).parents[2] / "constraints.txt"
    pinned = re.findall(r"^keras==([0-9.]+)", constraints.read_text(), re.MULTILINE)
    versions = [tuple(map(int, version.split("."))) for version in (*pinned, saved_by)]
    assert len(versions) > 1
    assert versions[-1] <= min(versions)


@pytest.mark.parametrize("package", ["tensorflow", "jinja2"])
def test_what_the_demo_lacks_is_told_before_it_writes(package, tmp_path, monkeypatch, capsys):
    # Whatever is installed here, the other one is there.
    for name in ("tensorflow", "jinja2"):
        present = ModuleType(name)
        present.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, None if name == package else present)
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 3
    assert f"{package} is needed" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
