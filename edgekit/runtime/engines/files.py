"""The files of the cache: what is written beside each, and whether it is one of ours."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import msgspec

from edgekit.runtime.engines.options import BuildOptions

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


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON beside a file: what it is, and how it is known again.

    Attributes:
        sha256, size_bytes: of the file.
        key: what it was made for.
        model: path of the .onnx when it was made, for people.
    """

    sha256: str
    size_bytes: int
    key: EngineKey
    model: str = ""


class Refused(Exception):
    """A file that is not as its description says."""


def read_description(file: Path) -> Description:
    """Return the description in a file.

    Raises:
        Refused: it is none of ours.
        OSError: it cannot be read.
    """
    return _decoded(plain(file, _DESCRIPTION_LIMIT_BYTES))


def plain(file: Path, limit_bytes: int) -> bytes:
    """Read a plain file of at most `limit_bytes` that none but its owner and group may write."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        raise Refused("has no description of ours") from None
    if not stat.S_ISREG(status.st_mode):
        raise Refused("is no plain file, or its description is none")
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
        raise Refused("belongs to another user, or anyone may write it")
    if status.st_size > limit_bytes:
        raise Refused("is larger than what was written")
    return file.read_bytes()


def _decoded(text: bytes) -> Description:
    try:
        return msgspec.json.decode(text, type=Description)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise Refused("has a damaged description") from error
