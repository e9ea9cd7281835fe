"""Two bundles, or two configurations of one, measured in turns: `edgekit compare A B`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import numpy as np
from msgspec import structs

from edgekit.bundle import Bundle, Manifest
from edgekit.errors import UsageError
from edgekit.profiling import fresh
from edgekit.profiling.compare.figures import figure_of_groups
from edgekit.profiling.compare.gates import judge
from edgekit.profiling.compare.interleaved import (
    OPENINGS,
    Clocks,
    OnProgress,
    Opener,
    Round,
    Run,
    figures_of,
    measure_in_turns,
    times_s,
    waited_share,
)
from edgekit.profiling.compare.results import Comparison, Comparisons, Figure, Gate, Side
from edgekit.profiling.environment import environment
from edgekit.profiling.frames import golden_frames
from edgekit.profiling.inputs import input_of
from edgekit.profiling.turns import waiting_clock
from edgekit.runtime.model import Frame, Model, open_model

_MOST_DURATION_S = 86400
_FRAMES = 8
_MEMORY_PROCESSES = 3
_TOLD_WAIT = 0.05


class Configuration(msgspec.Struct, frozen=True):
    """A bundle, and how it is to be opened.

    Attributes:
        bundle: read and verified.
        backend: as in `open_model`.
        threads: likewise.
    """

    bundle: Bundle
    backend: str | None = None
    threads: int | None = None

    def open(self, *, check: bool = True) -> Model:
        """Open it as `edgekit.open` does; `check` replays the golden samples."""
        return open_model(self.bundle, backend=self.backend, threads=self.threads, check=check)


class Measured(msgspec.Struct, frozen=True):
    """What two bundles gave in turns, and the runs themselves for a plot."""

    result: Comparisons
    openings: list[list[Round]]


def compare_bundles(
    a: Configuration,
    b: Configuration,
    *,
    duration_s: float = 10.0,
    gates: Sequence[Gate] = (),
    memory: bool = False,
    force: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Measured:
    """Measure two bundles in turns on this machine, one frame at a time, on the frames of `a`.

    Args:
        a: what `b` is compared with.
        b: the other.
        duration_s: to measure, both together.
        gates: limits to judge.
        memory: compare memory too, as where a gate is on it: in fresh processes.
        force: compare although task or input differ.
        seed: draws who begins.
        on_progress: called with (phase, done, total).

    Raises:
        UsageError: task or input differ, a duration that makes no sense, or a gate on a figure that
            is not measured.
    """
    if not 0 < duration_s < _MOST_DURATION_S:
        raise UsageError(
            f"`duration` must be above 0 s and below {_MOST_DURATION_S}; got {duration_s}"
        )
    differences = list(_differences(a.bundle.manifest, b.bundle.manifest))
    if differences and not force:
        raise UsageError(
            f"{a.bundle.path} and {b.bundle.path} cannot be compared: "
            f"{'; '.join(differences)} (--force compares them all the same)"
        )
    on_progress = on_progress or (lambda phase, done, total: None)
    sides = [_side(one) for one in (a, b)]
    openings = _measure(a, b, sides, duration_s, seed, on_progress)
    figures = figures_of(openings)
    if memory or any(gate.figure == "memory" for gate in gates):
        figures += (_memory(a, b, on_progress),)
    rounds = [one for rounds in openings for one in rounds]
    comparison = Comparison(
        scenario="single-stream",
        a=structs.replace(sides[0], runs=len(times_s(rounds, "a"))),
        b=structs.replace(sides[1], runs=len(times_s(rounds, "b"))),
        figures=figures,
        waited=waited_share(openings),
    )
    result = Comparisons(
        method="in turns",
        frames="golden",
        comparisons=(judge(comparison, gates),),
        notes=tuple(_notes(differences, comparison)),
        environment=environment(),
    )
    return Measured(result, openings)


def _measure(
    a: Configuration,
    b: Configuration,
    sides: Sequence[Side],
    duration_s: float,
    seed: int,
    on_progress: OnProgress,
) -> list[list[Round]]:
    frames = _frames(a)
    openers = opener(a, frames), opener(b, frames if _takes_frames_of(a, b) else _frames(b))
    with waiting_clock() as waited:
        # With more threads, others work on while this one waits: it is no time that was lost.
        is_lost = all(side.threads == 1 for side in sides)
        clocks = Clocks(waited=waited if is_lost else None)
        random = np.random.default_rng(seed)
        return measure_in_turns(*openers, duration_s, random, on_progress, clocks)


def _notes(differences: Sequence[str], comparison: Comparison) -> Iterator[str]:
    for difference in differences:
        yield f"compared although {difference}"
    if comparison.waited is not None and comparison.waited >= _TOLD_WAIT:
        yield (
            f"other work had the CPU for {100 * comparison.waited:.0f} % of the runs' time, which "
            "is taken off; what it does to caches and memory is not"
        )


def opener(configuration: Configuration, frames: Sequence[Frame]) -> Opener:
    """Return what opens the bundle, and then does one of `frames` after the other."""

    @contextmanager
    def opened() -> Iterator[Run]:
        with configuration.open(check=False) as model:
            in_turn = itertools.cycle(frames)
            yield lambda: model(next(in_turn))

    return opened


def _side(configuration: Configuration) -> Side:
    """Open the bundle, check its golden samples, and say what runs."""
    bundle = configuration.bundle
    manifest = bundle.manifest
    with configuration.open() as model:
        return Side(
            bundle=str(bundle.path),
            bundle_sha256=manifest.files[manifest.model],
            precision=manifest.precision,
            backend=model.backend_name,
            executes=model.backend.executes,
            threads=model.backend.threads,
            blocks=OPENINGS,
            runs=0,
        )


def _memory(a: Configuration, b: Configuration, on_progress: OnProgress) -> Figure:
    """Return the figure of memory, from fresh processes of each in turns."""
    peaks_mb: list[list[float]] = [[], []]
    for done in range(2 * _MEMORY_PROCESSES):
        on_progress("measuring memory", done, 2 * _MEMORY_PROCESSES)
        one = (a, b)[done % 2]
        found = fresh.memory(one.bundle.path, one.backend, one.threads)
        peaks_mb[done % 2].append(found.peak_rss_mb)
    return figure_of_groups("memory", "MB", *peaks_mb)


def _frames(configuration: Configuration) -> list[Frame]:
    """Return the first golden samples, as frames where the bundle holds frames."""
    with configuration.open(check=False) as model:
        return list(itertools.islice(golden_frames(model), _FRAMES))


def _differences(a: Manifest, b: Manifest) -> Iterator[str]:
    """Yield what keeps two bundles from being compared: the work or the frame is another one.

    The numbers that the model itself takes may differ: int8 beside float32 is what is compared.
    """
    if a.task != b.task:
        yield f"the task is {a.task} in the one, {b.task} in the other"
    if input_of(a) != input_of(b):
        yield f"the input is {input_of(a)} in the one, {input_of(b)} in the other"


def _takes_frames_of(a: Configuration, b: Configuration) -> bool:
    """Whether `b` takes the golden samples of `a`: pictures fit any model of pictures."""
    one, other = a.bundle.manifest, b.bundle.manifest
    if one.golden.frames:
        return input_of(one) == input_of(other)
    return [s.shape for s in one.data_inputs] == [s.shape for s in other.data_inputs]
