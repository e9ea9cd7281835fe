"""Options in a source's URI: `v4l2:///dev/video0?width=1280&rotate=180`.

They stand behind ``?``; of sources whose address may hold a ``?`` itself (streams, files, globs)
behind ``#``, which no server is ever sent. Each source has a table of its keys and their readers;
``rotate`` is for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from edgekit.errors import UsageError
from edgekit.runtime.camera import without_secrets

Sign = Literal["?", "#"]
Reader = Callable[[str], Any]
"""Turns an option's text into its value; its `ValueError` says what it must be."""

_BEHIND_HASH = ("file", "http", "images", "rtsp", "tcp", "udp")
_PAIR = r"[a-z][a-z-]*=[^&@/#]*"


def whole(least: int, most: int) -> Reader:
    """Return a reader of integers from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
            raise ValueError(f"an integer from {least} to {most}")
        return int(text)

    return read


def number(least: float, most: float) -> Reader:
    """Return a reader of decimal numbers from `least` to `most`."""

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text) or not least <= float(text) <= most:
            raise ValueError(f"a number from {least:g} to {most:g}")
        return float(text)

    return read


def one_of(*names: str) -> Reader:
    """Return a reader of one of `names`, in any case."""

    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text.lower()

    return read


def sign_of(kind: str) -> Sign:
    """Return what stands before the options of a kind of source."""
    return "#" if kind in _BEHIND_HASH else "?"


def read_options(uri: str, sign: Sign, known: Mapping[str, Reader]) -> tuple[str, dict[str, Any]]:
    """Return the address in a URI, and its options.

    Args:
        uri: address and options.
        sign: what divides the two.
        known: key -> reader of its value.

    Raises:
        UsageError: a key that is not known or given twice, or a value that its reader refuses.
    """
    address, pairs = _divide(uri, sign)
    options: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        shown = f"`source` {without_secrets(address)!r}"
        if key not in known or key in options:
            # What is no key may be a part of a password or a token.
            named = repr(key) if re.fullmatch(r"[a-z][a-z-]{0,15}", key) else "(not shown)"
            keys = ", ".join([*known, "rotate"])
            raise UsageError(f"{shown}: option {named} must be one of {keys}, each once")
        try:
            options[key] = known[key](value)
        except ValueError as error:
            raise UsageError(f"{shown}: {key} must be {error}; got {value!r}") from None
    return address, options


def take_rotation(uri: str, sign: Sign) -> tuple[str, int]:
    """Return `uri` without its option ``rotate``, and the degrees that it says, else 0.

    Raises:
        UsageError: it is none of 90, 180 and 270 degrees (clockwise), or given twice.
    """
    address, pairs = _divide(uri, sign)
    rotations = [pair for pair in pairs if pair.startswith("rotate=")]
    if not rotations:
        return uri, 0
    text = sign + "&".join(rotations)
    _, found = read_options(address + text, sign, {"rotate": one_of("90", "180", "270")})
    others = [pair for pair in pairs if pair not in rotations]
    return address + (sign + "&".join(others) if others else ""), int(found["rotate"])


def _divide(uri: str, sign: Sign) -> tuple[str, list[str]]:
    """Return what stands before the options of `uri`, and the options."""
    if sign == "?":
        address, _, text = uri.partition("?")
    else:
        address, _, text = uri.rpartition("#")
        # Names of files and passwords may hold a # too.
        if not re.fullmatch(f"{_PAIR}(&{_PAIR})*", text):
            return uri, []
    return address, [pair for pair in text.split("&") if pair]
