"""Two saved profiles of several processes each: `edgekit compare A.json B.json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgekit.errors import InputError, UsageError
from edgekit.profiling.compare.figures import figure_of_groups, memory_once
from edgekit.profiling.compare.gates import judge
from edgekit.profiling.compare.results import (
    Comparison,
    Comparisons,
    Figure,
    FigureName,
    Gate,
    Side,
)
from edgekit.profiling.results import Block, LatencyProfile, Profile

LEAST_BLOCKS = 3
_LIMIT_BYTES = 1 << 28
_LEAST, _MOST = 1e-9, 1e12  # ms or MB; what lies beyond was not measured, and has no ratio
# Fewer runs of a block say nothing of such a percentile.
_LEAST_RUNS: dict[FigureName, int] = {"p50": 1, "p90": 20, "p99": 200, "mean": 1}
# What differs from one day to the next and makes nothing slower, and what is compared itself.
_HARMLESS = ("edgekit",)


class _Key(NamedTuple):
    """What a configuration is told by; the bundle and its precision are what is compared."""

    scenario: str
    backend: str
    threads: int
    rate_hz: float | None
    streams: int | None

    @classmethod
    def of(cls, profile: LatencyProfile) -> _Key:
        return cls(
            profile.scenario, profile.backend, profile.threads, profile.rate_hz, profile.streams
        )

    def __str__(self) -> str:
        parts = [self.scenario, self.backend, f"threads {self.threads}"]
        parts += [] if self.rate_hz is None else [f"{self.rate_hz:g} Hz"]
        parts += [] if self.streams is None else [f"{self.streams} streams"]
        return " ".join(parts)


def read_profile(path: Path) -> Profile:
    """Read what `edgekit profile --json` wrote.

    Raises:
        InputError: no such file, or no profile.
    """
    try:
        if path.is_file() and path.stat().st_size > _LIMIT_BYTES:
            raise InputError(f"{path} is larger than 256 MiB; that is no profile")
        content = path.read_bytes()
        if (several := _bundles(content)) > 1:
            raise InputError(
                f"{path} holds profiles of {several} bundles; profile each into a file of its own"
            )
        profile = msgspec.json.decode(content, type=Profile)
    except OSError as error:
        raise InputError(f"cannot read profile {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is no saved profile ({error}); compare two bundles NAME.edgekit, or two files "
            "that edgekit profile --processes 5 --json FILE wrote"
        ) from error
    if not profile.profiles:
        raise InputError(f"{path} holds no measured configuration; profile again")
    for one in profile.profiles:
        _check_numbers(path, one)
    return profile


class _Several(msgspec.Struct):
    """What `edgekit profile A B --json` writes."""

    bundles: list[msgspec.Raw] = []


def _bundles(content: bytes) -> int:
    """Return how many bundles' profiles these are, 0 where it is a single one."""
    return len(msgspec.json.decode(content, type=_Several).bundles)


def _check_numbers(path: Path, profile: LatencyProfile) -> None:
    """Raise unless all figures could have been measured: they come from a file."""
    for block in profile.blocks:
        times = msgspec.structs.astuple(block.latency_ms)
        if not all(_LEAST < time < _MOST for time in times) or block.runs < 1:
            raise InputError(
                f"{path}: {_Key.of(profile)} has a block of {block.runs} runs with {times} ms; "
                f"latencies must be above {_LEAST:g} and below {_MOST:g} ms: profile again"
            )
    if profile.memory is not None and not _LEAST < profile.memory.peak_rss_mb < _MOST:
        raise InputError(
            f"{path}: {_Key.of(profile)} has a peak of {profile.memory.peak_rss_mb} MB of memory; "
            f"it must be above {_LEAST:g} and below {_MOST:g} MB: profile again"
        )


