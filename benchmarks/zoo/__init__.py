"""The conformance zoo: which architectures convert, to what, and how exactly.

One file is one family of architectures: it has ``ARCHITECTURES``, a tuple of `Architecture`. Files
that begin with an underscore are the machinery: `_samples` (data), `_statistics` (weights), `_cell`
(one conversion and its judgement, in a process of its own), `_results` and `_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

FAMILIES = ("classic", "mobile", "pixels", "mechanisms", "sequences", "outputs")
"""In the order of the table."""


@dataclass(frozen=True)
class Architecture:
    """One row of the table.

    Attributes:
        name: in the table and on the command line.
        build: returns the Keras model, with fixed input shapes and the weights Keras draws.
        samples: what the model is fed: pictures in -1..1 (signed) or 0..255 (raw), or sequences.
        rounds: whether int8 has the adaptive rounding of `edgekit convert`, which takes minutes for
            the largest.
        note: what differs from the published architecture, for readers of the table.
    """

    name: str
    build: Callable[[], Any]
    samples: Literal["signed", "raw", "sequences"] = "signed"
    rounds: bool = True
    note: str = ""


def architectures() -> dict[str, Architecture]:
    """Return all architectures by name, in the order of the table."""
    modules = [import_module(f"benchmarks.zoo.{family}") for family in FAMILIES]
    return {one.name: one for module in modules for one in module.ARCHITECTURES}
