"""Bundles that other machines sent here, kept by their hash so that none is sent twice."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit.atomic import output_errors
from edgekit.bundle import FILE_NAME, MANIFEST, file_sha256
from edgekit.errors import EnvironmentLacks, InputError, OutputError
from edgekit.profiling.remote.wire import File
from edgekit.runtime.engines.cache import cache_folder

_KEPT = 10  # bundles; those longest unused go first
_DIGEST = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[str, int, int], Iterator[bytes]]
"""From (name, offset, size) to the bytes of the file from `offset` to `size`."""


@contextmanager
def kept(files: Sequence[File], fetch: Fetch) -> Iterator[Path]:
    """Give the folder of the bundle that consists of `files`; those it lacks are fetched.

    A file that was cut is fetched from where it ends; all are compared with their SHA-256. The
    folder cannot be removed by another run meanwhile.

    Raises:
        InputError: the list is none of a bundle, or a file arrives damaged twice.
        EnvironmentLacks: another run fetches the same bundle, or no room, no permission.
    """
    _check(files)
    folder = cache_folder() / "remote" / next(f.sha256 for f in files if f.name == MANIFEST)
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder, os.O_RDONLY)
    try:
        with output_errors(folder):
            if _locked(lock, fcntl.LOCK_EX):
                _complete(folder, files, fetch)
            elif not _locked(lock, fcntl.LOCK_SH):
                raise EnvironmentLacks(
                    "another run is sending the same bundle to this device; start again when it is "
                    "done"
                )
            fcntl.flock(lock, fcntl.LOCK_SH)
            os.utime(folder)
            _forget_the_oldest(folder.parent)
        yield folder
    finally:
        os.close(lock)


def _check(files: Sequence[File]) -> None:
    for file in files:
        if not (FILE_NAME.fullmatch(file.name) and _DIGEST.fullmatch(file.sha256)) or file.size < 0:
            raise InputError(f"refused file {file.name[:80]!r}: no name, size and hash of a bundle")
    if [file.name for file in files].count(MANIFEST) != 1:
        raise InputError(f"refused files: a bundle has one {MANIFEST}")


def _locked(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complete(folder: Path, files: Sequence[File], fetch: Fetch) -> None:
    missing = [file for file in files if not _is_whole(folder / file.name, file)]
    lacking = sum(file.size - _size(_partial(folder, file)) for file in missing)
    free = shutil.disk_usage(folder).free
    if lacking > free:
        raise OutputError(
            f"the disk is full: {folder} needs {lacking / 1e6:.1f} MB and has {free / 1e6:.1f} MB; "
            "free space on the device, or set EDGEKIT_CACHE there to another folder"
        )
    for file in missing:
        if not _fetched(folder, file, fetch):
            # What was there from an earlier run was damaged: once more, from the beginning.
            _partial(folder, file).unlink()
            if not _fetched(folder, file, fetch):
                _partial(folder, file).unlink()
                raise InputError(
                    f"{file.name} arrived damaged: it changed while it was sent; run again"
                )


def _fetched(folder: Path, file: File, fetch: Fetch) -> bool:
    """Fetch what a file lacks; return whether it is then what it should be, and in its place."""
    partial = _partial(folder, file)
    with output_errors(partial):
        if _size(partial) > file.size:
            partial.unlink()
        try:
            with partial.open("ab", buffering=0) as written:
                for block in fetch(file.name, _size(partial), file.size):
                    _write(written.fileno(), block)
        except OSError:
            partial.unlink(missing_ok=True)  # a full disk is not to be left full
            raise
        if not _is_whole(partial, file):
            return False
        partial.replace(folder / file.name)
    return True


def _write(number: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(number, left) :]


def _partial(folder: Path, file: File) -> Path:
    return folder / f".{file.name}.partial"  # no name of a bundle's file begins with a dot


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_whole(path: Path, file: File) -> bool:
    return path.is_file() and _size(path) == file.size and file_sha256(path) == file.sha256


def _forget_the_oldest(parent: Path) -> None:
    """Remove the bundles longest unused; those that a run holds stay, and what cannot be removed.

    Another run may remove the same ones meanwhile.
    """
    used: list[tuple[float, Path]] = []
    for folder in parent.iterdir():
        with suppress(OSError):
            status = folder.lstat()
            if _DIGEST.fullmatch(folder.name) and stat.S_ISDIR(status.st_mode):
                used.append((status.st_mtime, folder))
    for _, folder in sorted(used, reverse=True)[_KEPT:]:
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                if _locked(lock, fcntl.LOCK_EX):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
