"""Devices, one TOML file each; the file's name is the target's name."""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgekit.errors import expect_one_of

_FOLDER = Path(__file__).parent


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a device can do.

    Attributes:
        title: its name for people.
        architecture: as `uname -m` says it.
        formats: model formats it runs, best first.
        precisions: see `edgekit.specs.Precision`.
        verified: on what this was tried, or that it was not.
        sources: where the facts come from.
    """

    title: str
    architecture: str
    formats: tuple[str, ...]
    precisions: tuple[str, ...]
    verified: str
    sources: tuple[str, ...]


def target_names() -> list[str]:
    """Return the names of all targets, sorted."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def read_target(name: str) -> Target:
    """Return the target `name`; `UsageError` names what there is."""
    expect_one_of("target", name, target_names())
    return msgspec.toml.decode((_FOLDER / f"{name}.toml").read_bytes(), type=Target)
