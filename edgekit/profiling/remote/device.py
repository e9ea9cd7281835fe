"""The device's side of a remote profile: takes the order, and ends when the other side is gone."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

import edgekit
from edgekit.errors import EnvironmentLacks, InputError
from edgekit.profiling.remote import wire
from edgekit.profiling.remote.kept import kept

_SILENCE_S = 6 * wire.BEAT_S
_GRACE_S = 5.0
_BLOCK_BYTES = 1 << 16


@contextmanager
def order(reader: int, writer: int) -> Iterator[tuple[Path, list[str]]]:
    """Give the bundle's folder and the options of `edgekit profile` that another machine asks for.

    Args:
        reader: number of the file that it writes to; read without a buffer.
        writer: number of the file that it reads.

    Raises:
        EnvironmentLacks: it is gone; what it sent of a file is kept for the next time.
        EdgeKitError: as `kept`.
    """
    _say(writer, wire.GREETING, wire.Hello(wire.PROTOCOL, edgekit.__version__))
    asked = _read_order(reader)

    def fetch(name: str, offset: int, size: int) -> Iterator[bytes]:
        _say(writer, b"", wire.Want(name, offset))
        while offset < size:
            block = _read(reader, min(_BLOCK_BYTES, size - offset))
            offset += len(block)
            yield block

    with kept(asked.files, fetch) as folder:
        _say(writer, b"", wire.Ready())
        yield folder, asked.arguments


def _read_order(reader: int) -> wire.Order:
    line = bytearray()
    while not line.endswith(b"\n"):
        line += _read(reader, 1)  # not one byte of what follows
        if len(line) > wire.MESSAGE_LIMIT_BYTES:
            raise InputError("the order from the other machine is too long")
    try:
        return msgspec.json.decode(line, type=wire.Order)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"the order from the other machine cannot be read: {error}") from error


def _say(writer: int, greeting: bytes, message: wire.Hello | wire.Want | wire.Ready) -> None:
    try:
        os.write(writer, greeting + msgspec.json.encode(message) + b"\n")
    except OSError as error:
        raise EnvironmentLacks(f"the other machine is gone: {error.strerror}") from error


def _read(reader: int, most: int) -> bytes:
    """Read what there is, at most `most` bytes and at least one."""
    try:
        block = os.read(reader, most) if select.select([reader], [], [], _SILENCE_S)[0] else b""
    except OSError as error:
        raise EnvironmentLacks(f"the other machine is gone: {error.strerror}") from error
    if not block:
        raise EnvironmentLacks("the other machine is gone: the connection was closed")
    return block


def end_with(reader: int, *, silence_s: float = _SILENCE_S, grace_s: float = _GRACE_S) -> None:
    """End this process, from a thread of its own, when `reader` ends or is silent.

    First as SIGTERM does, so that the work cleans up; what then still runs, in native code or in
    child processes, is killed with the process's group.

    Args:
        reader: number of the file that the other machine writes a line end to each `wire.BEAT_S`.
        silence_s: longest time without one.
        grace_s: time to clean up.
    """

    def watch() -> None:
        while select.select([reader], [], [], silence_s)[0] and os.read(reader, _BLOCK_BYTES):
            continue
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)
        time.sleep(grace_s)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="remote", daemon=True).start()


def own_group() -> None:
    """Give this process a group of its own, so that ending it spares whoever started it."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
