"""Files and folders that appear whole or not at all."""

import ctypes
import errno
import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edgekit.errors import OutputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def output_errors(path: Path | str) -> Iterator[None]:
    """Turn an `OSError` while writing `path` into an `OutputError` of one line.

    A `BrokenPipeError` of ``-``, standard output, passes: its reader has seen enough.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, BrokenPipeError) and str(path) == "-":
            raise
        advice = {
            errno.EACCES: "choose a place that you may write to",
            errno.EROFS: "the file system is read-only; choose another place",
            errno.ENOSPC: "the disk is full; free space or choose another place",
            errno.ENOENT: "its folder does not exist; make it first",
        }.get(error.errno or 0, "choose another place")
        raise OutputError(f"cannot write {path}: {error.strerror or error}; {advice}") from error


def write_file(path: Path, content: bytes, *, synced: bool = True) -> None:
    """Write `content` to `path`: a killed process or a full disk leaves the old file, or the new.

    A pipe or device (``/dev/stdout``) is written to; a link stays one, its target is written.

    Args:
        path: the file.
        content: all of it.
        synced: wait until the disk has it, so that it also survives a power cut.

    Raises:
        OutputError: the place cannot be written.
    """
    with output_errors(path):
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        target = Path(os.path.realpath(path))
        partial = _partial_sibling(target)
        try:
            _write_new(partial, content, synced)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def check_folder_destination(path: Path) -> None:
    """Raise `OutputError` now if `write_folder` could not put a folder at `path` later."""
    with output_errors(path):
        probe = _partial_sibling(path)
        probe.mkdir()
        try:
            if path.exists():
                other = _partial_sibling(path)
                other.mkdir()
                try:
                    _exchange(probe, other, path)
                finally:
                    other.rmdir()
        finally:
            probe.rmdir()


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a flat folder of `files` at `path`, replacing what was there in one step.

    The files go into a locked sibling folder, are synced, and the folder is renamed (over an
    existing one: exchanged, Linux's renameat2). Siblings that a killed writer left are removed.

    Raises:
        OutputError: the place cannot be written, or the file system cannot exchange folders.
    """
    partial = _partial_sibling(path)
    with output_errors(path):
        _remove_abandoned(path)
        partial.mkdir()
        lock = os.open(partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, content in files.items():
                _write_new(partial / name, content, synced=True)
            os.fsync(lock)
            if path.exists():
                _exchange(partial, path, path)
            else:
                partial.rename(path)
            _sync_folder(path.parent)
        finally:
            os.close(lock)
            shutil.rmtree(partial, ignore_errors=True)


def _partial_sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _remove_abandoned(path: Path) -> None:
    """Remove partial siblings whose writer is gone: the lock dies with its process."""
    for sibling in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if not sibling.is_dir():
            continue
        lock = os.open(sibling, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        else:
            shutil.rmtree(sibling, ignore_errors=True)
        finally:
            os.close(lock)


def _write_new(path: Path, content: bytes, synced: bool) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        if synced:
            os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exchange(one: Path, other: Path, shown: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    arguments = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    if rename is None or rename(*arguments) != 0:
        code = ctypes.get_errno() if rename is not None else errno.ENOSYS
        raise OutputError(
            f"cannot replace {shown} in one step here ({os.strerror(code)}); "
            "remove it first, or write to another name"
        )
