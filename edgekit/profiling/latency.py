"""How fast a bundle is on this machine: `profile`, one measurement for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from edgekit import plugins
from edgekit.bundle import Bundle, read_bundle
from edgekit.errors import EdgeKitError, EnvironmentLacks, UsageError, expect_one_of
from edgekit.profiling.environment import conditions, environment
from edgekit.profiling.inputs import input_of
from edgekit.profiling.measurement import Measurement, Settings
from edgekit.profiling.results import LatencyProfile, Profile
from edgekit.profiling.tune import usable_backends
from edgekit.runtime.camera import Source, without_secrets
from edgekit.runtime.model import Model, open_model

OnProgress = Callable[[str, int, int], None]
OnMeasured = Callable[[Profile], None]

_DAY_S = 86400.0


class Configuration(msgspec.Struct, frozen=True):
    """One way to run a bundle; None: what `open_model` takes by itself."""

    backend: str | None
    threads: int | None


def profile(
    model: Model | Bundle | str | Path,
    *,
    scenario: str | None = None,
    backend: str | Sequence[str] | None = None,
    threads: int | Sequence[int] | None = None,
    source: Source | None = None,
    sinks: Sequence[str] = (),
    rate_hz: float = 30.0,
    streams: int = 8,
    duration_s: float | None = None,
    runs: int | None = None,
    within: float = 0.02,
    processes: int = 1,
    details: bool = False,
    earlier: Profile | None = None,
    on_measured: OnMeasured | None = None,
    on_progress: OnProgress | None = None,
) -> Profile:
    """Measure the latency of a bundle on this machine: `edgekit.profile`.

    The latency is one frame's preprocess + infer + postprocess. Frames are the bundle's golden
    samples in turn; with `source` they are real ones, and capture and sinks are stages too.

    Args:
        model: an opened bundle (measured as it is), or a bundle's path.
        scenario: how frames come: single-stream (default), multi-stream, offline, paced; camera
            with a `source`.
        backend: as in `open_model`; several, or ``all`` that can run here, are measured in turn.
        threads: one profile for each number; by default the backend's own choice.
        source: frames to measure on; see `open_camera`.
        sinks: only with `source`.
        rate_hz: frames a second of scenario paced.
        streams: frames at once of scenario multi-stream.
        duration_s: time to measure after the warm-up; by default 2 to 10 s, so long that the
            interval of the scenario's percentile gets as narrow as `within`, or 15 s if it had none
            else; a live source 13 s, one that ends to its end.
        runs: measure so many frames instead; with `duration_s`, at most so many.
        within: width of that interval, as a share of the percentile.
        processes: measure in so many fresh processes, which `edgekit compare` can compare.
        details: also operators, roofline, static cost, memory and start of a fresh process.
        earlier: a profile of the same bundle; what it holds is not measured again.
        on_measured: told after each configuration what there is by then.
        on_progress: called with (configuration, done, total).

    Raises:
        UsageError: a duration, count or combination that makes no sense.
        EnvironmentLacks: no backend can run the bundle here.
    """
    settings = Settings(
        scenario=_scenario(scenario, source),
        source=source,
        sinks=tuple(sinks),
        rate_hz=rate_hz,
        streams=streams,
        duration_s=duration_s,
        runs=runs,
        within=within,
        processes=processes,
        details=details,
    )
    threads = [threads] if isinstance(threads, int) else threads
    engines = [backend] if isinstance(backend, str | None) else list(backend)
    if not engines:
        raise UsageError("`backend` must name an engine, or be None for the bundle's own; got none")
    several = engines == ["all"] or len(engines) > 1 or len(threads or ()) > 1
    _check(settings, several)
    on_progress = on_progress or (lambda phase, done, total: None)
    if isinstance(model, Model):
        if threads or backend or processes > 1:
            raise UsageError(
                "`threads`, `backend` and `processes` belong to opening; give the bundle's path"
            )
        empty = _empty(model.bundle, settings)
        measured = Measurement(settings, empty.cost, on_progress)(model)
        only = msgspec.structs.replace(empty, profiles=(measured,))
        if on_measured is not None:
            on_measured(only)
        return only
    bundle = model if isinstance(model, Bundle) else read_bundle(model)
    empty = _empty(bundle, settings)
    measure = Measurement(settings, empty.cost, on_progress)
    profiles = [] if earlier is None else _comparable(earlier, empty)
    if earlier is not None and empty.cost is None:
        empty = msgspec.structs.replace(empty, cost=earlier.cost)
    failures: dict[str, str] = {}
    errors: list[EdgeKitError] = []

    def so_far() -> Profile:
        return msgspec.structs.replace(empty, profiles=tuple(profiles), left_out=dict(failures))

    for wanted in _configurations(bundle, engines, threads, failures):
        if any(_is_done(wanted, done, settings) for done in profiles):
            continue
        try:
            with open_model(bundle, backend=wanted.backend, threads=wanted.threads) as opened:
                if any(_is_done(_of(opened), done, settings) for done in profiles):
                    continue
                measured = measure(opened)
                # One that was not enough, of fewer processes or without details, goes.
                profiles = [p for p in profiles if not _is_of(_of(opened), p, settings)]
                profiles.append(measured)
        except EdgeKitError as error:
            if not several:
                raise
            errors.append(error)
            failures[f"{wanted.backend or 'default'}, {wanted.threads or 'default'}"] = str(error)
        if on_measured is not None and profiles:
            on_measured(so_far())
    if not profiles:
        if errors and set(failures.values()) == {str(errors[0])}:
            raise errors[0]  # no backend's fault: a source that is not there, say
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise EnvironmentLacks(f"no backend can run {bundle.path} here: {reasons}")
    return so_far()


def _scenario(asked: str | None, source: Source | None) -> str:
    name = asked or ("single-stream" if source is None else "camera")
    names = [name.replace("_", "-") for name in plugins.names("scenario")]
    expect_one_of("scenario", name, names)
    if (name == "camera") != (source is not None):
        raise UsageError(
            "scenario camera needs `source`, like test://640x480@30, and no other takes one; got "
            f"scenario {name} {'without' if source is None else 'with'} a source"
        )
    return name


def _check(settings: Settings, several: bool) -> None:
    duration_s, runs = settings.duration_s, settings.runs
    if (duration_s is not None and not 0 < duration_s < _DAY_S) or (runs is not None and runs < 1):
        raise UsageError(
            "`duration` must be above 0 s and below a day, and `runs` at least 1; got "
            f"{duration_s}, {runs}"
        )
    if settings.sinks and settings.source is None:
        raise UsageError("`sink` needs `source`: without one there are no results to write")
    if not 0.01 <= settings.rate_hz <= 1e5:
        raise UsageError(f"`rate` must be 0.01 to 100000; got {settings.rate_hz:g}")
    if not 1 <= settings.streams <= 1024:
        raise UsageError(f"`streams` must be 1 to 1024; got {settings.streams}")
    if not 0.001 <= settings.within <= 1:
        raise UsageError(f"`within` must be 0.001 to 1 (of the percentile); got {settings.within}")
    if not 1 <= settings.processes <= 1000:
        raise UsageError(f"`processes` must be 1 to 1000; got {settings.processes}")
    again = "`processes`" if settings.processes > 1 else "several `backend` or `threads`"
    is_read_once = settings.source == "-" or isinstance(settings.source, Iterator)
    if (several or settings.processes > 1) and is_read_once:
        what = "standard input" if settings.source == "-" else "an iterator"
        raise UsageError(f"{what} is read once: {again} need a source that can be opened again")
    if (several or settings.processes > 1) and settings.sinks:
        raise UsageError(
            f"`sink` takes one measurement: with {again} the next one would write over its results"
        )
    if settings.processes > 1 and not isinstance(settings.source, str | Path | int | None):
        raise UsageError("other processes need a source that has a name: give a path or an address")


def _configurations(
    bundle: Bundle,
    engines: Sequence[str | None],
    threads: Sequence[int] | None,
    failures: dict[str, str],
) -> Iterator[Configuration]:
    if engines == ["all"]:
        engines = list(usable_backends(bundle.manifest.format, failures))
    for name in engines:
        if name is not None:
            expect_one_of("backend", name, plugins.names("backend"))
    for name in engines:
        for number in threads or (None,):
            yield Configuration(name, number)


def _of(model: Model) -> Configuration:
    return Configuration(model.backend_name, model.backend.threads)


def _is_done(wanted: Configuration, done: LatencyProfile, settings: Settings) -> bool:
    return (
        _is_of(wanted, done, settings)
        and len(done.blocks) >= settings.processes
        and (done.operators is not None or not settings.details)
    )


def _is_of(wanted: Configuration, done: LatencyProfile, settings: Settings) -> bool:
    return (
        (done.backend, done.threads) == (wanted.backend, wanted.threads)
        and done.scenario == settings.scenario
        and done.rate_hz in (None, settings.rate_hz)
        and done.streams in (None, settings.streams)
    )


def _comparable(earlier: Profile, now: Profile) -> list[LatencyProfile]:
    """Return what was measured earlier, if it was of the same model, frames and machine."""
    for name in ("bundle_sha256", "input", "frames", "environment"):
        was, is_now = getattr(earlier, name), getattr(now, name)
        if was != is_now:
            if isinstance(was, dict):
                changed = sorted(
                    key for key in was.keys() | is_now.keys() if was.get(key) != is_now.get(key)
                )
                was, is_now = ({k: d.get(k) for k in changed} for d in (was, is_now))
            raise UsageError(
                f"what was measured earlier had another {name}: {was}, now {is_now}; measure "
                "into another file"
            )
    return list(earlier.profiles)


def _empty(bundle: Bundle, settings: Settings) -> Profile:
    manifest = bundle.manifest
    source = settings.source
    name = without_secrets(str(source)) if isinstance(source, str | Path | int) else "iterator"
    cost = None
    if settings.details:
        from edgekit.profiling.cost import cost_of

        cost = cost_of(bundle)
    return Profile(
        bundle=str(bundle.path),
        bundle_sha256=manifest.files[manifest.model],
        frames="golden" if source is None else name,
        input=input_of(manifest),
        environment=environment(),
        conditions=conditions(),
        profiles=(),
        cost=cost,
    )
