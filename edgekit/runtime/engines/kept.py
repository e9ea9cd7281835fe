"""What the cache of engines holds, and how much it may."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from edgekit.errors import OutputError, UsageError
from edgekit.runtime.engines.files import EngineKey, Refused, read_description

LIMIT = "EDGEKIT_CACHE_MB"
_DEFAULT_LIMIT_MB = 4000


class KeptEngine(msgspec.Struct, frozen=True):
    """An engine in the cache.

    Attributes:
        file: it.
        model: path of the .onnx when it was built; "" where nothing says it.
        key: what it was built for.
        size_bytes: of the file.
        used_ns: when it was last opened or built, nanoseconds since 1970.
    """

    file: Path
    model: str
    key: EngineKey
    size_bytes: int
    used_ns: int


def kept_engines(folder: Path) -> list[KeptEngine]:
    """Return the engines in a folder that are described as ours, longest unused first.

    Raises:
        OutputError: the folder cannot be read.
    """
    found = []
    try:
        files = [file for file in folder.iterdir() if file.suffix == ".engine"]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"cannot read {folder} ({error.strerror}); EDGEKIT_CACHE names another folder"
        ) from error
    for file in files:
        try:
            description, status = read_description(Path(f"{file}.json")), file.lstat()
        except (Refused, OSError):
            continue  # not ours, or another process has just removed it
        if stat.S_ISREG(status.st_mode):
            model, key = description.model, description.key
            found.append(KeptEngine(file, model, key, status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda engine: engine.used_ns)


def limit_bytes() -> int | None:
    """Return how many bytes of engines the cache may hold, $EDGEKIT_CACHE_MB; None: no limit.

    Raises:
        UsageError: the variable holds no whole number of megabytes.
    """
    text = os.environ.get(LIMIT, "") or str(_DEFAULT_LIMIT_MB)
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"{LIMIT} must be a whole number of megabytes, or 0 for no limit; got {text!r}"
        )
    return int(text) * 1_000_000 or None
