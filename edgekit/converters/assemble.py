"""What goes into a bundle beside the compiled model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.bundle import Golden, Manifest, Provenance
from edgekit.data import Dataset, Sample
from edgekit.golden import GoldenSample
from edgekit.runtime.backends import Backend
from edgekit.runtime.model import Model, steps_of
from edgekit.runtime.postprocess import to_json
from edgekit.specs import Activation, Postprocess, Preprocess, Task, TensorSpec
from edgekit.streaming import Streaming

GOLDEN_STEPS = 16
"""Of each golden sequence: the state has gone round, and a bundle stays small."""
_TOOLS = (
    "edgekit",
    "tensorflow",
    "keras",
    "tf_keras",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "onnx",
    "onnxruntime",
    "tf2onnx",
    "numpy",
)


def guess_task(
    spec: TensorSpec, outputs: Sequence[NDArray[Any]], labels: NDArray[Any] | None, is_image: bool
) -> Task:
    """Tell what a model's first output means from its shape and values, and from the labels.

    Args:
        spec: the output, batch first.
        outputs: a few of its values.
        labels: those of the evaluation or calibration set.
        is_image: whether the model takes images.
    """
    integer_labels = labels is not None and labels.dtype.kind in "ui"
    if len(spec.shape) == 4:
        return "segmentation"
    if len(spec.shape) == 3:
        return "sequence"
    if integer_labels:
        return "classification"
    if np.prod(spec.shape) == 1:
        return "regression"
    if _are_shares(outputs) or (labels is None and is_image):
        return "classification"
    return "regression"


def guess_postprocess(
    task: Task, classes: int | None, spec: TensorSpec, outputs: Sequence[NDArray[Any]]
) -> Postprocess:
    """Tell from a few outputs whether they are probabilities already, or logits.

    Args:
        task: what the output means.
        classes: how many it tells apart, as `class_count` says.
        spec: the output, batch first.
        outputs: a few of its values.
    """
    one_unit = classes == 2 and (len(spec.shape) == 3 or 1 in spec.shape[1:])
    activation: Activation = "none"
    if one_unit and not _are_within_0_1(outputs):
        activation = "sigmoid"
    elif task == "classification" and not one_unit and not _are_shares(outputs):
        activation = "softmax"
    elif task == "segmentation" and not one_unit:
        axes = [axis for axis in (1, 3) if spec.shape[axis] == classes]
        activation = "none" if any(_are_shares(outputs, axis) for axis in axes) else "softmax"
    return Postprocess(activation, upsample="linear" if task == "segmentation" else "nearest")


def _are_within_0_1(outputs: Sequence[NDArray[Any]]) -> bool:
    return all(output.min() >= -1e-4 and output.max() <= 1 + 1e-4 for output in outputs)


def _are_shares(outputs: Sequence[NDArray[Any]], axis: int | None = None) -> bool:
    """Whether outputs are probabilities that sum to 1, all of them or along an axis."""
    return _are_within_0_1(outputs) and all(
        (abs(output.sum(axis=axis) - 1) <= 1e-3).all() for output in outputs
    )


def golden_samples(model: Model, data: Dataset, keep_frames: bool) -> list[GoldenSample]:
    """Record what `model` computes for each sample of `data`, of sequences for the first steps."""
    is_stream = model.bundle.manifest.streaming is not None
    samples = []
    for sample in data:
        if is_stream:
            model.reset()
            steps = [_golden(model, step) for step in islice(steps_of(sample), GOLDEN_STEPS)]
            samples.append(_sequence(steps))
        else:
            samples.append(_golden(model, sample))
    model.reset()
    if not keep_frames or any(sample.frame is None for sample in samples):
        samples = [_without_frame(model, sample) for sample in samples]
    return samples


def _without_frame(model: Model, sample: GoldenSample) -> GoldenSample:
    """Return a sample that is decoded as the replay does: a class map has its frame's size."""
    value = sample.value
    if model.bundle.manifest.streaming is None:
        value = to_json(model.postprocess(sample.inputs[0], list(sample.outputs)).value)
    return msgspec.structs.replace(sample, frame=None, value=value)


def _golden(model: Model, sample: Sample) -> GoldenSample:
    model.preprocess(sample)
    count = len(model.bundle.manifest.data_inputs)
    inputs = tuple(model.backend.input_buffer(index).copy() for index in range(count))
    prediction = model.postprocess(sample, model.infer())
    is_frame = not isinstance(sample, tuple) and sample.dtype == np.uint8
    return GoldenSample(
        frame=sample if is_frame else None,  # type: ignore[arg-type]
        inputs=inputs,
        outputs=tuple(prediction.outputs),
        value=to_json(prediction.value),
    )


def _sequence(steps: Sequence[GoldenSample]) -> GoldenSample:
    """Return steps as one sample with the steps in front."""
    frames = [step.frame for step in steps if step.frame is not None]
    return GoldenSample(
        frame=np.stack(frames) if len(frames) == len(steps) else None,
        inputs=tuple(map(np.stack, zip(*(step.inputs for step in steps), strict=True))),
        outputs=tuple(map(np.stack, zip(*(step.outputs for step in steps), strict=True))),
        value=steps[-1].value,
    )


def draft_manifest(
    backend: Backend,
    *,
    format: str,  # noqa: A002
    model_file: str,
    task: Task,
    precision: str,
    preprocess: Preprocess,
    postprocess: Postprocess,
    target: str | None,
    fallbacks: tuple[Any, ...],
    recipe: dict[str, Any],
    provenance: Provenance,
    streaming: Streaming | None = None,
) -> Manifest:
    """Return the manifest of a bundle that has not been measured yet."""
    return Manifest(
        task=task,
        format=format,
        precision=precision,
        model=model_file,
        inputs=backend.inputs,
        outputs=backend.outputs,
        preprocess=preprocess,
        postprocess=postprocess,
        target=target,
        golden=Golden(0, synthetic=True, frames=False),
        parity=None,
        accuracy=None,
        fallbacks=fallbacks,
        recipe=recipe,
        provenance=provenance,
        streaming=streaming,
    )


def provenance_of(model: Any, kind: str, calibration: Dataset | None) -> Provenance:
    """Say what a bundle was made from, and with what."""
    path = Path(model) if isinstance(model, str | Path) else None
    tools = {}
    for package in _TOOLS:
        try:
            tools[package] = version(package)
        except PackageNotFoundError:
            continue
    return Provenance(
        source=path.name if path else f"{type(model).__name__} in memory",
        source_kind=kind,
        source_sha256=_sha256(path) if path else None,
        calibration_sha256=calibration.sha256 if calibration else None,
        tools=tools,
    )


def _sha256(path: Path) -> str:
    """Return the hash of a file, or of a folder's file names and contents."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
