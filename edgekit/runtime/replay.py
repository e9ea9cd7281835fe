"""The golden samples of a bundle, computed again and compared: `docs/bundle.md`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import BundleError, CheckFailed
from edgekit.golden import GoldenSample
from edgekit.runtime.postprocess import to_json
from edgekit.specs import TensorSpec

if TYPE_CHECKING:
    from edgekit.runtime.model import Model


def replay_golden(model: Model, samples: list[GoldenSample]) -> None:
    """Compute the golden samples here and compare with what the workstation computed.

    Tolerances: preprocessing one grey level (resize kernels round differently); int8 outputs
    4 steps for 99 % of the values (kernels differ by 3-4), int16 outputs of an int8 model 512
    steps, which is as much of a softmax; float outputs 1 % of the largest, or the
    share of it that the backend names as its `float_tolerance`.

    Raises:
        CheckFailed: outside the tolerances.
    """
    manifest = model.bundle.manifest
    for number, whole in enumerate(samples):
        model.reset()
        for sample in whole.steps() if manifest.streaming else [whole]:
            for index, array in enumerate(sample.inputs):
                _same_form(f"input {index}", array, manifest.data_inputs[index])
            if sample.frame is not None:
                model.preprocess(sample.frame)
                _compare_input(model, number, sample)
            for index, array in enumerate(sample.inputs):
                model.backend.input_buffer(index)[...] = array
            for index, output in enumerate(model.infer()):
                _same_form(f"output {index}", sample.outputs[index], manifest.data_outputs[index])
                _compare_output(model, number, output, sample.outputs[index])
        _compare_value(model, number, sample)
    model.reset()


def _compare_value(model: Model, number: int, sample: GoldenSample) -> None:
    """Decode the stored outputs: the decoder has no tolerance but that of the last digits."""
    frame = sample.inputs[0] if sample.frame is None else sample.frame
    value = model.postprocess(frame, list(sample.outputs)).value
    try:
        there = msgspec.json.decode(sample.value)
    except msgspec.DecodeError as error:
        raise BundleError(f"golden sample {number}: its value is no JSON") from error
    here = msgspec.json.decode(to_json(value))
    if model.bundle.manifest.postprocess.upsample == "linear":
        here, there = _comparable_maps(here, there)
    if not _is_close(here, there):
        raise CheckFailed(
            f"golden sample {number}: the outputs decode to {str(to_json(value))[:80]} here, to "
            f"{str(sample.value)[:80]} on the workstation; use the EdgeKit that made the bundle"
        )


def _comparable_maps(here: Any, there: Any) -> tuple[Any, Any]:
    """Return class maps as equal where they differ by 0.2 % of the pixels: ties of interpolation.

    What is no class map is returned as it is.
    """
    if not all(isinstance(v, dict) and isinstance(v.get("shares"), dict) for v in (here, there)):
        return here, there
    one, other = here["shares"], there["shares"]
    names = one.keys() | other.keys()
    if not all(isinstance(share, float | int) for share in other.values()):
        return here, there
    same = all(math.isclose(one.get(n, 0), other.get(n, 0), abs_tol=0.002) for n in names)
    return (here | {"shares": {}}, there | {"shares": {}}) if same else (here, there)


def _is_close(here: Any, there: Any) -> bool:
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(_is_close(here[k], there[k]) for k in here)
    if isinstance(here, list) and isinstance(there, list):
        pairs = zip(here, there, strict=False)
        return len(here) == len(there) and all(_is_close(one, other) for one, other in pairs)
    if isinstance(here, float) and isinstance(there, float | int):
        return math.isclose(here, there, rel_tol=1e-4, abs_tol=1e-6)
    return bool(here == there)


def _same_form(what: str, array: NDArray[Any], spec: TensorSpec) -> None:
    if array.shape != spec.shape or array.dtype != spec.dtype:
        raise BundleError(
            f"golden {what} is {array.dtype} {list(array.shape)}; "
            f"the model has {spec.dtype} {list(spec.shape)}"
        )


def _compare_input(model: Model, number: int, sample: GoldenSample) -> None:
    spec, preprocess = model.backend.inputs[0], model.bundle.manifest.preprocess
    grey_level = abs(preprocess.scale) / min(preprocess.std) / (spec.scale or 1.0)
    here = model.backend.input_buffer(0).astype(np.float64)
    difference = float(np.abs(here - sample.inputs[0]).max())
    if not difference <= 1.01 * grey_level + (1 if spec.scale else 1e-6):
        raise CheckFailed(
            f"golden sample {number}: preprocessing differs by {difference:.4g} here, at most one "
            f"grey level ({grey_level:.4g}) is expected; check the OpenCV build"
        )


def _compare_output(model: Model, number: int, here: NDArray[Any], there: NDArray[Any]) -> None:
    difference = np.abs(here.astype(np.float64) - there.astype(np.float64))
    if here.dtype.kind in "iu":
        # Before its last layer an int8 model has int8 steps, whatever the outputs have.
        is_wide = here.dtype == np.int16 and model.bundle.manifest.precision != "int16x8"
        agrees = float((difference <= (512 if is_wide else 4)).mean()) >= 0.99
    else:
        share = getattr(model.backend, "float_tolerance", 0.01)
        agrees = bool((difference <= share * np.abs(there).max() + 1e-6).all())
    if not agrees:
        raise CheckFailed(
            f"golden sample {number}: {model.backend_name} ({model.backend.executes}) computes "
            f"other outputs here than the workstation did (largest difference "
            f"{difference.max():.4g}); try another backend or check=False"
        )
