"""Which engine and how many threads are fastest for a bundle on this machine: `edgekit tune`.

All candidates compute in the bundle's own precision. They are measured in turns, and compared round
by round, so that a machine that is slow for a while is slow for all of them; those clearly behind
drop out, and the closer the others are, the longer they are measured.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from edgekit import plugins
from edgekit.atomic import write_file
from edgekit.bundle import Bundle
from edgekit.errors import EdgeKitError, EnvironmentLacks, OutputError
from edgekit.profiling.environment import environment
from edgekit.profiling.frames import golden_frames
from edgekit.profiling.turns import Clock, take_turn
from edgekit.runtime.engines.cache import cache_folder
from edgekit.runtime.model import Frame, Model, open_model
from edgekit.targets.processors import allowed_cpus

OnProgress = Callable[[str, int, int], None]

_LEAST_ROUNDS, _MOST_ROUNDS, _ENOUGH_S = 8, 48, 20.0
_BLOCK_S, _LEAST_RUNS = 0.02, 1
_FAR_ROUNDS, _FAR = 4, 1.5  # behind by so much in all of the first rounds: not measured again
_CHANCE = 0.01  # of dropping one that is as fast, at one look
# Candidates this close are equal for all purposes; fewer threads leave more for everything else.
_EQUAL_WITHIN = 1.02


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to run a bundle.

    Attributes:
        backend: name of the inference engine.
        threads: CPU threads.
    """

    backend: str
    threads: int


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a candidate took.

    Attributes:
        candidate: which.
        executes: what truly runs, in the engine's words.
        p50_ms: one inference alone: of the fastest the median of its blocks' medians; of another
            that times the median of its ratios to it, block by block of the same rounds.
        blocks: how many blocks of runs it was measured in.
    """

    candidate: Candidate
    executes: str
    p50_ms: float
    blocks: int


class Tuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The result of `tune`; `docs/json.md` describes the fields."""

    best: Candidate
    measured: tuple[Measured, ...]
    left_out: dict[str, str]
    environment: dict[str, str]


class Contestant(Protocol):
    """Something that can run once; a `Model` with a frame, or a test's."""

    name: Candidate
    executes: str

    def run(self) -> None:
        """Do one inference."""


def tune(bundle: Bundle, on_progress: OnProgress | None = None) -> Tuning:
    """Measure all backends that are here at all useful thread counts, and remember the fastest.

    Args:
        bundle: read and verified.
        on_progress: called with (phase, done, total).

    Raises:
        EnvironmentLacks: no backend can open the bundle here.
    """
    left_out: dict[str, str] = {}
    with ExitStack() as stack:
        contestants: list[Contestant] = []
        for candidate in candidates(bundle.manifest.format, left_out):
            try:
                model = open_model(bundle, backend=candidate.backend, threads=candidate.threads)
            except EdgeKitError as error:
                left_out[candidate.backend] = str(error)
                continue
            stack.callback(model.close)
            contestants.append(_Contestant(candidate, model))
        if not contestants:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise EnvironmentLacks(f"no backend can run {bundle.path} here: {reasons}")
        measured = contest(contestants, on_progress or (lambda phase, done, total: None))
        # The frames' views of input buffers would keep the engines from closing.
        contestants.clear()
    tuning = Tuning(choose(measured), measured, left_out, environment())
    _remember(bundle, tuning)
    return tuning


def candidates(format_: str, left_out: dict[str, str]) -> Iterator[Candidate]:
    """Yield what could run `format_` here; what could not goes into `left_out` with the reason."""
    for name in usable_backends(format_, left_out):
        on_gpu = name.startswith("tensorrt")
        yield from (Candidate(name, threads) for threads in ((1,) if on_gpu else _threads()))


def usable_backends(format_: str, left_out: dict[str, str]) -> Iterator[str]:
    """Yield the backends that read `format_` and compute in its precision; see `candidates`."""
    for name in plugins.names("backend"):
        module = plugins.load("backend", name)
        if format_ not in module.READS:
            continue
        if getattr(module.Backend, "precision", "f32") == "bf16":
            left_out[name] = "it computes in bfloat16, which is another precision"
        elif not getattr(module, "available", lambda: True)():
            left_out[name] = "not available here; edgekit doctor says why"
        else:
            yield name


def _threads() -> list[int]:
    """Return 1, 2, 4 … and all CPUs that this process may use."""
    cpus = len(allowed_cpus())
    powers = itertools.takewhile(lambda n: n < cpus, (2**i for i in itertools.count()))
    return [*powers, cpus]


class _Contestant:
    def __init__(self, name: Candidate, model: Model) -> None:
        self.name = name
        self.executes = model.backend.executes
        self._model = model
        frames: Iterator[Frame] = golden_frames(model)
        self._model.preprocess(next(frames))

    def run(self) -> None:
        self._model.infer()


