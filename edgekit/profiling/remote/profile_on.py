"""A profile that another machine measures."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgekit.bundle import MANIFEST, Bundle, file_sha256, read_bundle
from edgekit.errors import EnvironmentLacks, InputError
from edgekit.profiling.remote import wire
from edgekit.profiling.remote.destination import Destination, check_command
from edgekit.profiling.remote.ssh import Session
from edgekit.profiling.results import Profile

_BLOCK_BYTES = 1 << 18
_MOST = 1e18  # no figure of a profile comes near it; its square is still a number


def profile_on(
    on: str,
    bundle: Bundle | str | Path,
    arguments: Sequence[str] = (),
    *,
    remote_command: str | None = None,
    on_progress: wire.OnProgress | None = None,
) -> Profile:
    """Measure a bundle on another machine, with the edgekit that is installed there.

    The system's ssh client connects, with its configuration and its known hosts. What the device
    has of the bundle is not sent again.

    Args:
        on: ``user@host``, ``user@host:port`` or a name of the ssh configuration.
        bundle: an opened bundle, or its path on this machine.
        arguments: options of `edgekit profile`, from `option_words`; paths and sources in them are
            the device's.
        remote_command: words that start edgekit there; default $EDGEKIT_REMOTE_COMMAND, else
            ``edgekit``.
        on_progress: called with (what is done, done, total); total 0: not known.

    Returns:
        The device's profile with its raw samples; `bundle` is the path on this machine.

    Raises:
        UsageError: a destination or command that ssh or a shell would act on.
        EnvironmentLacks: no connection, no edgekit there, not its version; or it is lost.
        EdgeKitError: what the device's edgekit says, with its exit code.
    """
    destination = Destination.parse(on)
    given = remote_command or os.environ.get("EDGEKIT_REMOTE_COMMAND") or "edgekit"
    command = check_command(given)
    opened = bundle if isinstance(bundle, Bundle) else read_bundle(bundle)
    tell = on_progress or (lambda phase, done, total: None)
    files = _files(opened)
    tell(f"connecting to {destination}", 0, 0)
    with Session(destination, command, tell) as session:
        wire.check_version(session.greeting(), str(destination))
        asked = wire.Order(list(files.values()), list(arguments))
        session.send(msgspec.json.encode(asked) + b"\n")
        while isinstance(want := session.request(), wire.Want):
            _send(session, opened.path, files, want, tell)
        tell(f"opening on {destination}", 0, 0)
        answer = session.result()
    try:
        profile = msgspec.json.decode(answer, type=Profile)
        _check(profile, opened)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise EnvironmentLacks(
            f"{destination}: its edgekit's answer is no profile ({error}); install the same "
            "version on both machines"
        ) from error
    return msgspec.structs.replace(profile, bundle=str(opened.path))


def _check(profile: Profile, bundle: Bundle) -> None:
    """Raise `msgspec.ValidationError` unless it can be of `bundle` and have been measured."""
    manifest = bundle.manifest
    if profile.bundle_sha256 != manifest.files[manifest.model]:
        raise msgspec.ValidationError(f"it is of another model: {profile.bundle_sha256[:80]}")
    if not profile.profiles:
        raise msgspec.ValidationError("it holds no measured configuration")
    wrong = next((n for n in _numbers(msgspec.to_builtins(profile)) if abs(n) > _MOST), None)
    if wrong is not None:
        raise msgspec.ValidationError(f"{wrong:g} cannot have been measured")
    for one in profile.profiles:
        if min(*msgspec.structs.astuple(one.latency_ms), *one.samples_ms) < 0:
            raise msgspec.ValidationError("a run took less than no time")
        columns = (one.starts_s, *one.stage_samples_ms.values())
        if any(len(column) != len(one.samples_ms) for column in columns):
            raise msgspec.ValidationError("its columns of runs are not of one length")


def _numbers(value: Any) -> Iterator[float]:
    """Yield all numbers in a tree of dicts and lists."""
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value


def option_words(**values: str | float | bool | Sequence[str] | None) -> list[str]:
    """Return options of the command line by name; what is None or False is not given.

    >>> option_words(backend="litert", details=True, threads=None, sink=["a", "b"])
    ['--backend=litert', '--details', '--sink=a', '--sink=b']
    """
    words = []
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value is not None and value is not False:
            several = [value] if isinstance(value, str | float | int) else value
            words += [f"{option}={one}" for one in several]  # "=": it may begin with a dash
    return words


def _files(bundle: Bundle) -> dict[str, wire.File]:
    """Return the bundle's files by name; the manifest last, so that it stands for all."""
    digests = {**bundle.manifest.files, MANIFEST: file_sha256(bundle.path / MANIFEST)}
    return {
        name: wire.File(name, (bundle.path / name).stat().st_size, digest)
        for name, digest in digests.items()
    }


def _send(
    session: Session,
    folder: Path,
    files: dict[str, wire.File],
    want: wire.Want,
    tell: wire.OnProgress,
) -> None:
    file = files.get(want.name)
    if file is None or not 0 <= want.offset <= file.size:
        raise EnvironmentLacks(f"the device asks for {want.name[:80]!r}, which was not offered")
    with (folder / file.name).open("rb") as content:
        content.seek(want.offset)
        sent = want.offset
        while sent < file.size:
            block = content.read(min(_BLOCK_BYTES, file.size - sent))
            if not block:
                raise InputError(f"{folder / file.name} became shorter while it was sent")
            session.send(block)
            sent += len(block)
            tell(f"sending {file.name}, kB", sent // 1000, file.size // 1000)
