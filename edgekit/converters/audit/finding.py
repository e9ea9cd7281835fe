"""What a check of a set is, and what it finds."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec
from numpy.typing import NDArray

Kind = Literal["constant", "noise", "scale", "few", "duplicates", "overlap", "unstable_ranges"]


class Finding(msgspec.Struct, frozen=True):
    """Something about a set that the user should know before trusting a conversion.

    Attributes:
        kind: what was found.
        message: what was seen, what was expected and what to do, on one line.
        count: how many samples it concerns; of `unstable_ranges`, how many tensors.
    """

    kind: Kind
    message: str
    count: int


class Check(Protocol):
    """Sees each sample once and keeps little of it."""

    def add(self, index: int, values: NDArray[Any], is_copy: bool) -> None:
        """Take the first array of sample `index`; `is_copy`: an earlier sample is equal."""

    def finding(self, name: str, total: int) -> Finding | None:
        """Return what is wrong with the `total` samples of the set `name`, or None."""
