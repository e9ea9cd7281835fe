"""Recordings of a set -> the samples that a model takes, with their labels."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Return `data` as samples of an opened bundle: see `cut`, or `whole` if it streams."""
    manifest = model.bundle.manifest
    if manifest.streaming is not None:
        return whole(data, manifest.inputs[0], manifest.streaming.every_step)
    return cut(data, manifest.preprocess, model.backend.inputs[0], model.backend.outputs[0])


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
    if len(spec.shape) != 3 or isinstance(data.read(0), tuple):
        return data
    # Of recordings one may be as long as a window by chance.
    if all(is_same(np.shape(sample), spec.shape) for sample in data):
        return data
    found = _Recordings(data, spec)
    length = spec.shape[1]
    places = [
        (index, at, at + length)
        for index, recording in enumerate(found.arrays)
        for at in range(0, len(recording) - length + 1, preprocess.hop or length)
    ]
    if not places:
        raise too_short(data.name, max(map(len, found.arrays)), length)
    answers_each = len(output.shape) == 3 and output.shape[1] == length
    return found.parts(places, answers_each)


def whole(data: Dataset, spec: TensorSpec, answers_each: bool) -> Dataset:
    """Return `data` with one sample a recording, [steps, features], for a bundle that streams.

    The label of a recording is that of its last step, if it does not have one of its own.

    Args:
        data: the set; one of sequences comes back as it is.
        spec: the model's first input, one step.
        answers_each: the labels of a recording are those of all its steps.

    Raises:
        DataError: steps of other features, or labels of all steps of recordings that differ in
            length.
    """
    first = data.read(0)
    if isinstance(first, tuple) or first.ndim > 1:
        return data
    found = _Recordings(data, spec)
    lengths = {len(recording) for recording in found.arrays}
    if answers_each and data.labels is not None and len(lengths) > 1:
        raise DataError(
            f"{data.name} has recordings of {min(lengths)} to {max(lengths)} steps, and the model "
            "is rated at each step: give recordings of one length, or a set [n, steps, features]"
        )
    places = [(index, 0, len(recording)) for index, recording in enumerate(found.arrays)]
    return found.parts(places, answers_each)


class _Recordings:
    """The recordings of a set.

    Attributes:
        arrays: [steps, features] each.
    """

    def __init__(self, data: Dataset, spec: TensorSpec) -> None:
        features, first = spec.shape[-1], np.asarray(data.read(0))
        steps = as_steps(first, features)
        if steps is None:
            raise wrong_form(data.name, first, spec)
        self._data = data
        self._labels: Any = data.labels
        self.arrays: list[NDArray[Any]]
        if len(steps) == 1:  # each sample is a step
            together = np.stack([np.reshape(sample, features) for sample in data])
            self.arrays = np.split(together, data.starts)
            self._has_labelled_steps = True
            if data.labels is not None:
                self._labels = np.split(data.labels, data.starts)
        else:
            self.arrays = [np.reshape(sample, (-1, features)) for sample in data]
            of_all = () if data.labels is None else data.labels.shape
            self._has_labelled_steps = of_all[1:2] == (len(steps),)

    def parts(self, places: Sequence[tuple[int, int, int]], answers_each: bool) -> Dataset:
        """Return the set of these parts: (recording, first step, step behind the last) each."""

        def read(number: int) -> NDArray[Any]:
            index, start, stop = places[number]
            return self.arrays[index][start:stop]

        def label(index: int, start: int, stop: int) -> Any:
            if not self._has_labelled_steps:
                return self._labels[index]
            return (
                self._labels[index][start:stop] if answers_each else self._labels[index][stop - 1]
            )

        labels = None if self._labels is None else np.array([label(*place) for place in places])
        return msgspec.structs.replace(
            self._data, count=len(places), read=read, labels=labels, starts=()
        )
