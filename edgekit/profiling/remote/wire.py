"""What the two sides of a remote profile say to each other, over one ssh session.

::

    device   EDGEKIT-DEVICE {"protocol":1,"edgekit":"0.1.0"}       Hello
    client   {"files":[...],"arguments":["--threads","1,2"]}       Order
    device   {"type":"want","name":"model.tflite","offset":0}      Want, as often as needed
    client   the file's bytes from there to its end
    device   {"type":"ready"}                                      Ready
    device   the profile as JSON, to the end of its output
    client   an empty line each `BEAT_S`, then the end of its output

Each message is one line. On the device's standard error are lines of `progress_line`, and what
`edgekit profile` says to people; the exit code is its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TextIO

import msgspec

import edgekit
from edgekit.errors import EnvironmentLacks

PROTOCOL = 1
GREETING = b"EDGEKIT-DEVICE "
MESSAGE_LIMIT_BYTES = 1 << 20
BEAT_S = 10.0

_VARIABLE = "EDGEKIT_WIRE"
_LEAST_PAUSE_S = 1.0  # each line wakes the device's ssh server: it must not disturb the figures

OnProgress = Callable[[str, int, int], None]


class Hello(msgspec.Struct, frozen=True):
    """The device's first message: which protocol and version it is."""

    protocol: int
    edgekit: str


class File(msgspec.Struct, frozen=True):
    """One file of the bundle; the hash is SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


class Order(msgspec.Struct, frozen=True):
    """What is to be profiled, and the options of `edgekit profile`."""

    files: list[File]
    arguments: list[str]


class Want(msgspec.Struct, frozen=True, tag="want"):
    """The device lacks this file from `offset` on."""

    name: str
    offset: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The device has all files and begins to measure."""


class _Progress(msgspec.Struct, frozen=True):
    progress: tuple[str, int, int]


def check_version(hello: Hello, where: str) -> None:
    """Raise `EnvironmentLacks` unless the device's EdgeKit and ours can work together.

    They can if the protocol and the first two numbers of the version are the same: between 0.1.0
    and 0.1.7 only errors were mended, 0.2 may measure something else.
    """
    ours = edgekit.__version__
    if hello.protocol != PROTOCOL or _series(hello.edgekit) != _series(ours):
        raise EnvironmentLacks(
            f"{where} has edgekit {hello.edgekit}, this machine {ours}; the first two numbers must "
            f"be the same: install one of them on both, like: pip install 'edgekit=={ours}'"
        )


def _series(version: str) -> list[str]:
    return version.split(".")[:2]


def is_open() -> bool:
    """Return whether this process works for another machine, and says its progress as lines."""
    return os.environ.get(_VARIABLE) == "1"


def open_here() -> None:
    """Let this process say its progress as lines for the other machine."""
    os.environ[_VARIABLE] = "1"


def teller(stream: TextIO) -> OnProgress:
    """Return a function that writes progress to `stream`, at most once a second in a phase."""
    told_s, told_phase = 0.0, ""

    def tell(phase: str, done: int, total: int) -> None:
        nonlocal told_s, told_phase
        now_s = time.monotonic()
        if phase == told_phase and now_s - told_s < _LEAST_PAUSE_S:
            return
        told_s, told_phase = now_s, phase
        stream.write(msgspec.json.encode(_Progress((phase, done, total))).decode() + "\n")
        stream.flush()

    return tell


def progress_of(line: bytes) -> tuple[str, int, int] | None:
    """Return the progress that a line of the device's standard error tells, or None."""
    try:
        return msgspec.json.decode(line, type=_Progress).progress
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
