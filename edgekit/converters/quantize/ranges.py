"""The range table: smallest and largest value of each activation, which every emitter reads.

The table holds real values, not scales: each emitter derives its own from them. Its names are those
of the model's layers, where the model came through Keras, else those of the `.tflite`'s tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, get_args

import msgspec

from edgekit.bundle import read_bundle
from edgekit.errors import DataError, UsageError

FILE_NAME = "ranges.json"
"""The table's name in a bundle."""

Scheme = Literal["litert", "tensorrt"]
Observer = Literal["minmax", "percentile", "mse"]
OBSERVERS: tuple[str, ...] = get_args(Observer)
STEPS = 255
NEGLIGIBLE = 0.01  # of a step
_HEADROOM = 4.0
_LIMIT_BYTES = 64 << 20
_LARGEST = 1e30
_INSIDE = "/;#:"  # none of them can be in a Keras layer's name


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Smallest and largest real value of one tensor; what lies outside is clipped."""

    min: float
    max: float

    @property
    def width(self) -> float:
        """How far the range, widened to hold zero as every grid does, reaches."""
        return max(0.0, self.max) - min(0.0, self.min)

    def union(self, other: Range) -> Range:
        """Return the smallest range that holds both."""
        return Range(min(self.min, other.min), max(self.max, other.max))

    def with_headroom(self) -> Range:
        """Return a wider range for values of 16 bits that no calibration set shows all of.

        A stream runs for longer than any sequence, and clipped logits are wrong ones; two of
        sixteen bits cost nothing that can be measured.
        """
        return Range(_HEADROOM * self.min, _HEADROOM * self.max)


def int8_grid(found: Range) -> tuple[float, int]:
    """Return the scale and the zero point, 0..255, of the 256 steps over a range that holds zero.

    Zero must be a step. TensorFlow moves the steps by up to half of one for that, which clips an
    end, and puts pixels that were scaled to -1..1 half way between two steps, all of them. Here
    the step grows a little instead (0.4 % for -1..1, at most 1.1 %), so both ends stay on the grid.
    """
    low, high = min(0.0, found.min), max(0.0, found.max)
    if low == high:
        return 1.0, 128
    # Towards the middle: a short end of 1.4 steps takes two, not one of 1.4 times the size.
    exact = -low * STEPS / (high - low)
    near = math.ceil(exact - NEGLIGIBLE) if exact <= STEPS / 2 else math.floor(exact + NEGLIGIBLE)
    zero = min(max(near, 0), STEPS)
    below = -low / zero if zero else 0.0
    above = high / (STEPS - zero) if zero < STEPS else 0.0
    return max(below, above), zero


class RangeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ranges of a model's activations, and what they hold for; `docs/bundle.md` describes the file.

    Attributes:
        format_version: of the file.
        scheme: the grid that ranges were trained for; observed ones suit both.
        origin: ``minmax``, ``percentile``, ``mse``, or ``trained`` by quantization-aware training.
        steps: what was done to the model before the ranges were found (`INT8_STEPS`).
        preprocess: how frames became its input then, as `Preprocess.as_text`; None: not known.
        tensors: range of each activation, by name.
        precisions: of layers by name, ``int16x8`` or ``fp32``, in a model that is int8; ``int8`` of
            a last layer that would give outputs of 16 bits.
    """

    format_version: Literal[1] = 1
    scheme: Scheme = "litert"
    origin: Literal["minmax", "percentile", "mse", "trained"]
    steps: tuple[str, ...] = ()
    preprocess: str | None = None
    tensors: dict[str, Range]
    precisions: dict[str, Literal["int8", "int16x8", "fp32"]] = {}

    def encode(self) -> bytes:
        """Return the table as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1)

    def with_ranges(self, tensors: Mapping[str, Range]) -> RangeTable:
        """Return this with other ranges."""
        return msgspec.structs.replace(self, tensors=dict(tensors))

    def over(self, found: RangeTable, known: Iterable[str]) -> RangeTable:
        """Return this, which was given, with what `found` has beside it.

        Args:
            found: of the model as it is now.
            known: names of all its tensors.

        Raises:
            UsageError: this belongs to a model after other steps.
            DataError: this names layers that the model does not have. Tensors inside layers are
                named differently in each format, and pass.
        """
        if self.steps != found.steps:
            wanted = ",".join(self.steps) or "none"
            raise UsageError(
                f"`ranges` were found after int8_steps {wanted}, and this conversion does "
                f"{','.join(found.steps) or 'none'}: they do not fit; say --int8-steps {wanted}"
            )
        names = [*known]
        unknown = sorted({*self.tensors, *self.precisions} - set(names))
        layers = [name for name in unknown if not any(mark in name for mark in _INSIDE)]
        if layers or (unknown and len(unknown) == len(self.tensors)):
            raise DataError(
                f"`ranges` name what this model does not have ({', '.join(unknown[:3])}); it has "
                f"{', '.join(names[:5])} …: are they of another model?"
            )
        return self.with_ranges({**found.tensors, **self.tensors})


def decode_ranges(content: bytes, where: str) -> RangeTable:
    """Read a table from JSON; `where` names it in messages.

    Raises:
        DataError: no table, or a range that cannot be.
    """
    try:
        table = msgspec.json.decode(content, type=RangeTable)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise DataError(f"{where} is no range table: {error}") from error
    for name, found in table.tensors.items():
        if not -_LARGEST <= found.min <= found.max <= _LARGEST:
            raise DataError(
                f"{where}: the range of {name[:80]!r} must be finite, within ±{_LARGEST:g}, with "
                f"min <= max; got {found.min} to {found.max}"
            )
    return table


def read_ranges(path: str | Path) -> RangeTable:
    """Read the table of a bundle, or a file of that form.

    Raises:
        DataError: no such file, or no table.
        BundleError: a bundle that cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        bundle = read_bundle(file)
        file = file / FILE_NAME
        if FILE_NAME not in bundle.manifest.files:
            raise DataError(
                f"bundle {bundle.path} has no range table; int8 bundles have one, this is "
                f"{bundle.manifest.precision}"
            )
    try:
        with file.open("rb") as opened:
            content = opened.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read ranges {file}: {error.strerror}") from error
    if len(content) > _LIMIT_BYTES:
        raise DataError(f"ranges {file} are larger than 64 MiB; no table is")
    return decode_ranges(content, str(file))
