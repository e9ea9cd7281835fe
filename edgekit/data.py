"""Calibration and evaluation sets: image folders, `.npz`, `.npy`, `.csv`, arrays and iterables.

Nothing is ever unpickled. uint8 samples are frames and go through the bundle's preprocessing; of a
model that takes pictures, float samples are its inputs, taken as they are.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit.errors import DataError, EdgeKitError, require
from edgekit.rows import STANDARD_INPUT, Table, read_table

if TYPE_CHECKING:
    from numpy.lib.npyio import NpzFile

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
_NO_CLASS = 255  # in masks: a pixel that does not count

Sample = NDArray[Any] | tuple[NDArray[Any], ...]


class Dataset(msgspec.Struct, frozen=True):
    """A set of samples that can be gone through more than once.

    Attributes:
        name: where it comes from, for messages.
        count: number of samples.
        read: index -> sample: a uint8 frame (BGR [h, w, 3] or grey [h, w]), a float model input
            without batch dimension, or a tuple of those for a model of several inputs.
        labels: class indices int64 [n], masks [n, h, w], float targets [n, …], or None.
        classes: class names, empty if not known.
        sha256: hash of all samples, for provenance.
        starts: where samples are steps of sequences: indices of those that begin one, but 0.
    """

    name: str
    count: int
    read: Callable[[int], Sample]
    labels: NDArray[Any] | None
    classes: tuple[str, ...]
    sha256: str
    starts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return (self.read(index) for index in range(self.count))

    def labelled(self) -> NDArray[Any]:
        """Return the labels, or raise `DataError` if there are none."""
        if self.labels is None:
            raise DataError(
                f"{self.name} has no labels; give an array y beside x, or class sub-folders"
            )
        return self.labels

    def with_labels_of(self, labels: Sequence[str]) -> Dataset:
        """Return this set with class indices that follow the model's `labels`, matched by name."""
        if self.labels is None or self.labels.dtype.kind == "f":
            return self
        if not labels or not self.classes or self.classes == tuple(labels):
            return self
        unknown = [name for name in self.classes if name not in labels]
        if unknown:
            raise DataError(
                f"{self.name} has classes that the model has not: {', '.join(unknown[:5])}; "
                f"the model has {', '.join(labels[:10])}"
            )
        order = np.arange(max(256, len(self.classes)))  # _NO_CLASS stays itself
        order[: len(self.classes)] = [labels.index(name) for name in self.classes]
        return msgspec.structs.replace(self, labels=order[self.labels], classes=tuple(labels))


