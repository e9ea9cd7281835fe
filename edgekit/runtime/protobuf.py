"""A reader of protobuf messages that checks every length.

The wire format: https://protobuf.dev/programming-guides/encoding. It knows no schema: what a field
means is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap

Content = bytes | mmap


class DamagedMessage(ValueError):
    """A length, a number or a field that cannot be."""


class Message:
    """One message; fields are read by their number."""

    def __init__(self, content: Content, at: int, end: int) -> None:
        """Check the lengths of all fields between the bytes `at` and `end`."""
        self._content = content
        self._found: dict[int, list[tuple[int, int]]] = {}
        for number, begin, stop in fields(content, at, end):
            self._found.setdefault(number, []).append((begin, stop))

    def messages(self, number: int) -> list[Message]:
        """Return the messages of a field, none where it is left out."""
        return [Message(self._content, *place) for place in self._found.get(number, ())]

    def message(self, number: int) -> Message:
        """Return the last message of a field; an empty one where it is left out."""
        at, end = self._found.get(number, [(0, 0)])[-1]
        return Message(self._content, at, end)

    def texts(self, number: int) -> list[str]:
        """Return the texts of a field; what is no UTF-8 in them is replaced."""
        return [
            self._content[begin:stop].decode("utf-8", "replace")
            for begin, stop in self._found.get(number, ())
        ]

    def text(self, number: int) -> str:
        """Return the last text of a field, empty where it is left out."""
        return (self.texts(number) or [""])[-1]

    def content(self, number: int) -> bytes:
        """Return the last bytes of a field, empty where it is left out."""
        begin, stop = self._found.get(number, [(0, 0)])[-1]
        return self._content[begin:stop]

    def integers(self, number: int) -> list[int]:
        """Return the whole numbers of a field, one a field or many in one."""
        values = []
        for begin, stop in self._found.get(number, ()):
            if not stop:
                values.append(begin)
            while begin < stop:
                value, begin = varint(self._content, begin, stop)
                values.append(value)
        return [value - (1 << 64) if value >> 63 else value for value in values]

    def integer(self, number: int, default: int) -> int:
        """Return the last whole number of a field, or `default`."""
        return (self.integers(number) or [default])[-1]

    def has(self, number: int) -> bool:
        """Return whether a field is there."""
        return number in self._found


def fields(content: Content, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield each field's number with its first byte and its end, or with its value and 0.

    Raises:
        DamagedMessage: what stands between the bytes `at` and `end` is no message.
    """
    while at < end:
        key, at = varint(content, at, end)
        number, wire_type = key >> 3, key & 7
        if not 0 < number < 1 << 29:  # other readers drop the bits above, and see another field
            raise DamagedMessage(f"field number {number} at byte {at}")
        if wire_type == 0:
            value, at = varint(content, at, end)
            yield number, value, 0
            continue
        if wire_type == 2:
            size, at = varint(content, at, end)
        elif wire_type in (1, 5):
            size = 8 if wire_type == 1 else 4
        else:
            raise DamagedMessage(f"wire type {wire_type} at byte {at}")
        if at + size > end:
            raise DamagedMessage(f"a field of {size} bytes where {end - at} are left")
        yield number, at, at + size
        at += size


def varint(content: Content, at: int, end: int) -> tuple[int, int]:
    """Return the number that begins at byte `at`, seven bits a byte, and the byte behind it.

    Raises:
        DamagedMessage: it does not end before `end`, or is longer than any.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise DamagedMessage("it ends within a number")
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
    raise DamagedMessage(f"a number of more than 10 bytes at byte {at}")


def message_field(number: int, content: bytes) -> bytes:
    """Return the bytes of one field that holds a text or a message."""
    return _varint_bytes(number << 3 | 2) + _varint_bytes(len(content)) + content


def number_field(number: int, value: int) -> bytes:
    """Return the bytes of one field that holds a number from 0 on."""
    return _varint_bytes(number << 3) + _varint_bytes(value)


def _varint_bytes(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])
