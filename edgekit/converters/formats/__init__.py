"""Model formats that bundles hold, one file each; the file's name is the format's name.

A module here has
`MODEL_FILE`, the model's name in a bundle;
`BACKEND`, the backend that runs it on the workstation;
`PRECISIONS`, those it can be emitted in;
`fitted(source)`, the source with tensors in the layout of what it becomes;
`source_shape(shape, suffix)`, which undoes that for the shape of an input;
`emit(...)`, with the arguments of `formats.litert.emit`, which returns `Emitted`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from edgekit.bundle import Fallback
from edgekit.converters.observe import Extremes
from edgekit.converters.quantize.ranges import RangeTable
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.static import FloatTwin, has_trained_ranges
from edgekit.errors import UsageError

INTEGERS = ("int8", "int16x8")


class Emitted(msgspec.Struct, frozen=True):
    """A compiled model.

    Attributes:
        content: the file.
        fallbacks: what does not run in the precision asked for.
        notes: how the model was prepared for integers.
        table: the ranges of its activations, where it is of integers.
        extremes: of its activations in each calibration sample, by their names in the table.
        twin: the float .tflite that became one of integers, tensor by tensor.
    """

    content: bytes
    fallbacks: tuple[Fallback, ...] = ()
    notes: tuple[str, ...] = ()
    table: RangeTable | None = None
    extremes: Extremes[str] | None = None
    twin: FloatTwin | None = None


def expect_ranges(
    source: SourceModel, precision: str, ranges: RangeTable | None, steps: Sequence[str]
) -> None:
    """Raise `UsageError` for what cannot become `precision` without a calibration set.

    Args:
        source: not `fitted`.
        precision: of integers.
        ranges: that were given.
        steps: before integers, which need the set too.
    """
    if has_trained_ranges(source):
        return
    if ranges is None:
        raise UsageError(
            f"{precision} needs a calibration set, which is never invented: give --data, "
            "or choose fp32 or fp16"
        )
    if steps and isinstance(source, FrozenGraph) and source.model is not None:
        raise UsageError(
            f"`ranges` stand for the calibration set where it only finds ranges, and the steps "
            f"{','.join(steps)} need it too: give --data, or say --int8-steps none"
        )
