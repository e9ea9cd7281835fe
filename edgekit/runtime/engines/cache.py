"""Engines on disk: found again by all that they depend on, and taken only if we wrote them.

Deserializing an engine can run code that it holds. So beside each file lies a description with its
SHA-256 and its key, and a file that is not as described is never read by TensorRT. Who may write
into the folder is trusted; it is made for its owner alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import msgspec

from edgekit.atomic import output_errors, write_file
from edgekit.errors import OutputError
from edgekit.runtime.engines.builder import Built
from edgekit.runtime.engines.files import (
    Description,
    EngineKey,
    Refused,
    plain,
    read_description,
)
from edgekit.runtime.engines.kept import LIMIT, KeptEngine, kept_engines
from edgekit.runtime.engines.options import BuildOptions, EngineEvent, OnEvent


class Engine(msgspec.Struct, frozen=True):
    """A serialized engine that was built here, or that was found in the cache and is ours.

    Attributes:
        content: what TensorRT's runtime deserializes.
        key: SHA-256, in hexadecimal, of all that the engine depends on.
        from_cache: whether it was there already.
        file: where it is kept; None: it could not be.
    """

    content: bytes
    key: str
    from_cache: bool
    file: Path | None


def cache_folder() -> Path:
    """Return where engines are kept: $EDGEKIT_CACHE, else below $XDG_CACHE_HOME or ~/.cache.

    Raises:
        OutputError: there is no home folder to keep them in.
    """
    if own := os.environ.get("EDGEKIT_CACHE"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The specification of XDG has relative paths ignored.
    if Path(xdg).is_absolute():
        return Path(xdg) / "edgekit" / "engines"
    try:
        return Path.home() / ".cache" / "edgekit" / "engines"
    except RuntimeError as error:
        raise OutputError(f"no place for engines: {error} Set EDGEKIT_CACHE to a folder") from error


class EngineCache:
    """A folder of engines; what goes wrong with it is told once, and costs a build, not the work.

    Args:
        folder: made when it is needed.
        say: told what happens.
        limit_bytes: of all engines together; None: none.
    """

    def __init__(self, folder: Path, say: OnEvent, limit_bytes: int | None = None) -> None:
        self.folder = folder
        self._say = say
        self._limit_bytes = limit_bytes
        self._told_unkept = False

    def engine(self, key: EngineKey, build: Callable[[bytes], Built], model: str = "") -> Engine:
        """Return an engine: the one that is here, or one that is built; processes build it once.

        Args:
            key: of the engine.
            build: from the timings of earlier builds to an engine and its timings.
            model: what the engine is of, for people.
        """
        digest = key.digest()
        name = f"{digest}.engine"
        try:
            with self._locked(name, waiting="another process builds this engine; waiting"):
                content = self._read(name, key)
                if content is not None:
                    with suppress(OSError):  # a cache that is read-only has no last use
                        os.utime(self.folder / name)
                    return Engine(content, digest, True, self.folder / name)
                return self._built(digest, key, build, model)
        except _Unlockable as error:
            content = self._read(name, key)  # the cache may be there, and be read-only
            if content is not None:
                return Engine(content, digest, True, self.folder / name)
            self._tell_unkept(str(error))
            self._tell_building()
            return Engine(build(b"").engine, digest, False, None)

    def _built(
        self, digest: str, key: EngineKey, build: Callable[[bytes], Built], model: str
    ) -> Engine:
        of_all, file = key.of_the_machine(), self.folder / f"{digest}.engine"
        timings = f"{of_all.digest()}.timing"
        self._tell_building()
        built = build(self._read_locked(timings, of_all) or b"")
        is_kept = self._keep(file.name, built.engine, key, nullcontext(), model)
        if is_kept and built.timing_cache:
            self._keep(timings, built.timing_cache, of_all, self._locked(timings))
        self._make_room(file)
        return Engine(built.engine, digest, False, file if is_kept else None)

    def remembered(self, key: EngineKey) -> BuildOptions:
        """Return the options that were last asked for, for the model of `key`; else the default."""
        content = self._read_locked(f"{_plainest(key).digest()}.options", _plainest(key))
        return msgspec.json.decode(content, type=BuildOptions) if content else BuildOptions()

    def remember(self, key: EngineKey) -> None:
        """Have `remembered` return the options of `key`."""
        if self.remembered(key) != key.options:
            name = f"{_plainest(key).digest()}.options"
            content = msgspec.json.encode(key.options)
            self._keep(name, content, _plainest(key), self._locked(name))

    def _make_room(self, newest: Path) -> None:
        """Remove what was not used for longest, until the limit is kept; `newest` stays."""
        if self._limit_bytes is None:
            return
        try:
            all_kept = kept_engines(self.folder)
        except OutputError as error:
            self._say(EngineEvent("cache", str(error)))
            return
        over_bytes = sum(kept.size_bytes for kept in all_kept) - self._limit_bytes
        for kept in all_kept:
            if over_bytes <= 0:
                return
            if kept.file != newest and self._is_removed(kept):
                over_bytes -= kept.size_bytes

    def _is_removed(self, kept: KeptEngine) -> bool:
        """Remove an engine, unless a process reads or builds it now, or has since it was found."""
        name = kept.file.name
        try:
            with self._locked(name, waits=False), output_errors(kept.file):
                if kept.file.lstat().st_mtime_ns != kept.used_ns:
                    return False
                # The lock's own file stays: who waits for it would else hold another than the next.
                kept.file.unlink(missing_ok=True)
                self._beside(name).unlink(missing_ok=True)
        except (_Unlockable, OutputError):
            return False
        limit_mb = (self._limit_bytes or 0) // 1_000_000
        self._say(
            EngineEvent(
                "removed",
                f"the engine of {kept.model or kept.key.model_sha256}, unused for longest, is "
                f"removed: {LIMIT} allows {limit_mb} MB",
            )
        )
        return True

    def _tell_building(self) -> None:
        text = "an engine is built for this machine, which can take minutes; the next start has it"
        self._say(EngineEvent("building", text))

    def _tell_unkept(self, reason: str) -> None:
        if self._told_unkept:
            return
        self._told_unkept = True
        text = f"{reason}: the engine is not kept, and the next start builds it again"
        self._say(EngineEvent("cache", f"{text}; EDGEKIT_CACHE names another folder"))

    @contextmanager
    def _locked(
        self, name: str, waiting: str | None = None, *, waits: bool = True
    ) -> Iterator[None]:
        """Hold the lock of a file; the system frees it when a process ends, however it ends.

        Args:
            name: of the file in the folder.
            waiting: said if another process has it; None: it will have it for a moment only.
            waits: for another process that has it; or it cannot be locked.
        """
        file = self.folder / f"{name}.lock"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _Unlockable(f"cannot write {self.folder} ({error.strerror})") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if not waits:
                    raise _Unlockable(f"another process uses {file}") from error
                if waiting is not None:
                    self._say(EngineEvent("waiting", waiting))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:  # a network's file system without locks
                raise _Unlockable(f"cannot lock {file} ({error.strerror})") from error
            yield
        finally:
            os.close(lock)

    def _keep(
        self,
        name: str,
        content: bytes,
        key: EngineKey,
        lock: AbstractContextManager[None],
        model: str = "",
    ) -> bool:
        """Write a file while `lock` is held; tell, and return False, if that cannot be."""
        try:
            with lock:
                self._write(name, content, key, model)
        except (_Unlockable, OutputError) as error:
            self._tell_unkept(str(error))
            return False
        return True

    def _read_locked(self, name: str, key: EngineKey) -> bytes | None:
        """Read a file between its writers, who come and go; without the lock if there can be none.

        A build holds its engine's lock itself.
        """
        if not os.path.lexists(self.folder / name):
            return None
        try:
            with self._locked(name):
                return self._read(name, key)
        except _Unlockable:
            return self._read(name, key)

    def _read(self, name: str, key: EngineKey) -> bytes | None:
        """Return a file that we wrote for `key`; None if there is none, or another's."""
        file = self.folder / name
        try:
            if not os.path.lexists(file):
                return None
            description = read_description(self._beside(name))
            if description.key != key:
                raise Refused("is described as made for something else")
            content = plain(file, description.size_bytes)
            if hashlib.sha256(content).hexdigest() != description.sha256:
                raise Refused("is not what was written: its SHA-256 is another")
        except Refused as error:
            self._say(EngineEvent("refused", f"{file} {error}: it is not used"))
            return None
        except OSError as error:
            text = f"cannot read {error.filename or file} ({error.strerror}): it is not used"
            self._say(EngineEvent("cache", text))
            return None
        return content

    def _write(self, name: str, content: bytes, key: EngineKey, model: str) -> None:
        """Write a file and its description; who is killed in between leaves none that is used."""
        file, beside = self.folder / name, self._beside(name)
        with output_errors(file):
            for partial in self.folder.glob(f".{name}.*.partial"):  # of a writer that was killed
                partial.unlink(missing_ok=True)
            for old in (beside, file):  # a link or pipe there would be written to
                old.unlink(missing_ok=True)
        description = Description(hashlib.sha256(content).hexdigest(), len(content), key, model)
        described = msgspec.json.format(msgspec.json.encode(description))
        for path, text in ((file, content), (beside, described)):
            write_file(path, text)
            with output_errors(path):
                path.chmod(0o644)  # whatever the umask: what anyone may write is not used

    def _beside(self, name: str) -> Path:
        return self.folder / f"{name}.json"


class _Unlockable(Exception):
    """The folder takes no lock file."""


def _plainest(key: EngineKey) -> EngineKey:
    return msgspec.structs.replace(key, options=BuildOptions())