def compare_profiles(
    path_a: Path, path_b: Path, *, gates: Sequence[Gate] = (), force: bool = False
) -> Comparisons:
    """Compare two saved profiles, configuration by configuration.

    Args:
        path_a: what `edgekit profile --json` wrote of what the other is compared with.
        path_b: of the other.
        gates: limits to judge.
        force: compare although frames, machine or configuration differ.

    Raises:
        InputError: no profile, or one of too few processes.
        UsageError: they differ in what must be the same, or a gate on a figure that is not there.
    """
    a, b = read_profile(path_a), read_profile(path_b)
    differences = list(_differences(a, b))
    pairs, alone = _pairs(a, b)
    if len(pairs) == 1 and (one := pairs[0])[0] is not None:
        keys = [_Key.of(profile) for profile in one]
        if keys[0] != keys[1]:
            differences.append(f"configuration: {keys[0]} in the one, {keys[1]} in the other")
    if not pairs:
        raise UsageError(
            f"{path_a} and {path_b} have no configuration in common: {'; '.join(alone)}"
        )
    if differences and not force:
        raise UsageError(
            f"{path_a} and {path_b} cannot be compared: {'; '.join(differences)} (--force compares "
            "them all the same)"
        )
    for path, index in ((path_a, 0), (path_b, 1)):
        for pair in pairs:
            _check_blocks(path, pair[index])
    return Comparisons(
        method="saved",
        frames=a.frames,
        comparisons=tuple(judge(_comparison(a, b, *pair), gates) for pair in pairs),
        notes=(
            *(f"compared although they differ: {difference}" for difference in differences),
            *(f"not compared: {one}" for one in alone),
            *_doubts((path_a, path_b), pairs),
        ),
        environment=a.environment,
    )


def _differences(a: Profile, b: Profile) -> Iterator[str]:
    if a.frames != b.frames:
        yield f"frames: {a.frames!r} in the one, {b.frames!r} in the other"
    if a.input and b.input and a.input != b.input:
        yield f"input: {a.input} in the one, {b.input} in the other"
    for name in sorted(a.environment.keys() | b.environment.keys()):
        one, other = a.environment.get(name, "nothing"), b.environment.get(name, "nothing")
        if one != other and name not in _HARMLESS:
            yield f"{name}: {one} in the one, {other} in the other"


_Pairs = list[tuple[LatencyProfile, LatencyProfile]]


def _pairs(a: Profile, b: Profile) -> tuple[_Pairs, list[str]]:
    """Return what belongs together, and what only one of them has."""
    if len(a.profiles) == len(b.profiles) == 1:
        return [(a.profiles[0], b.profiles[0])], []
    ours, theirs = ({_Key.of(one): one for one in side.profiles} for side in (a, b))
    pairs = [(one, theirs[key]) for key, one in ours.items() if key in theirs]
    alone = [f"{key} is in the first only" for key in ours.keys() - theirs.keys()]
    alone += [f"{key} is in the second only" for key in theirs.keys() - ours.keys()]
    return pairs, sorted(alone)


def _check_blocks(path: Path, profile: LatencyProfile) -> None:
    if len(profile.blocks) < LEAST_BLOCKS:
        raise InputError(
            f"{path}: {_Key.of(profile)} was measured in {len(profile.blocks)} process"
            f"{'' if len(profile.blocks) == 1 else 'es'}; one process's memory may lie well or "
            f"badly by chance, so {LEAST_BLOCKS} are needed: edgekit profile --processes 5 --json"
        )


def _doubts(paths: tuple[Path, Path], pairs: _Pairs) -> Iterator[str]:
    for index, path in enumerate(paths):
        for pair in pairs:
            for finding in pair[index].findings:
                if finding.is_doubt:
                    yield f"{path}, {_Key.of(pair[index])} is in doubt: {finding.message}"


def _comparison(a: Profile, b: Profile, one: LatencyProfile, other: LatencyProfile) -> Comparison:
    return Comparison(
        scenario=one.scenario,
        a=_side(a, one),
        b=_side(b, other),
        figures=tuple(_figures(one, other)),
        is_trusted=one.is_trusted and other.is_trusted,
    )


def _side(profile: Profile, one: LatencyProfile) -> Side:
    return Side(
        bundle=profile.bundle,
        bundle_sha256=profile.bundle_sha256,
        precision=one.precision,
        backend=one.backend,
        executes=one.executes,
        threads=one.threads,
        blocks=len(one.blocks),
        runs=sum(block.runs for block in one.blocks),
    )


def _figures(a: LatencyProfile, b: LatencyProfile) -> Iterator[Figure]:
    for name, least in _LEAST_RUNS.items():
        if all(block.runs >= least for block in (*a.blocks, *b.blocks)):
            yield figure_of_groups(name, "ms", *(_latencies(one.blocks, name) for one in (a, b)))
    # A block tells it of a run, which in scenario multi-stream is a frame of each stream.
    cpu = [[block.cpu_ms / (one.streams or 1) for block in one.blocks] for one in (a, b)]
    if all(_LEAST < value < _MOST for value in (*cpu[0], *cpu[1])):
        yield figure_of_groups("cpu", "ms", *cpu)
    if a.memory is not None and b.memory is not None:
        yield memory_once(a.memory.peak_rss_mb, b.memory.peak_rss_mb)


def _latencies(blocks: Sequence[Block], name: FigureName) -> list[float]:
    return [float(getattr(block.latency_ms, name)) for block in blocks]
