"""Small text files that the kernel writes."""

from __future__ import annotations

import re
from pathlib import Path

_MOST_BYTES = 4096  # a page, which a file of sysfs never passes
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def text(path: Path) -> str | None:
    """Return what `path` holds, stripped, or None where it cannot be read.

    A sensor whose unit is off says so by an error when it is read, so that is no fault.
    """
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").strip("\0\n\t ")
    except OSError:
        return None


def number(path: Path) -> int | None:
    """Return the whole number that `path` holds, or None where it holds none."""
    found = text(path)
    return int(found) if found is not None and _WHOLE.fullmatch(found) else None


def folders(parent: Path, pattern: str) -> list[Path]:
    """Return what is in `parent` under names like `pattern`; the numbers in them order it."""
    try:
        found = list(parent.glob(pattern))
    except OSError:
        return []
    return sorted(found, key=lambda p: [int(n) for n in re.findall(r"[0-9]{1,18}", p.name)])


def exists(path: Path) -> bool:
    """Return whether `path` is there; what this user may not look into is not."""
    try:
        path.stat()
    except OSError:
        return False
    return True
