"""What a build may be asked for, and what it tells while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

import msgspec

from edgekit.errors import UsageError

_MOST_MEMORY_MB = 1 << 30

OnProgress = Callable[[str, int, int], None]
"""Called with (phase, done, total) while an engine is built, in a thread of the build."""


class ShapeRange(msgspec.Struct, frozen=True):
    """Shapes of an input with open dimensions: the smallest, the usual and the largest."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What decides how an engine is built; part of its key in the cache.

    Attributes:
        memory_mb: the most GPU memory that a layer may use for scratch, in MiB (TensorRT's
            workspace); None: all there is.
        shapes: optimization profile: shapes of each input that has open dimensions, by name.
        compute_capabilities: GPUs to build for ahead of time, like "8.6"; TensorRT-RTX only.
            None given: 8.0 and later.

    Raises:
        UsageError: a value that cannot be.
    """

    memory_mb: int | None = None
    shapes: dict[str, ShapeRange] = {}
    compute_capabilities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.memory_mb is not None and not 1 <= self.memory_mb <= _MOST_MEMORY_MB:
            raise UsageError(
                f"`memory_mb` must be 1 to {_MOST_MEMORY_MB} MiB; got {self.memory_mb}"
            )
        for capability in self.compute_capabilities:
            if not re.fullmatch(r"[0-9]{1,2}\.[0-9]", capability):
                raise UsageError(f"`compute_capabilities` are written like 8.6; got {capability!r}")
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            raise UsageError(
                f"`compute_capabilities` repeat: {', '.join(self.compute_capabilities)}"
            )


class EngineEvent(msgspec.Struct, frozen=True):
    """What happens to an engine, for people.

    Attributes:
        kind: building: a build begins; waiting: for another process that builds the same;
            refused: a file in the cache is not used; cache: the cache cannot be read or written;
            removed: an engine, to make room; tensorrt: a warning of TensorRT's.
        text: one line.
    """

    kind: Literal["building", "waiting", "refused", "cache", "removed", "tensorrt"]
    text: str


OnEvent = Callable[[EngineEvent], None]