def load_data(data: Any) -> Dataset:
    """Open a calibration or evaluation set.

    Args:
        data: path of an image folder (class sub-folders give labels), of a `.npz` (arrays x and
            y, or ``FILE.npz::x_name,y_name``), of a `.npy`, or of a `.csv` (steps or samples, one
            a line; a column ``label``, or that of ``FILE.csv::NAME``, gives labels; ``-`` is
            standard input); an array [n, …]; a pair (x, y) of arrays; or an iterable of samples.
            Arrays are RGB.

    Raises:
        DataError: missing, damaged, empty, NaN, or of a shape or dtype that cannot be used.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | Path):
        path, _, arrays = str(data).partition("::")
        if path == STANDARD_INPUT or path.lower().endswith(".csv"):
            return _from_table(read_table(str(data)))
        return _from_path(Path(path), arrays)
    if isinstance(data, np.ndarray):
        return _from_arrays("the array", data, None, ())
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(a, np.ndarray) for a in data):
        return _from_arrays("the arrays", data[0], data[1], ())
    if isinstance(data, Iterable):
        return _from_iterable(data)
    raise DataError(f"data must be a path, an array or an iterable; got {type(data).__name__}")


def _from_path(path: Path, arrays: str) -> Dataset:
    if not path.exists():
        raise DataError(f"no such data: {path}; expected an image folder, .npz, .npy or .csv")
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".npy":
        return _from_arrays(str(path), _load_npy(path), None, ())
    if path.suffix == ".npz":
        return _from_npz(path, arrays)
    raise DataError(f"cannot read data from {path}; expected an image folder, .npz, .npy or .csv")


def _from_table(table: Table) -> Dataset:
    data = _from_arrays(table.name, table.x, table.y, table.classes)
    return msgspec.structs.replace(data, starts=table.starts)


def _load_npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises many kinds on damaged files
        raise DataError(f"cannot read {path}: {_pickle_advice(error)}") from error
    return array


def _from_npz(path: Path, arrays: str) -> Dataset:
    x_name, _, y_name = (arrays or "x,y").partition(",")
    try:
        # Opened here: on damaged files numpy leaves its own open.
        with path.open("rb") as file, _open_npz(file) as content:
            available = ", ".join(content.files) or "none"
            for name in (x_name, y_name if arrays else ""):
                if name and name not in content.files:
                    raise DataError(
                        f"{path} has no array {name!r}; it has {available}: "
                        f"choose with {path.name}::X,Y"
                    )
            x = content[x_name]
            y = content[y_name] if y_name in content.files else None
            classes = tuple(content["classes"].astype(str)) if "classes" in content.files else ()
    except EdgeKitError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise many kinds on damaged files
        raise DataError(f"cannot read {path}: {_pickle_advice(error)}") from error
    return _from_arrays(f"{path.name}::{x_name}", x, y, tuple(str(name) for name in classes))


def _open_npz(file: BinaryIO) -> NpzFile:
    if not zipfile.is_zipfile(file):
        raise ValueError("no zip archive, as every .npz is: empty, cut short or of another kind")
    file.seek(0)
    archive: NpzFile = np.load(file, allow_pickle=False)
    return archive


def _pickle_advice(error: Exception) -> str:
    if "allow_pickle" in str(error):
        return "an array holds Python objects, which are never unpickled; save it as numbers"
    return str(error) or type(error).__name__


def _from_arrays(
    name: str, x: NDArray[Any], y: NDArray[Any] | None, classes: tuple[str, ...]
) -> Dataset:
    if x.dtype.kind not in "uif":
        raise DataError(
            f"{name} has dtype {x.dtype}; expected uint8 frames, or floats or integers as inputs"
        )
    if x.ndim < 2 or x.size == 0:
        raise DataError(f"{name} has shape {list(x.shape)}; expected samples [n, …], n at least 1")
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            x = np.asarray(x, np.float32)
        _refuse_not_finite(name, x)
    if y is not None:
        y = _checked_labels(name, y, len(x), classes)
    digest = hashlib.sha256(f"{x.dtype}{x.shape}".encode())
    digest.update(np.ascontiguousarray(x).data)
    return Dataset(name, len(x), lambda i: _as_frame(x[i]), y, classes, digest.hexdigest())


def _as_frame(sample: NDArray[Any]) -> NDArray[Any]:
    """Return a sample of an array, which is RGB, as a BGR frame if it is a colour picture."""
    if sample.dtype == np.uint8 and sample.ndim == 3 and sample.shape[2] == 3:
        return np.ascontiguousarray(sample[..., ::-1])
    return sample


def _refuse_not_finite(name: str, x: NDArray[Any]) -> None:
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1))
    if len(bad):
        raise DataError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(x)} samples "
            f"(first: sample {bad[0]}); clean the data first"
        )


def _checked_labels(
    name: str, y: NDArray[Any], count: int, classes: tuple[str, ...]
) -> NDArray[Any]:
    if y.dtype.kind not in "uif" or y.ndim == 0 or len(y) != count:
        raise DataError(
            f"labels of {name} have dtype {y.dtype} and shape {list(y.shape)}; "
            f"expected numbers, one entry for each of the {count} samples"
        )
    if y.dtype.kind == "f":
        _refuse_not_finite(f"labels of {name}", y)
        return np.asarray(y, np.float32)
    if classes and ((y < 0) | (y >= len(classes)) & (y != _NO_CLASS)).any():
        raise DataError(
            f"labels of {name} go from {y.min()} to {y.max()}; its {len(classes)} classes have "
            f"the numbers 0 to {len(classes) - 1}"
        )
    return np.asarray(y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y, np.int64)


def _from_iterable(samples: Iterable[Any]) -> Dataset:
    kept: list[Sample] = []
    digest = hashlib.sha256()
    for item in samples:
        parts = tuple(np.asarray(p) for p in (item if isinstance(item, tuple | list) else [item]))
        for part in parts:
            if part.dtype.kind not in "uif" or part.size == 0:
                raise DataError(
                    f"sample {len(kept)} has dtype {part.dtype} and shape {list(part.shape)}; "
                    "expected numbers"
                )
            if part.dtype.kind == "f":
                _refuse_not_finite(f"sample {len(kept)}", part[None])
            digest.update(np.ascontiguousarray(part).data)
        parts = tuple(_as_frame(part) for part in parts)
        kept.append(parts[0] if len(parts) == 1 else parts)
    if not kept:
        raise DataError("the iterable gave no samples; an iterator can be used once only")
    return Dataset("the iterable", len(kept), kept.__getitem__, None, (), digest.hexdigest())


def _from_folder(folder: Path) -> Dataset:
    below = {e.name: list_images(e) for e in sorted(_visible(folder)) if e.is_dir()}
    classes = tuple(name for name, images in below.items() if images)
    files = list_images(folder)
    if files and classes:
        raise DataError(
            f"{folder} holds images ({files[0].name} …) beside folders of images ({classes[0]} …); "
            "put all into folders named as their classes, or none"
        )
    files = files or [file for name in classes for file in below[name]]
    labels = [index for index, name in enumerate(classes) for _ in below[name]]
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(_read_image_file(file)).digest())
    return Dataset(
        name=str(folder),
        count=len(files),
        read=lambda index: read_image(files[index]),
        labels=np.array(labels, np.int64) if classes else None,
        classes=classes,
        sha256=digest.hexdigest(),
    )


def list_images(folder: Path) -> list[Path]:
    """Return the image files directly in `folder`, sorted by name."""
    return sorted(file for file in _visible(folder) if file.suffix.lower() in IMAGE_SUFFIXES)


def _visible(folder: Path) -> list[Path]:
    """Return what is in `folder`, less what file managers and notebooks hide there."""
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read folder {folder}: {error.strerror}") from error


def _read_image_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read image {path}: {error.strerror}") from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 BGR [h, w, 3].

    Raises:
        DataError: not there, no image, or cut short (OpenCV would fill the rest with grey).
    """
    cv2 = require("cv2", "cpu")
    content = _read_image_file(path)
    cut = content.startswith(b"\xff\xd8") and b"\xff\xd9" not in content[-1024:]
    image: NDArray[np.uint8] | None = None
    if content and not cut:
        try:
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error as error:
            raise DataError(
                f"cannot decode image {path}: OpenCV refuses it ({error.err})"
            ) from error
    if image is None:
        raise DataError(f"cannot decode image {path} ({len(content)} bytes): damaged or no image")
    return image
