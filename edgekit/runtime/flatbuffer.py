"""A FlatBuffers reader that checks every access.

Layout: https://flatbuffers.dev/internals. The generated readers do not check, so a file from
somewhere else could lead them anywhere. Reading is bounded too: tables that point at each other
cannot make it run for long or hold much.
"""

from __future__ import annotations

import struct
from typing import Any


class DamagedBuffer(ValueError):
    """An offset, a length or a text in the buffer that cannot be."""


# A well-formed file refers to each of its bytes about once.
_VISITS_PER_BYTE = 4


class _Buffer:
    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.budget = _VISITS_PER_BYTE * len(view) + 1024

    def read(self, form: str, at: int) -> Any:
        """Return the little-endian scalar of struct format `form` at byte `at`."""
        size = struct.calcsize(form)
        self.check(at, size)
        return struct.unpack_from("<" + form, self.view, at)[0]

    def check(self, at: int, size: int) -> None:
        if at < 0 or at + size > len(self.view):
            raise DamagedBuffer(f"byte {at + size} of {len(self.view)}")
        self.budget -= 1

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise DamagedBuffer("tables that repeat each other")


class Table:
    """One table; fields are read by slot, 0 for the schema's first field."""

    def __init__(self, buffer: _Buffer, at: int) -> None:
        """Check the table at byte `at`."""
        self._buffer = buffer
        self._at = at
        self._entries = at - buffer.read("i", at)
        self._entries_size = buffer.read("H", self._entries)
        self._size = buffer.read("H", self._entries + 2)
        buffer.check(self._entries, self._entries_size)
        buffer.check(at, self._size)
        buffer.spend(self._size)

    def position(self, slot: int) -> int | None:
        """Return where field `slot` stands, or None: it is left out."""
        entry = 4 + 2 * slot
        if entry + 2 > self._entries_size:
            return None
        offset = self._buffer.read("H", self._entries + entry)
        return self._at + offset if offset else None

    def scalar(self, slot: int, form: str, default: int) -> int:
        """Return field `slot` of struct format `form`, or `default`."""
        at = self.position(slot)
        return default if at is None else self._buffer.read(form, at)

    def table(self, slot: int) -> Table | None:
        """Return the table that field `slot` points at, or None."""
        at = self.position(slot)
        return None if at is None else Table(self._buffer, self._follow(at))

    def tables(self, slot: int) -> list[Table]:
        """Return the tables that the vector `slot` points at."""
        start, length = self._vector(slot, 4)
        self._buffer.spend(4 * length)
        return [Table(self._buffer, self._follow(start + 4 * index)) for index in range(length)]

    def integers(self, slot: int, form: str) -> list[int]:
        """Return the vector `slot` of numbers of struct format `form`."""
        return [int(number) for number in self.numbers(slot, form)]

    def numbers(self, slot: int, form: str) -> list[float]:
        """Return the vector `slot` of numbers of struct format `form`."""
        size = struct.calcsize(form)
        start, length = self._vector(slot, size)
        self._buffer.spend(size * length)
        return list(struct.unpack_from(f"<{length}{form}", self._buffer.view, start))

    def text(self, slot: int) -> str:
        """Return the string `slot`; empty where it is left out."""
        start, length = self._vector(slot, 1)
        self._buffer.spend(length)
        try:
            return str(bytes(self._buffer.view[start : start + length]), "utf-8")
        except UnicodeDecodeError as error:
            raise DamagedBuffer("a name that is not UTF-8") from error

    def vector_length(self, slot: int, item_size: int) -> int:
        """Return how many items of `item_size` bytes the vector `slot` has; 0: left out."""
        return self._vector(slot, item_size)[1]

    def _vector(self, slot: int, item_size: int) -> tuple[int, int]:
        at = self.position(slot)
        if at is None:
            return 0, 0
        start = self._follow(at)
        length = self._buffer.read("I", start)
        self._buffer.check(start + 4, length * item_size)
        return start + 4, length

    def _follow(self, at: int) -> int:
        offset: int = self._buffer.read("I", at)
        return at + offset


def root_table(view: memoryview) -> Table:
    """Return the root table of the FlatBuffer `view`.

    Raises:
        DamagedBuffer: here or by the methods of `Table`: an access would leave the buffer.
    """
    buffer = _Buffer(view)
    return Table(buffer, buffer.read("I", 0))
