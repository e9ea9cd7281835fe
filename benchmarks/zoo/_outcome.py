"""What became of a cell, and the file that remembers it: a line of JSON a cell."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

PRECISIONS = ("fp32", "fp16", "int8")
ENGINES = ("litert", "onnxruntime", "tensorrt_rtx")
RTX_PACKAGE = "tensorrt-rtx-cu13"
LEAST_DB = {"fp32": 80.0, "fp16": 40.0, "int8": 15.0}
"""What passes. fp32: what is left when sums are taken in another order, 24 bits less what a deep
network amplifies. fp16: one rounding to 11 bits is 67 dB, those of a hundred layers stay above 40.
int8: at 15 dB a trained MobileNet v1 still gives 94 % of its answers (weights rounded to nearest);
one rounding to 8 bits is 38 to 50 dB."""

_PACKAGES = (
    "edgekit", "tensorflow", "keras", "ai-edge-litert", "onnx", "onnxruntime", "tf2onnx", "numpy"
)  # fmt: skip


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a cell: its parity, or why there is none.

    Attributes:
        completed: whether it was converted and computed, or was built.
        parity_db: signal to noise of the worst output; None where nothing was computed.
        changes_db: likewise, counting as signal only what differs from sample to sample.
        reason: why it was not completed, or is not as near as asked, in one line.
        fallbacks: why parts of it stay float.
        seconds: wall time of the whole process.
        cpu_seconds: of all its threads and children.
        peak_rss_mb: most memory it had.
    """

    completed: bool
    parity_db: float | None = None
    changes_db: float | None = None
    reason: str | None = None
    fallbacks: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_mb: float = 0.0

    def passes(self, precision: str) -> bool:
        """Whether it was completed, and is as near as its precision asks."""
        near = self.parity_db is None or self.parity_db >= LEAST_DB[precision]
        return self.completed and near


class Cell(msgspec.Struct, frozen=True):
    """Which of the table's cells: what its result is kept by."""

    architecture: str
    engine: str
    precision: str


class Line(msgspec.Struct, frozen=True):
    """A line of the file."""

    cell: Cell
    versions: dict[str, str]
    date: str
    outcome: Outcome

    def holds_with(self, installed: dict[str, str]) -> bool:
        """Whether the versions that have a say in the result are those that are installed."""
        ignored = () if self.cell.engine == "tensorrt_rtx" else (RTX_PACKAGE,)
        return all(self.versions.get(n) == v for n, v in installed.items() if n not in ignored)


def versions(rtx: str | None) -> dict[str, str]:
    """Return the versions of what has a say in the result.

    Args:
        rtx: that of TensorRT-RTX, which is not installed beside the rest; None without it.
    """
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return {**found, RTX_PACKAGE: rtx or "none"}


def read_lines(file: Path) -> list[Line]:
    """Return all that was kept; a last line that a kill cut short is left out."""
    if not file.is_file():
        return []
    lines = file.read_bytes().splitlines()
    kept = []
    for place, line in enumerate(lines):
        try:
            kept.append(msgspec.json.decode(line, type=Line))
        except msgspec.MsgspecError:
            if place + 1 < len(lines):
                raise SystemExit(
                    f"{file}: line {place + 1} is not a cell's result; remove it, or the file"
                ) from None
    return kept


def append_line(file: Path, line: Line) -> None:
    """Keep one more result, in the place of one that a kill cut short."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as stream:
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)
        stream.write(msgspec.json.encode(line) + b"\n")