def contest(
    contestants: Sequence[Contestant],
    on_progress: OnProgress,
    clock: Clock = time.perf_counter,
) -> tuple[Measured, ...]:
    """Measure contestants in turns until it is clear which to choose; fastest first.

    Who begins changes from round to round. On a machine with other work a median of a few blocks
    says little: what drops out has lost nearly every round to the one that leads.
    """
    blocks_ms: dict[Candidate, list[float]] = {c.name: [] for c in contestants}
    staying, started_s = list(contestants), clock()
    for number in range(_MOST_ROUNDS):
        first = number % len(staying)
        for contestant in (*staying[first:], *staying[:first]):
            blocks_ms[contestant.name].append(_block_ms(contestant, clock))
        on_progress("measuring", number + 1, _MOST_ROUNDS)
        left = _not_behind({c.name: blocks_ms[c.name] for c in staying})
        is_enough = number + 1 >= _LEAST_ROUNDS and clock() - started_s > _ENOUGH_S
        if len(left) == 1 or is_enough:
            break
        staying = [c for c in staying if c.name in left]
    return _summaries(contestants, blocks_ms)


def _not_behind(blocks_ms: dict[Candidate, list[float]]) -> set[Candidate]:
    """Return those that may yet be chosen: see `choose`."""
    left = set(blocks_ms)
    # Of two that are equal the first stays.
    order = sorted(left, key=lambda name: (name.threads, statistics.median(blocks_ms[name])))
    for better, worse in itertools.permutations(order, 2):
        if better in left and _is_behind(worse, better, blocks_ms):
            left.discard(worse)
    return left


def _is_behind(
    worse: Candidate, better: Candidate, blocks_ms: dict[Candidate, list[float]]
) -> bool:
    """Return whether `worse` is slower for sure, or as fast with as many threads or more."""
    ratios = sorted(_ratios(blocks_ms[worse], blocks_ms[better]))
    if len(ratios) < _LEAST_ROUNDS:
        return len(ratios) >= _FAR_ROUNDS and ratios[0] > _FAR
    limit = _EQUAL_WITHIN if worse.threads < better.threads else 1 / _EQUAL_WITHIN
    return ratios[_rank(len(ratios))] > limit


def _rank(rounds: int) -> int:
    """Return the place among sorted values of one that is below their true median.

    That is wrong with a probability of `_CHANCE`, however the values are distributed.
    """
    below, rank = 0.0, -1
    while below <= _CHANCE:
        rank += 1
        below += math.comb(rounds, rank) / 2**rounds
    return max(rank - 1, 0)


def _ratios(blocks: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return one to the other of the same rounds; one that dropped out has fewer."""
    return [mine / other for mine, other in zip(blocks, others, strict=False)]


def _summaries(
    contestants: Sequence[Contestant], blocks_ms: dict[Candidate, list[float]]
) -> tuple[Measured, ...]:
    most = max(map(len, blocks_ms.values()))
    finalists = [blocks for blocks in blocks_ms.values() if len(blocks) == most]
    fastest = min(finalists, key=statistics.median)
    fastest_ms = statistics.median(fastest)
    measured = [
        Measured(
            c.name,
            c.executes,
            fastest_ms * statistics.median(_ratios(blocks_ms[c.name], fastest)),
            len(blocks_ms[c.name]),
        )
        for c in contestants
    ]
    return tuple(sorted(measured, key=lambda m: (-m.blocks, m.p50_ms)))


def _block_ms(contestant: Contestant, clock: Clock) -> float:
    turn = take_turn(contestant.run, _LEAST_RUNS, _BLOCK_S, clock)
    return 1000 * statistics.median(turn.times_s)


def choose(measured: Sequence[Measured]) -> Candidate:
    """Return the fastest, or of those that are as fast the one with the fewest threads."""
    finalists = [m for m in measured if m.blocks == max(m.blocks for m in measured)]
    best = min(m.p50_ms for m in finalists)
    equal = [m for m in finalists if m.p50_ms <= _EQUAL_WITHIN * best]
    return min(equal, key=lambda m: (m.candidate.threads, m.p50_ms)).candidate


def remembered(bundle: Bundle) -> Candidate | None:
    """Return what `tune` found for this model on this machine as it is now, or None."""
    try:
        text = _file(bundle).read_bytes()
        tuning = msgspec.json.decode(text, type=Tuning)
    except (OSError, OutputError, msgspec.DecodeError):
        return None  # measured again, which mends it
    return tuning.best


def _remember(bundle: Bundle, tuning: Tuning) -> None:
    file = _file(bundle)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot keep what was measured in {file.parent} ({error.strerror}); EDGEKIT_CACHE "
            "names another folder"
        ) from error
    write_file(file, msgspec.json.format(msgspec.json.encode(tuning), indent=2) + b"\n")


def _file(bundle: Bundle) -> Path:
    """Return where a model's tuning is kept: another model, machine or version has another file."""
    manifest = bundle.manifest
    key = [manifest.files[manifest.model], *(f"{k}={v}" for k, v in environment().items())]
    return (
        cache_folder() / "tuned" / f"{hashlib.sha256(chr(10).join(key).encode()).hexdigest()}.json"
    )
