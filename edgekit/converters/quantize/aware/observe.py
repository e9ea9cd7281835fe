"""The ranges that a float graph's tensors have on calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.quantize.graph import Graph
from edgekit.converters.quantize.ranges import Range
from edgekit.errors import DataError, require

Array = NDArray[Any]

MOST_SAMPLES = 512
_BATCH = 32
_FORMS = (
    "an array, a list of samples, a dict or tuple of arrays for several inputs, or an iterable of "
    "batches such as a tf.data.Dataset"
)


def observe(
    graph: Graph, tensors: Sequence[Any], batches: Iterable[list[Array]]
) -> dict[int, Range]:
    """Return the smallest and largest value of each tensor over `batches`, by its id.

    Args:
        graph: float; it is run as in inference.
        tensors: some of its tensors.
        batches: one array an input.

    Raises:
        DataError: there are none, or a value is NaN or infinite.
    """
    keras: Any = require("keras", "convert")
    ops = keras.ops
    ends = [end(tensor) for tensor in tensors for end in (ops.min, ops.max)]
    model = keras.Model(list(graph.inputs), ends)
    seen: Array | None = None
    for number, batch in enumerate(batches, 1):
        found = np.array(model(batch, training=False), np.float64).reshape(-1, 2)
        if not np.isfinite(found).all():
            raise DataError(
                f"calibration batch {number} gives NaN or infinite values in the model; clean the "
                "data first"
            )
        seen = found if seen is None else _wider(seen, found)
    if seen is None:
        raise DataError("`calibration` holds no samples; 100 to 500 typical ones are enough")
    return {
        id(tensor): Range(float(lowest), float(highest))
        for tensor, (lowest, highest) in zip(tensors, seen, strict=True)
    }


def _wider(one: Array, other: Array) -> Array:
    lowest, highest = np.minimum(one[:, 0], other[:, 0]), np.maximum(one[:, 1], other[:, 1])
    return np.stack([lowest, highest], axis=1)


def calibration_batches(graph: Graph, calibration: Any) -> Iterator[list[Array]]:
    """Yield batches, one array an input of `graph`, until `MOST_SAMPLES` samples were given.

    Args:
        graph: says the inputs' names and shapes.
        calibration: an array [n, …]; a list of samples; a dict or tuple of arrays for several
            inputs; or an iterable of batches, such as a `tf.data.Dataset`, of which labels behind
            the inputs are left out.

    Raises:
        DataError: of another form or shape, NaN or infinite.
    """
    reader = _Reader(graph)
    whole = reader.arrays(calibration) if not _is_stream(calibration) else None
    if whole is not None:
        count = min(len(array) for array in whole)
        chosen = np.linspace(0, count - 1, min(count, MOST_SAMPLES)).round().astype(int)
        for start in range(0, len(chosen), _BATCH):
            part = chosen[start : start + _BATCH]
            yield [array[part] for array in whole]
        return
    if not isinstance(calibration, Iterable):
        raise DataError(f"`calibration` must be {_FORMS}; got {type(calibration).__name__}")
    given = 0
    for element in calibration:
        batch = reader.arrays(element)
        if batch is None:
            raise DataError(f"`calibration` must be {_FORMS}; its elements do not fit the inputs")
        yield batch
        given += len(batch[0])
        if given >= MOST_SAMPLES:
            return


def _is_stream(calibration: Any) -> bool:
    if isinstance(calibration, list):
        return True
    return not isinstance(calibration, tuple | Mapping) and not hasattr(calibration, "shape")


class _Reader:
    """Takes apart what a user gives for the inputs of a model."""

    def __init__(self, graph: Graph) -> None:
        self._inputs = list(graph.inputs)

    def arrays(self, given: Any) -> list[Array] | None:
        """Return one batch an input, or None for what does not fit."""
        if isinstance(given, Mapping):
            names = [tensor.name for tensor in self._inputs]
            return self._checked([given[n] for n in names]) if set(names) <= set(given) else None
        if not isinstance(given, tuple | list):
            return self._checked([given]) if len(self._inputs) == 1 else None
        if len(given) >= 1 and (
            len(self._inputs) == 1 or isinstance(given[0], tuple | list | dict)
        ):
            return self.arrays(given[0])  # labels behind the inputs
        return self._checked(given) if len(given) == len(self._inputs) else None

    def _checked(self, given: Sequence[Any]) -> list[Array] | None:
        arrays = []
        for tensor, value in zip(self._inputs, given, strict=True):
            array = np.asarray(value)
            shape = tuple(tensor.shape[1:])
            if array.shape == shape:  # one sample
                array = array[None]
            if array.shape[1:] != shape or not len(array) or array.dtype.kind not in "buif":
                raise DataError(
                    f"`calibration` for the input {tensor.name} must have shape "
                    f"{[None, *shape]}; got {array.dtype} {list(array.shape)}"
                )
            array = array.astype(str(tensor.dtype))
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"`calibration` for the input {tensor.name} holds NaN or infinity")
            arrays.append(array)
        if len({len(array) for array in arrays}) > 1:
            counts = [
                f"{len(array)} for {tensor.name}"
                for tensor, array in zip(self._inputs, arrays, strict=True)
            ]
            raise DataError(f"`calibration` has {', '.join(counts)}; give as many for each input")
        return arrays
