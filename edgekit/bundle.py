"""Read, write and verify a bundle, the folder `NAME.edgekit/` (`docs/bundle.md`)."""

from __future__ import annotations

import hashlib
import math
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgekit import atomic
from edgekit.errors import BundleError, OutputError, UsageError
from edgekit.golden import GoldenSample, read_golden
from edgekit.specs import Postprocess, Preprocess, Task, TensorSpec, class_count
from edgekit.streaming import Streaming

FORMAT_VERSION = 1
MANIFEST = "bundle.json"
_MANIFEST_LIMIT_BYTES = 16 << 20
_TENSOR_LIMIT = 1 << 31  # elements
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the model that is not in the precision that was asked for."""

    what: str
    reason: str


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outputs of the compiled model against those of its source on the same inputs.

    Attributes:
        snr_db: 10 log10(power of the source's outputs / power of the difference); 200 at most,
            which stands for "equal".
        max_abs: largest absolute difference of an output.
        agreement: share of samples (segmentation: of pixels) with the same top-1 class, 0..1;
            None where outputs are no classes.
        n: samples compared.
    """

    snr_db: float
    max_abs: float
    agreement: float | None
    n: int


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The task's metric on the evaluation set, 0..1; drop = source - converted."""

    metric: str
    source: float
    converted: float
    drop: float
    n: int


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `golden.npz` holds: how many samples, seeded or real ones, with raw frames or not."""

    count: int
    synthetic: bool
    frames: bool


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the bundle comes from; hashes are SHA-256 in hexadecimal."""

    source: str
    source_kind: str
    source_sha256: str | None
    calibration_sha256: str | None
    tools: dict[str, str]


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of `bundle.json`; `docs/bundle.md` describes every field."""

    format_version: int = FORMAT_VERSION
    task: Task
    format: str
    precision: str
    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    postprocess: Postprocess
    target: str | None
    golden: Golden
    parity: Parity | None
    accuracy: Accuracy | None
    fallbacks: tuple[Fallback, ...]
    recipe: dict[str, Any]
    provenance: Provenance
    streaming: Streaming | None = None
    files: dict[str, str] = {}

    @property
    def data_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs that a frame fills: all but states."""
        return self.inputs[: len(self.inputs) - self._state_count]

    @property
    def data_outputs(self) -> tuple[TensorSpec, ...]:
        """The outputs that are an answer: all but states."""
        return self.outputs[: len(self.outputs) - self._state_count]

    @property
    def _state_count(self) -> int:
        return 0 if self.streaming is None else len(self.streaming.states)


class Bundle(msgspec.Struct, frozen=True):
    """A bundle that was read and verified.

    Attributes:
        path: its folder.
        manifest: the contents of `bundle.json`.
        labels: class names, empty where the task has none.
    """

    path: Path
    manifest: Manifest
    labels: tuple[str, ...]

    @property
    def model_path(self) -> Path:
        """The compiled model's file."""
        return self.path / self.manifest.model

    @property
    def size_bytes(self) -> int:
        """Size of the compiled model."""
        return self.model_path.stat().st_size

    def golden(self) -> list[GoldenSample]:
        """Read the golden samples."""
        return read_golden((self.path / "golden.npz").read_bytes(), self.manifest)


def read_bundle(path: str | Path) -> Bundle:
    """Read the bundle folder at `path`, check its form and the hash of every file.

    Raises:
        BundleError: missing, damaged, of a future version, or with a path that leaves the folder.
    """
    folder = Path(path)
    manifest = decode_manifest(folder, _read_manifest(folder))
    for name, digest in manifest.files.items():
        _verify_file(folder, name, digest)
    text = (folder / "labels.txt").read_bytes() if "labels.txt" in manifest.files else b""
    return Bundle(folder, manifest, _decode_labels(folder, manifest, text))


