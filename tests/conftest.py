"""What all tests share: skips that say why, and the folder of development data."""

import importlib.util
import os
from pathlib import Path

import pytest

# ONNX Runtime starts to upload as it is imported, by whichever test.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("tensorflow") is not None:
        return
    skip = pytest.mark.skip(reason="tensorflow is not installed: pip install -e '.[convert]'")
    for item in items:
        if item.get_closest_marker("convert"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared_data():
    """Return the folder of data that may be used for tests and must not enter the repository."""
    folder = Path(os.environ.get("EDGEKIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no development data: {folder} is not a folder; set EDGEKIT_DATA to it")
    return folder


ASSETS = Path(__file__).parent / "assets"
LABELS = {
    "classifier": ("red", "green", "blue", "white"),
    "segmenter": ("dark", "red", "bright"),
    "echo": (),
}
TASKS = {"classifier": "classification", "segmenter": "segmentation", "echo": "regression"}


def write_bundle_of(folder, name="classifier", precision="int8", preprocess="raw", frames=True):
    """Write `NAME_PRECISION.edgekit` in `folder` from the models in tests/assets; return its path.

    The models take 16x16 RGB 0..255: the classifier tells the colour that fills the frame, the
    segmenter tells dark, red or bright for each pixel, at half the size. The echo, of fp32 only,
    takes four steps of two numbers and gives these eight.
    """
    import msgspec
    import numpy as np

    from edgekit.bundle import Bundle, Golden, Provenance, write_bundle
    from edgekit.converters.assemble import draft_manifest, golden_samples
    from edgekit.converters.samples import synthetic
    from edgekit.golden import write_golden
    from edgekit.runtime.backends.litert import Backend
    from edgekit.runtime.model import Model
    from edgekit.specs import Postprocess, Preprocess

    model_path = ASSETS / f"{name}_{precision}.tflite"
    with Backend(model_path, 1) as backend:
        complete = Preprocess.parse(preprocess).for_input(backend.inputs[0])
        manifest = draft_manifest(
            backend,
            format="litert",
            model_file="model.tflite",
            task=TASKS[name],
            precision=precision,
            preprocess=complete,
            postprocess=Postprocess(),
            target=None,
            fallbacks=(),
            recipe={},
            provenance=Provenance(name, "tflite", None, None, {}),
        )
        data = synthetic(complete, backend.inputs, 3)
        frames = frames and complete.size is not None
        if not frames and complete.size is not None:
            random = np.random.default_rng(0)
            data = msgspec.structs.replace(
                data, read=lambda i: random.uniform(0, 255, (16, 16, 3)).astype(np.float32)
            )
        model = Model(Bundle(model_path.parent, manifest, LABELS[name]), backend, "litert")
        samples = golden_samples(model, data, keep_frames=frames)
    manifest = msgspec.structs.replace(
        manifest, golden=Golden(len(samples), synthetic=True, frames=frames)
    )
    files = {
        "model.tflite": model_path.read_bytes(),
        "golden.npz": write_golden(samples),
    }
    if LABELS[name]:
        files["labels.txt"] = "".join(f"{label}\n" for label in LABELS[name]).encode()
    return write_bundle(folder / f"{name}_{precision}.edgekit", manifest, files).path


@pytest.fixture
def make_bundle(tmp_path):
    """Return a function that writes a bundle from tests/assets into `tmp_path`."""
    return lambda **choices: write_bundle_of(tmp_path, **choices)


@pytest.fixture(scope="session")
def classifier_bundle(tmp_path_factory):
    """Return an int8 bundle that tells which colour fills a frame; not to be changed."""
    return write_bundle_of(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def segmenter_bundle(tmp_path_factory):
    """Return an int8 bundle that tells dark, red and bright pixels; not to be changed."""
    return write_bundle_of(tmp_path_factory.mktemp("bundle"), "segmenter")


@pytest.fixture
def bundle_of_onnx(tmp_path, classifier_bundle):
    """Return a function that puts an .onnx file into a bundle that is only built, never run."""
    import msgspec

    from edgekit.bundle import read_bundle, write_bundle

    def bundle_of_onnx(model):
        other = read_bundle(classifier_bundle)
        manifest = msgspec.structs.replace(other.manifest, format="onnx", model="model.onnx")
        files = {name: (other.path / name).read_bytes() for name in ("golden.npz", "labels.txt")}
        files["model.onnx"] = model.read_bytes()
        return write_bundle(tmp_path / "built.edgekit", manifest, files).path

    return bundle_of_onnx


@pytest.fixture
def standard_input(tmp_path, monkeypatch):
    """Return a function that puts a text onto standard input."""
    opened = []

    def standard_input(text):
        path = tmp_path / "standard_input"
        path.write_text(text)
        opened.append(path.open())
        monkeypatch.setattr("sys.stdin", opened[-1])

    yield standard_input
    for file in opened:
        file.close()
