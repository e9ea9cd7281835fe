"""Recordings of a set -> the windows that a model takes, with their labels."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.data import Dataset
from edgekit.errors import DataError
from edgekit.runtime.model import Model
from edgekit.runtime.windows import as_steps, is_same, too_short, wrong_form
from edgekit.specs import Preprocess, TensorSpec


def samples_for(model: Model, data: Dataset) -> Dataset:
    """Return `data` as samples of an opened bundle: of a stream recordings, else see `cut`.

    Raises:
        DataError: see `cut`; or recordings of unequal length with an answer for each step.
    """
    manifest = model.bundle.manifest
    if manifest.streaming is not None:
        return _whole(data, manifest.inputs[0].shape[-1], manifest.streaming.every_step)
    return cut(data, manifest.preprocess, manifest.inputs[0], manifest.outputs[0])


def _whole(data: Dataset, features: int, every_step: bool) -> Dataset:
    """Return steps [features] joined to the recordings that they are of, with the last's label."""
    if not is_same(np.shape(data.read(0)), (features,)):
        return data
    steps = np.stack([np.reshape(sample, features) for sample in data])
    recordings, labels = np.split(steps, data.starts), data.labels
    if labels is not None:
        parts = np.split(labels, data.starts)
        if every_step and len({len(part) for part in parts}) > 1:
            raise DataError(
                f"{data.name} has recordings of {min(map(len, parts))} to {max(map(len, parts))} "
                "steps, and the model answers each step; give recordings of one length"
            )
        labels = np.array(parts if every_step else [part[-1] for part in parts])
    return msgspec.structs.replace(
        data, count=len(recordings), read=recordings.__getitem__, labels=labels, starts=()
    )


def cut(data: Dataset, preprocess: Preprocess, spec: TensorSpec, output: TensorSpec) -> Dataset:
    """Return `data` with its recordings cut into the windows that a model takes.

    Samples [features] are the steps of one recording, or of several where `data` says so; samples
    [steps, features] are recordings of their own. A set whose samples are windows already comes
    back as it is, and so does any set of a model that takes no windows. The label of a window is
    that of its last step, or that of the recording; of a model that answers each step it is the
    labels of all.

    Args:
        data: the set.
        preprocess: says the hop.
        spec: the model's first input, [1, steps, features] if it takes windows.
        output: its first output.

    Raises:
        DataError: all recordings are shorter than a window, or steps have other features.
    """
    first = data.read(0)
    if len(spec.shape) != 3 or isinstance(first, tuple):
        return data
    # Of recordings one may be as long as a window by chance.
    if all(is_same(np.shape(sample), spec.shape) for sample in data):
        return data
    _, length, features = spec.shape
    steps = as_steps(first, features)
    if steps is None:
        raise wrong_form(data.name, first, spec)
    labels: Any = data.labels
    if len(steps) == 1:  # each sample is a step
        whole = np.stack([np.reshape(sample, features) for sample in data])
        recordings = np.split(whole, data.starts)
        labels = None if labels is None else np.split(labels, data.starts)
        has_labelled_steps = True
    else:
        recordings = [np.reshape(sample, (-1, features)) for sample in data]
        has_labelled_steps = np.shape(labels)[1:2] == (len(steps),)
    hop = preprocess.hop or length
    places = [
        (index, at)
        for index, recording in enumerate(recordings)
        for at in range(0, len(recording) - length + 1, hop)
    ]
    if not places:
        raise too_short(data.name, max(map(len, recordings)), length)

    def read(number: int) -> NDArray[Any]:
        index, at = places[number]
        return recordings[index][at : at + length]

    def label(index: int, at: int) -> Any:
        if not has_labelled_steps:
            return labels[index]
        answers_each = len(output.shape) == 3 and output.shape[1] == length
        return labels[index][at : at + length] if answers_each else labels[index][at + length - 1]

    cut_labels = None if labels is None else np.array([label(*place) for place in places])
    return msgspec.structs.replace(data, count=len(places), read=read, labels=cut_labels, starts=())
