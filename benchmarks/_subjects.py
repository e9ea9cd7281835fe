"""What the benchmarks run on: models, pictures and a video."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import msgspec
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from edgekit.bundle import Bundle, Provenance, read_bundle
from edgekit.converters.assemble import draft_manifest
from edgekit.errors import BundleError
from edgekit.runtime.backends.litert import Backend
from edgekit.runtime.model import Model
from edgekit.specs import Postprocess, Preprocess

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
_ASSETS = ROOT / "tests" / "assets"
_VIDEO = "photos_handheld_1280x720_30fps.mp4"


class ModelFile(msgspec.Struct, frozen=True):
    """A compiled classifier, and how frames become its input."""

    name: str
    path: Path
    preprocess: str

    def opened(self) -> Model:
        """Return what `edgekit.open` gives for a bundle of this model, on one thread."""
        backend = Backend(self.path, 1)
        manifest = draft_manifest(
            backend,
            format="litert",
            model_file=self.path.name,
            task="classification",
            precision="int8" if backend.inputs[0].scale else "fp32",
            preprocess=Preprocess.parse(self.preprocess).for_input(backend.inputs[0]),
            postprocess=Postprocess(),
            target=None,
            fallbacks=(),
            recipe={},
            provenance=Provenance(self.path.name, "tflite", None, None, {}),
        )
        labels = tuple(f"class {i}" for i in range(backend.outputs[0].shape[-1]))
        return Model(Bundle(self.path.parent, manifest, labels), backend, "litert")


def interpreter_of(model: Model) -> Interpreter:
    """Return the interpreter that an opened model runs on, for the peer to run on too.

    Where an interpreter's memory happens to lie makes two of them on one model differ by 3 %.
    """
    assert isinstance(model.backend, Backend)
    return model.backend._interpreter


def small_classifier(precision: str) -> ModelFile:
    """Return the tests' classifier of 4 colours: 16x16 RGB 0..255, a few µs of arithmetic."""
    return ModelFile(f"4 classes, {precision}", _ASSETS / f"classifier_{precision}.tflite", "raw")


def network(name: str) -> ModelFile | None:
    """Return NETWORK_VARIANT of `_networks`, converted once and kept; None without TensorFlow.

    It is converted by another process: TensorFlow's threads and memory would be in the figures.
    """
    path = RESULTS / f"{name}.edgekit"
    try:
        bundle = read_bundle(path)
    except BundleError:
        if find_spec("tensorflow") is None:
            return None
        RESULTS.mkdir(exist_ok=True)
        code = f"from benchmarks._networks import convert; convert({name!r}, {str(path)!r})"
        log = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if log.returncode != 0:
            raise RuntimeError(f"converting {name} failed:\n{log.stderr[-2000:]}") from None
        bundle = read_bundle(path)
    return ModelFile(
        name.replace("_", " "), bundle.model_path, bundle.manifest.recipe["preprocess"]
    )


def picture() -> NDArray[np.uint8]:
    """Return a 1280x720 BGR picture, uint8: smooth coloured noise."""
    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC), np.uint8)


def development_data(name: str) -> Path | None:
    """Return a file of the development data, which is not part of EdgeKit, or None without it."""
    file = Path(os.environ.get("EDGEKIT_DATA") or ROOT.parent / "shared" / "data") / name
    return file if file.is_file() else None


def video() -> Path:
    """Return a 1280x720 video file: the development data's h264, or one that is made here.

    OpenCV's own packages cannot write h264: what is made here is MPEG-4 part 2.
    """
    there = development_data(_VIDEO)
    if there is not None:
        return there
    path = RESULTS / "moving_noise_1280x720.mp4"
    if not path.is_file():
        RESULTS.mkdir(exist_ok=True)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (1280, 720))
        for shift in range(0, 1200, 4):
            writer.write(np.roll(picture(), shift, axis=1))
        writer.release()
    return path


def frames(path: Path, every: int) -> Iterator[NDArray[np.uint8]]:
    """Yield each `every`-th frame of a video, uint8 BGR [h, w, 3]."""
    capture = cv2.VideoCapture(str(path))
    number = 0
    while capture.grab():
        if number % every == 0:
            yield np.asarray(capture.retrieve()[1], np.uint8)
        number += 1
    capture.release()
