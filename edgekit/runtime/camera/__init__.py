"""Where frames come from, one file a kind of source; `open_camera` chooses by URI.

A module here has a class `Camera(uri, timeouts)` as below; its file name is the URI's scheme.
Paths without a scheme go to `images`, `file`, `csv`, `npz` or `v4l2`.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit import plugins
from edgekit.data import IMAGE_SUFFIXES
from edgekit.errors import UsageError
from edgekit.rows import STANDARD_INPUT

_DAY_S = 86400
_ALIASES = {"https": "http", "rtsps": "rtsp"}
_BY_SUFFIX = {".csv": "csv", ".npz": "npz", ".npy": "npz"}


class Timeouts(msgspec.Struct, frozen=True):
    """How long a source may take, in seconds: to open, and to give the next frame."""

    open_s: float = 5.0
    read_s: float = 5.0

    def __post_init__(self) -> None:
        """Refuse what is no time to wait."""
        for name, seconds in (("open", self.open_s), ("read", self.read_s)):
            if not 0 < seconds <= _DAY_S:
                raise UsageError(
                    f"`{name}_timeout` must be above 0 and at most {_DAY_S} s; got {seconds}"
                )


class Camera(Protocol):
    """What a source of frames does; opening it is making it.

    Attributes:
        live: frames pass whether they are taken or not (a camera, not a file).
        rate_hz: nominal frame rate, or None if not known.

    One that is not live and that another thread may read from, before its frames are asked for, has
    ``may_be_read_ahead = True``. A camera may have ``inter_coded = True``: its frames come out of
    a decoder as of h264, which repeats what stays (`edgekit.runtime.freshness`). One that
    decodes with few threads may have a method `decode_faster() -> bool`: with more from the next
    frame on, none lost or doubled; called between `retrieve` and `grab`. A source of
    numbers may have two more: ``starts_sequence``, whether the grabbed step does not continue the
    one before, and ``gives_pictures``, False where nothing can be drawn on.
    """

    live: bool
    rate_hz: float | None

    @property
    def description(self) -> str:
        """What it is, for people; without passwords."""

    def grab(self) -> int | None:
        """Go to the next frame, without decoding it where the API allows.

        Returns:
            The capture time (`time.monotonic_ns`), as early as it can be taken; None at the end.

        Raises:
            SourceError: a live source was lost.
        """

    def retrieve(self) -> NDArray[np.uint8]:
        """Return the grabbed frame, uint8 BGR [h, w, 3], owned by the caller.

        Raises:
            DataError: this frame cannot be decoded.
        """

    def close(self) -> None:
        """Release the source."""


def decode_faster(camera: Camera) -> bool:
    """Let a camera decode with more threads; return False where it does not."""
    ask = getattr(camera, "decode_faster", None)
    return ask is not None and bool(ask())


Source = str | Path | int | Iterable[Any]


def open_camera(source: Source, timeouts: Timeouts | None = None) -> Camera:
    """Open a source of frames.

    Args:
        source: ``0``, ``/dev/video0``, ``v4l2:///dev/video0``, ``rtsp://…``, ``http://…``,
            ``tcp://…``, ``udp://…``, ``csi://0``, ``gstreamer:PIPELINE``, ``test://640x480@30``,
            a video file, an image, a folder or glob of images; steps of sequences as ``FILE.csv``,
            ``FILE.npz[::ARRAY]``, ``FILE.npy`` or ``-`` (standard input); or an iterable of frames
            or steps. URIs take options, like ``v4l2:///dev/video0?width=1280&rotate=180``: see
            docs/cameras.md.
        timeouts: for sources that can hang.

    Raises:
        UsageError: no such kind of source.
        DataError: a file that is not there or cannot be read.
        SourceError: a camera or stream that is not there.
    """
    if not isinstance(source, str | Path | int):
        from edgekit.runtime.camera._iterable import Camera as IterableCamera

        return IterableCamera(source)
    from edgekit.runtime.camera._options import sign_of, take_rotation

    uri, degrees = str(source), 0
    kind = _kind(uri)
    # Paths are taken to the letter, and so are pipelines.
    if kind in ("csi", "v4l2") or (kind != "gstreamer" and "://" in uri):
        uri, degrees = take_rotation(uri, sign_of(kind))
    camera: Camera = plugins.load("camera", kind).Camera(uri, timeouts or Timeouts())
    if not degrees:
        return camera
    from edgekit.runtime.camera._rotated import Camera as RotatedCamera

    return RotatedCamera(camera, degrees)


def _kind(uri: str) -> str:
    """Return the name of the module that opens `uri`."""
    # Files may have a colon in their names, so not all that stands before one is a scheme.
    form = r"(csi|gstreamer|[a-z][a-z0-9_+.-]*(?=://|:[a-z])):"
    scheme = re.match(form, uri, re.IGNORECASE)
    if scheme:
        kind = _ALIASES.get(scheme[1].lower(), scheme[1].lower())
        if kind not in plugins.names("camera"):
            available = ", ".join(f"{name}://" for name in plugins.names("camera"))
            raise UsageError(
                f"`source` {without_secrets(uri)!r} has an unknown scheme; "
                f"available: {available} or a path"
            )
        return kind
    if re.match(r"\d+(\?[a-z]+=|$)|/dev/(video|v4l/)", uri):
        return "v4l2"
    path = Path(uri.partition("::")[0])
    if uri.partition("::")[0] == STANDARD_INPUT or path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX.get(path.suffix.lower(), "csv")
    path = Path(uri)
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        return "images"
    return "images" if any(c in uri for c in "*?[") and not path.exists() else "file"


def places_of(source: str | Path | int) -> set[str]:
    """Return the files and folders that `source` reads; of what is no file its address.

    Raises:
        UsageError: options that it does not have.
    """
    from edgekit.runtime.camera._options import read_options, take_rotation

    address = str(source)
    if address == STANDARD_INPUT:
        return set()
    scheme, separator, rest = address.partition("://")
    if separator and scheme not in ("file", "images"):
        return {address}
    if separator:
        address, _ = read_options(take_rotation(rest, "#")[0], "#", {})
        address = unquote(address) if scheme == "file" else address
    path = Path(address)
    if glob.has_magic(address) and not path.exists():
        found = (Path(name) for name in glob.glob(address, recursive=True))  # noqa: PTH207
        return {str(file.parent.resolve()) for file in found}
    file = (path if path.exists() else Path(address.partition("::")[0])).resolve()
    # Among a folder's annotated images one may get the picture's own name.
    return {str(file), *([str(file.parent)] if file.suffix.lower() in IMAGE_SUFFIXES else [])}


def without_secrets(uri: str) -> str:
    """Return `uri` with user, password and query hidden, fit for logs and reports.

    Of a pipeline the names of its elements are left.

    >>> without_secrets("rtsp://me:secret@10.0.0.2/live?token=abc")
    'rtsp://***@10.0.0.2/live?***'
    """
    if re.match("gstreamer:", uri, re.IGNORECASE):
        return _elements(uri)
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme in ("csi", "test", "v4l2"):  # devices have no passwords
        return uri
    place, *query = re.split(r"([?#])", rest, maxsplit=1)
    if query and "@" in query[1]:  # a query, or a password that holds a question mark
        return f"{scheme}://***"
    if "@" in place:  # even behind a slash: passwords hold them
        place = "***@" + place.rpartition("@")[2]
    return f"{scheme}://{place}{query[0]}***" if query else f"{scheme}://{place}"


def _elements(uri: str) -> str:
    """Return `gstreamer:…` without what any property says: passwords have many names there."""
    scheme, _, pipeline = uri.partition(":")
    # Values may be quoted, to the end if the quote is never closed, and escape blanks.
    bare = re.sub(r"""(["'])(?:\\.|(?!\1).)*(?:\1|$)""", "=", pipeline, flags=re.DOTALL)
    words = re.sub(r"\\(.|$)", "=", bare, flags=re.DOTALL).split()
    return f"{scheme}:{' '.join(w for w in words if re.fullmatch(r'[a-z][a-z0-9_]*|!', w))}"