def write_bundle(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write `files` and their manifest as one bundle folder, whole or not at all.

    Raises:
        BundleError: they make no bundle that could be read again.
        OutputError: the place cannot be written or holds something that is no bundle.
    """
    check_destination(path)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    complete = msgspec.structs.replace(manifest, files=hashes)
    text = msgspec.json.format(msgspec.json.encode(complete), indent=1)
    _decode_labels(path, decode_manifest(path, text), files.get("labels.txt", b""))
    atomic.write_folder(path, {**files, MANIFEST: text})
    return read_bundle(path)


def check_destination(path: Path) -> None:
    """Raise `OutputError` if no bundle can be written at `path`; cheap, for before a long job."""
    if path.suffix != ".edgekit":
        raise UsageError(f"`output` must be named NAME.edgekit; got {str(path)!r}")
    with atomic.output_errors(path):
        is_other = path.is_symlink() or (path.exists() and not (path / MANIFEST).is_file())
    if is_other:
        raise OutputError(f"{path} exists and is no bundle; it is left alone: choose another name")
    atomic.check_folder_destination(path)


def refuse_inside(path: Path) -> Path:
    """Return `path`, or raise `OutputError` if a file written there would damage a bundle."""
    if (path.parent / MANIFEST).is_file():
        raise OutputError(
            f"{path} lies in a bundle, which would no longer match its hashes; choose another place"
        )
    return path


def _read_manifest(folder: Path) -> bytes:
    file = folder / MANIFEST
    try:
        if not folder.exists():
            raise BundleError(f"no such bundle: {folder}")
        if folder.is_file():
            hint = "; unpack it first: edgekit unpack" if _is_packed(folder) else ""
            raise BundleError(f"{folder} is a file; a bundle is a folder NAME.edgekit{hint}")
        if file.is_symlink() or not file.is_file():
            raise BundleError(f"{folder} is no bundle: it has no file {MANIFEST}")
        with file.open("rb") as content:
            return content.read(_MANIFEST_LIMIT_BYTES + 1)
    except OSError as error:
        raise BundleError(f"cannot read bundle {folder}: {error.strerror}") from error


def _is_packed(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return MANIFEST in archive.namelist()
    except Exception:  # zipfile raises many kinds on what is no zip
        return False


class _Version(msgspec.Struct):
    format_version: int


def decode_manifest(where: Path, text: bytes) -> Manifest:
    """Decode and check a `bundle.json`; `where` names it in messages.

    Raises:
        BundleError: damaged, unsafe, of a future version, or nothing that could be run.
    """
    if len(text) > _MANIFEST_LIMIT_BYTES:
        raise BundleError(f"bundle {where}: {MANIFEST} is larger than 16 MiB; it is refused")
    try:
        version = msgspec.json.decode(text, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise BundleError(
                f"bundle {where} has format version {version}; this EdgeKit reads "
                f"{FORMAT_VERSION}: install a newer EdgeKit, or convert the model again"
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleError(f"bundle {where}: {MANIFEST} cannot be read: {error}") from error
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name):
            raise BundleError(f"bundle {where}: refused file name {name[:80]!r}")
    for name in (manifest.model, "golden.npz"):
        if name not in manifest.files:
            raise BundleError(f"bundle {where}: {MANIFEST} lists no hash of {name[:80]!r}")
    wrong = _contradiction(manifest)
    if wrong is not None:
        raise BundleError(f"bundle {where}: {MANIFEST} {wrong}; convert the model again")
    return manifest


def _contradiction(manifest: Manifest) -> str | None:
    """Return what no model could be run with, or None: types alone do not exclude it."""
    if not manifest.inputs or not manifest.outputs:
        return "names no inputs or no outputs"
    for spec in (*manifest.inputs, *manifest.outputs):
        if not spec.shape or min(spec.shape) < 1 or math.prod(spec.shape) > _TENSOR_LIMIT:
            return f"gives {spec.name[:80]!r} the impossible shape {list(spec.shape)[:8]}"
    try:
        complete = manifest.preprocess.for_input(manifest.inputs[0])
    except UsageError as error:
        return f"cannot be: {error}"
    preprocess = manifest.preprocess
    if preprocess.window is None:  # written before windows were kept
        preprocess = msgspec.structs.replace(preprocess, window=complete.window)
    if complete != preprocess or min(preprocess.std) <= 0 or not 0 <= preprocess.pad <= 255:
        return "has a preprocess that does not belong to its input"
    if manifest.postprocess.top_k < 1 or manifest.golden.count < 1:
        return "has a `top_k` or golden count below 1"
    if manifest.streaming is not None:
        return manifest.streaming.wrong_with(manifest.inputs, manifest.outputs)
    return None


def _decode_labels(where: Path, manifest: Manifest, text: bytes) -> tuple[str, ...]:
    try:
        labels = tuple(text.decode("utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise BundleError(f"bundle {where}: labels.txt is not UTF-8 text") from error
    classes = class_count(manifest.task, manifest.outputs[0], manifest.preprocess.layout)
    if labels and classes not in (None, len(labels)):
        raise BundleError(
            f"bundle {where}: labels.txt has {len(labels)} names; the model's output has {classes}"
        )
    return labels


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, without holding all of it in memory."""
    found = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _verify_file(folder: Path, name: str, digest: str) -> None:
    file = folder / name
    try:
        if not stat.S_ISREG(file.lstat().st_mode):
            raise BundleError(f"bundle {folder}: {name} is not a plain file; links are refused")
        found = file_sha256(file)
    except FileNotFoundError as error:
        raise BundleError(f"bundle {folder}: {name} is missing; copy the bundle again") from error
    except OSError as error:
        raise BundleError(f"bundle {folder}: cannot read {name}: {error.strerror}") from error
    if found != digest:
        raise BundleError(
            f"bundle {folder}: {name} does not match its hash in {MANIFEST}: it was changed or "
            "damaged; copy the bundle again"
        )
