"""The files of a running system, below a folder: `/`, or a copy of one in tests."""

from __future__ import annotations

import re
import stat
from itertools import takewhile
from pathlib import Path

_PIECE_BYTES = 1 << 16  # Linux refuses to read 4 MiB or more at once from /proc/sys
_MOST_PIECES = 256  # 16 MiB: /var/lib/dpkg/status has a few, nothing else comes near


class SystemFiles:
    """Reads what is there below `root` and takes what cannot be read for absent.

    Paths are those of the system, like ``/proc/meminfo``; symbolic links are followed as the
    running system follows them.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def place(self, path: str) -> Path:
        """Return where `path` of the system is."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        """Return a file's text, as `plain`; "" if it is no regular file or cannot be read."""
        try:
            place = self.place(path)
            if not stat.S_ISREG(place.stat().st_mode):  # a pipe would block
                return ""
            with place.open("rb") as file:
                pieces = takewhile(bool, (file.read(_PIECE_BYTES) for _ in range(_MOST_PIECES)))
                content = b"".join(pieces)
        except (OSError, ValueError):  # ValueError: a path with a NUL
            return ""
        return plain(content)

    def line(self, path: str) -> str:
        """Return the first line of a file, stripped, or ""."""
        return next(iter(self.text(path).splitlines()), "").strip()

    def number(self, path: str) -> int | None:
        """Return the decimal integer that a file holds, or None."""
        text = self.text(path).strip()
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; none if it cannot be listed."""
        try:
            return sorted(entry.name for entry in self.place(folder).iterdir())
        except (OSError, ValueError):
            return []

    def is_there(self, path: str) -> bool:
        """Return whether a file or folder is there, as far as can be seen."""
        try:
            self.place(path).stat()
        except (OSError, ValueError):
            return False
        return True


def plain(content: bytes) -> str:
    """Return text that is safe to print: ASCII, in lines.

    NULs, which end the strings of a device tree, become line breaks; what else could steer a
    terminal becomes blanks.
    """
    text = content.replace(b"\0", b"\n").decode("ascii", "replace")
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f]", " ", text)
