"""Engines on disk: found again by all that they depend on, and taken only if we wrote them.

Deserializing an engine can run code that it holds. So beside each file lies a description with its
SHA-256 and its key, and a file that is not as described is never read by TensorRT. Who may write
into the folder is trusted; it is made for its owner alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import msgspec

from edgekit.atomic import output_errors, write_file
from edgekit.errors import OutputError
from edgekit.runtime.engines.builder import Built
from edgekit.runtime.engines.options import BuildOptions, EngineEvent, OnEvent

_DESCRIPTION_LIMIT_BYTES = 1 << 16


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine depends on; None where it does not, or where nothing says it.

    Attributes:
        model_sha256: of the .onnx; "" in the key of what models share.
        flavour: `tensorrt` or `tensorrt_rtx`.
        version: of it.
        architecture: of the CPU.
        gpu: name; `compute_capability`: like 8.7; `driver`: its version; `jetpack`: version of
            JetPack or else of Jetson Linux. None for TensorRT-RTX, whose engines are for many GPUs.
        builder: revision of our builder, whose own settings it stands for.
        options: what was asked for.
    """

    model_sha256: str
    flavour: str
    version: str
    architecture: str
    gpu: str | None
    compute_capability: str | None
    driver: str | None
    jetpack: str | None
    builder: int
    options: BuildOptions

    def digest(self) -> str:
        """Return the SHA-256 of all parts, in hexadecimal."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def of_the_machine(self) -> EngineKey:
        """Return the key of what all models share on this machine: the timings."""
        return msgspec.structs.replace(self, model_sha256="", options=BuildOptions())


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


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON beside a file: what it is, and how it is known again."""

    sha256: str
    size_bytes: int
    key: EngineKey


class _Refused(Exception):
    """A file that is not as its description says."""


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
    """

    def __init__(self, folder: Path, say: OnEvent) -> None:
        self.folder = folder
        self._say = say
        self._told_unkept = False

    def engine(self, key: EngineKey, build: Callable[[bytes], Built]) -> Engine:
        """Return an engine: the one that is here, or one that is built; processes build it once.

        Args:
            key: of the engine.
            build: from the timings of earlier builds to an engine and its timings.
        """
        digest = key.digest()
        name = f"{digest}.engine"
        try:
            with self._locked(name, waiting="another process builds this engine; waiting"):
                content = self._read(name, key)
                if content is not None:
                    return Engine(content, digest, True, self.folder / name)
                return self._built(digest, key, build)
        except _Unlockable as error:
            content = self._read(name, key)  # the cache may be there, and be read-only
            if content is not None:
                return Engine(content, digest, True, self.folder / name)
            self._tell_unkept(str(error))
            self._tell_building()
            return Engine(build(b"").engine, digest, False, None)

    def _built(self, digest: str, key: EngineKey, build: Callable[[bytes], Built]) -> Engine:
        of_all, file = key.of_the_machine(), self.folder / f"{digest}.engine"
        timings = f"{of_all.digest()}.timing"
        self._tell_building()
        built = build(self._read_locked(timings, of_all) or b"")
        is_kept = self._keep(file.name, built.engine, key, nullcontext())
        if is_kept and built.timing_cache:
            self._keep(timings, built.timing_cache, of_all, self._locked(timings))
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
    def _locked(self, name: str, waiting: str | None = None) -> Iterator[None]:
        """Hold the lock of a file; the system frees it when a process ends, however it ends.

        Args:
            name: of the file in the folder.
            waiting: said if another process has it; None: it will have it for a moment only.
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
            except BlockingIOError:
                if waiting is not None:
                    self._say(EngineEvent("waiting", waiting))
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:  # a network's file system without locks
                raise _Unlockable(f"cannot lock {file} ({error.strerror})") from error
            yield
        finally:
            os.close(lock)

    def _keep(
        self, name: str, content: bytes, key: EngineKey, lock: AbstractContextManager[None]
    ) -> bool:
        """Write a file while `lock` is held; tell, and return False, if that cannot be."""
        try:
            with lock:
                self._write(name, content, key)
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
            description = _decoded(_plain(self._beside(name), _DESCRIPTION_LIMIT_BYTES))
            if description.key != key:
                raise _Refused("is described as made for something else")
            content = _plain(file, description.size_bytes)
            if hashlib.sha256(content).hexdigest() != description.sha256:
                raise _Refused("is not what was written: its SHA-256 is another")
        except _Refused as error:
            self._say(EngineEvent("refused", f"{file} {error}: it is not used"))
            return None
        except OSError as error:
            text = f"cannot read {error.filename or file} ({error.strerror}): it is not used"
            self._say(EngineEvent("cache", text))
            return None
        return content

    def _write(self, name: str, content: bytes, key: EngineKey) -> None:
        """Write a file and its description; who is killed in between leaves none that is used."""
        file, beside = self.folder / name, self._beside(name)
        with output_errors(file):
            for partial in self.folder.glob(f".{name}.*.partial"):  # of a writer that was killed
                partial.unlink(missing_ok=True)
            for old in (beside, file):  # a link or pipe there would be written to
                old.unlink(missing_ok=True)
        description = _Description(hashlib.sha256(content).hexdigest(), len(content), key)
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


def _plain(file: Path, limit_bytes: int) -> bytes:
    """Read a plain file of at most `limit_bytes` that none but its owner and group may write."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        raise _Refused("has no description of ours") from None
    if not stat.S_ISREG(status.st_mode):
        raise _Refused("is no plain file, or its description is none")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise _Refused("belongs to another user, or anyone may write it")
    if status.st_size > limit_bytes:
        raise _Refused("is larger than what was written")
    return file.read_bytes()


def _decoded(text: bytes) -> _Description:
    try:
        return msgspec.json.decode(text, type=_Description)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise _Refused("has a damaged description") from error
