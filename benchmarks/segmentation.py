"""U-Nets on electron micrographs: what int8 costs, and tiles against pictures made smaller.

Ours: two U-Nets of 118,000 parameters, enlarging by transposed convolution and by bilinear
upsampling, trained on the 20 training pictures of `isbi_membrane_dev.npz` (folder EDGEKIT_DATA) at
256x256, and one trained on 256x256 parts of the pictures of 512x512 and run on tiles. All are
converted by `edgekit.convert` with the training pictures as calibration set.

Peer: the same networks in Keras, with the same preprocessing and decoding.

It must show: in int8 at most 0.5 points less mean IoU than in float, on the 4 validation pictures.
Mean IoU at 512x512, of tiles and of pictures made smaller, is for information, as is what it costs
to repeat classes instead of interpolating scores.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

import edgekit
from benchmarks import _unets
from benchmarks._measure import Effort, Row, Spread
from benchmarks._subjects import development_data
from edgekit.bundle import Accuracy
from edgekit.data import load_data
from edgekit.evaluation.evaluate import evaluate
from edgekit.runtime.model import Model, open_model

_MOST_LOST = 0.5
_SMALLER = "unit,interpolation=area"
_TILES = "unit,resize=tile"


def measure(effort: Effort) -> list[Row]:
    file = development_data("isbi_membrane_dev.npz")
    if file is None or find_spec("tensorflow") is None:
        print("note: segmentation needs TensorFlow and the development data (EDGEKIT_DATA)")
        return []
    steps = 2 if effort == "tiny" else 400
    kinds: tuple[_unets.Upsampling, ...] = ("transposed", "bilinear")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds[: 1 if effort == "tiny" else None]:
            model = _unets.trained(file, kind, steps, full_size=False)
            smaller = _unets.halved(*_unets.split(file, "val"))
            for format_ in ("litert", "onnx"):
                out = Path(folder) / f"{kind}.{format_}.edgekit"
                found = _convert(model, out, file, format_, "unit", smaller, effort)
                rows += _rows(f"{kind}, 256x256, {format_} int8", found)
        out = Path(folder) / "smaller.edgekit"
        val = _unets.split(file, "val")
        model = _unets.trained(file, "transposed", steps, full_size=False)
        found = _convert(model, out, file, "litert", _SMALLER, val, effort)
        rows += _rows("512x512 made 256x256, int8", found)
        rows.append(Row("512x512 made 256x256, int8, classes repeated", _repeated(out, val), "%"))
        if effort != "tiny":
            model = _unets.trained(file, "transposed", steps, full_size=True)
            out = Path(folder) / "tiles.edgekit"
            found = _convert(model, out, file, "litert", _TILES, val, effort)
            rows += _rows("512x512 on tiles of 256x256, int8", found)
    return rows


def _convert(
    model: Path,
    out: Path,
    file: Path,
    format_: Literal["litert", "onnx"],
    preprocess: str,
    evaluation: Any,
    effort: Effort,
) -> Accuracy:
    pictures, masks = _unets.split(file, "train")
    if evaluation[0].shape[1] == _unets.SIDE:
        pictures, masks = _unets.halved(pictures, masks)
    bundle = edgekit.convert(
        model,
        out,
        precision="int8",
        format=format_,
        data=pictures,
        eval_data=evaluation,
        preprocess=preprocess,
        labels=["membrane", "cell"],
        **({"int8_steps": ()} if effort == "tiny" else {}),
    )
    assert bundle.manifest.accuracy is not None
    return bundle.manifest.accuracy


def _rows(title: str, found: Accuracy) -> list[Row]:
    return [
        Row(f"{title}: mean IoU of float", _once(100 * found.source), unit="%"),
        Row(f"{title}: points lost", _once(100 * found.drop), unit="%", at_most=_MOST_LOST),
    ]


def _repeated(path: Path, evaluation: Any) -> Spread:
    """Return the mean IoU of a bundle that repeats classes to get to the frame's size, percent."""
    with open_model(path) as opened:
        manifest = opened.bundle.manifest
        post = msgspec.structs.replace(manifest.postprocess, upsample="nearest")
        manifest = msgspec.structs.replace(manifest, postprocess=post)
        bundle = msgspec.structs.replace(opened.bundle, manifest=manifest)
        model = Model(bundle, opened.backend, opened.backend_name)
        return _once(100 * evaluate(model, load_data(evaluation)).metrics["mean_iou"])


def _once(value: float) -> Spread:
    return Spread.of(np.array([value], np.float64))
