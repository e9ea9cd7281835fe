"""Where results go, one file a kind of sink; `open_sink` chooses by URI.

A module here has a class `Sink(uri, rate_hz)` as below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgekit import plugins
from edgekit.bundle import refuse_inside
from edgekit.errors import UsageError
from edgekit.runtime.camera import Camera, without_secrets
from edgekit.runtime.stream import Result

_BY_SUFFIX = {
    **dict.fromkeys((".jsonl", ".ndjson"), "jsonl"),
    **dict.fromkeys((".mp4", ".avi", ".mkv", ".mov"), "video"),
}


class Sink(Protocol):
    """Takes results in order; opening it is making it.

    It may have ``begin(sources)``, which is told the names of the run's sources, in their order.

    One that draws on pictures has ``needs_pictures = True``. One that takes microseconds has
    ``writes_at_once = True``: it is written to in the model's thread, without a queue, and may have
    ``event(event)``, which is called for each event of the run.
    """

    def write(self, result: Result) -> None:
        """Take one result; `OutputError` if it cannot be kept."""

    def close(self) -> None:
        """Finish; what was written is complete and readable afterwards."""


def open_sink(uri: str, rate_hz: float | None = None) -> Sink:
    """Open a sink.

    Args:
        uri: ``out.jsonl`` or ``-`` (JSON Lines; ``out.jsonl#rotate=100MB&keep=5`` for weeks),
            ``out.mp4`` (annotated video), ``folder/`` (annotated images), ``display://`` (window),
            ``http://127.0.0.1:8080`` (live page).
        rate_hz: frame rate for videos.

    Raises:
        UsageError: no such kind of sink.
        OutputError: the place cannot be written.
    """
    kind = kind_of(uri)
    if "://" not in uri:
        path = Path(path_of(uri))
        refuse_inside(path / "picture" if kind == "images" else path)
    sink: Sink = plugins.load("sink", kind).Sink(uri, rate_hz)
    return sink


def check_pictures(camera: Camera, sinks: Sequence[str]) -> None:
    """Raise `UsageError` for a sink that draws on pictures where `camera` gives numbers."""
    if getattr(camera, "gives_pictures", True):
        return
    for uri in sinks:
        if getattr(plugins.load("sink", kind_of(uri)).Sink, "needs_pictures", False):
            raise UsageError(
                f"`sink` {without_secrets(uri)!r} draws on pictures, and {camera.description} "
                "gives numbers; write the results to FILE.jsonl or - (standard output)"
            )


def writes_at_once(uri: str) -> bool:
    """Whether the sink is faster than handing over to another thread, as lines in a file are."""
    kind = kind_of(uri)
    path = Path(path_of(uri))
    if kind == "jsonl":
        return str(path) != "-" and (path.is_file() or not path.exists())
    return bool(getattr(plugins.load("sink", kind).Sink, "writes_at_once", False))


def path_of(uri: str) -> str:
    """Return the path that a sink's `uri` names, without its scheme and the options of a file.

    >>> path_of("jsonl://out.jsonl#rotate=10MB")
    'out.jsonl'
    """
    path = uri.removeprefix("jsonl://")
    before, sign, _ = path.partition("#")
    return before if sign and before.lower().endswith((".jsonl", ".ndjson")) else path


def kind_of(uri: str) -> str:
    """Return the name of the sink that `uri` asks for, or raise `UsageError`."""
    scheme, separator, place = uri.partition("://")
    if separator and scheme in plugins.names("sink"):
        if not place and scheme in ("images", "jsonl", "video"):
            raise UsageError(f"`sink` {uri!r} names no place; write one behind it: {uri}out")
        return scheme
    if uri and not separator:
        if uri == "-":
            return "jsonl"
        if uri.endswith("/") or Path(uri).is_dir():
            return "images"
        suffix = Path(path_of(uri)).suffix.lower()
        if suffix in _BY_SUFFIX:
            return _BY_SUFFIX[suffix]
    raise UsageError(
        f"`sink` {without_secrets(uri)!r} is not known; available: FILE.jsonl, - (standard "
        "output), FILE.mp4 .avi .mkv .mov, FOLDER/, "
        + ", ".join(f"{name}://" for name in plugins.names("sink"))
    )
