"""`edgekit profile`: how fast a bundle is on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edgekit.bundle import Bundle, read_bundle
from edgekit.cli._output import Json, check_written, note, print_json, progress
from edgekit.cli._profiled import print_profile
from edgekit.errors import CheckFailed, InputError, UsageError, require
from edgekit.profiling.remote import wire

if TYPE_CHECKING:
    from edgekit.profiling.results import Profile

_SAMPLES = ("samples_ms", "starts_s", "stage_samples_ms")


def command(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE…", help="Folders NAME.edgekit.")],
    scenario: Annotated[
        str | None,
        typer.Option(help="single-stream, multi-stream, offline, paced, camera, cold-start."),
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Numbers of CPU threads to try: 1,2,4.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(help="Inference engines, separated by commas; or all.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Measure on these frames, capture included.")
    ] = None,
    sink: Annotated[
        list[str] | None, typer.Option(help="With --source: measure sinks too.")
    ] = None,
    rate: Annotated[float, typer.Option(help="Frames a second of scenario paced.")] = 30.0,
    streams: Annotated[int, typer.Option(help="Frames at once of scenario multi-stream.")] = 8,
    duration: Annotated[
        float | None,
        typer.Option(help="Seconds to measure each; files to their end. Default: as needed."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(help="Measure so many frames instead; with --duration, at most.")
    ] = None,
    within: Annotated[
        float, typer.Option(help="Share of the percentile that its interval may be wide.")
    ] = 0.02,
    processes: Annotated[
        int, typer.Option(help="Fresh processes to measure in; edgekit compare needs three.")
    ] = 1,
    details: Annotated[
        bool,
        typer.Option(
            "--details",
            help="Operators, roofline, cost, memory and cold start too; so do --report, --trace.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if the figures do not deserve trust.")
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(metavar="USER@HOST[:PORT]", help="Measure on that machine, through ssh."),
    ] = None,
    remote_command: Annotated[
        str | None,
        typer.Option(metavar="WORDS", help="With --on: what starts edgekit there."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Do not measure again what --json FILE holds.")
    ] = False,
    samples: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Keep each run's times.")
    ] = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write a trace for Perfetto.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Write a summary in Markdown.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page for people.")
    ] = None,
    json: Json = None,
) -> None:
    """Measure latency: warm-up until steady, percentiles with intervals, and what to think of it.

    The exit code is 1 with --strict where a figure does not deserve trust.
    """
    if on is None and remote_command is not None:
        raise UsageError("`remote-command` needs `on`: it is what starts edgekit there")
    if on is not None and (resume or source == "-"):
        raise UsageError(
            "`on` takes neither `resume` nor the source -: the device measures all anew, and its "
            "standard input is the connection"
        )
    details = details or report is not None or trace is not None
    pages = {"report": report, "trace": trace, "markdown": markdown, "samples": samples}
    _check_places(len(bundles), pages, None if on else source, sink or [], json)
    earlier = _earlier(json) if resume else {}
    opened = [read_bundle(bundle) for bundle in bundles]
    digests = [bundle.manifest.files[bundle.manifest.model] for bundle in opened]
    for digest, measured in earlier.items():
        if digest not in digests:
            raise UsageError(
                f"cannot resume from {json}: it holds figures of another model, those of "
                f"{measured.bundle}, which would be lost; name that bundle too, or another file"
            )
    done: list[Profile] = []

    def keep(latest: Profile) -> None:
        # After each configuration, so that a sweep that is stopped can be resumed.
        if json not in (None, "-"):
            waiting = [earlier[one] for one in digests[len(done) + 1 :] if one in earlier]
            print_json(_to_json([*done, latest, *waiting], len(bundles)), json)

    def measure(bundle: Bundle, on_progress: wire.OnProgress) -> Profile:
        if on is not None:
            from edgekit.profiling.remote.profile_on import option_words, profile_on

            words = option_words(
                scenario=scenario,
                threads=threads,
                backend=backend,
                source=source,
                sink=sink,
                rate=rate,
                streams=streams,
                duration=duration,
                runs=runs,
                within=within,
                processes=processes,
                details=details,
            )
            command = remote_command
            found = profile_on(on, bundle, words, remote_command=command, on_progress=on_progress)
            keep(found)
            return found
        import cv2

        from edgekit.profiling.latency import profile

        cv2.setNumThreads(1)
        return profile(
            bundle,
            scenario=scenario,
            backend=backend.split(",") if backend and "," in backend else backend,
            threads=None if threads is None else _numbers(threads),
            source=source,
            sinks=sink or [],
            rate_hz=rate,
            streams=streams,
            duration_s=duration,
            runs=runs,
            within=within,
            processes=processes,
            details=details,
            earlier=earlier.get(bundle.manifest.files[bundle.manifest.model]),
            on_measured=keep,
            on_progress=on_progress,
        )

    for bundle in opened:
        manifest = bundle.manifest
        with progress() as on_progress:
            done.append(measure(bundle, on_progress))
        if source is None and manifest.preprocess.resize == "tile":
            note("note: measured on one tile; --source measures whole frames")
    for measured in done:
        print_profile(measured, "-" if "-" in (sink or ()) else json)
    print_json(_to_json(done, len(bundles)), json)  # first: a page may fail on a full disk
    for measured in done:
        _write_pages(measured, report, trace, markdown, samples)
    if strict:
        _check(done)


def _check_places(
    bundles: int,
    pages: Mapping[str, Path | None],
    source: str | None,
    sinks: Sequence[str],
    json: str | None,
) -> None:
    """Raise now, not after the measurement, if results have no place or take each other's."""
    given = {name: str(place) for name, place in pages.items() if place is not None}
    for name, place in given.items():
        if place == "-":
            raise UsageError(f"`{name}` needs the name of a file; only `json` takes - for output")
    check_written({**given, "json": json}, {"source": source})
    if "report" in given:
        require("jinja2", "report")
    if source is not None and sinks:
        from edgekit.runtime.run import check_sinks

        check_sinks(source, sinks, json, *given.values())
        if "-" in sinks and json == "-":
            raise UsageError("`sink` - and `json` - both want standard output; give one a file")
    if bundles > 1 and (given or sinks):
        raise UsageError(f"`{next(iter(given), 'sink')}` takes one bundle; got {bundles}")


def _write_pages(
    measured: Profile,
    report: Path | None,
    trace: Path | None,
    markdown: Path | None,
    samples: Path | None,
) -> None:
    from edgekit.profiling.wording import configuration

    kept_no_runs = [configuration(p) for p in measured.profiles if not p.samples_ms]
    if kept_no_runs and (report or trace or samples):
        names = "; ".join(kept_no_runs)
        note(
            f"note: single runs are only in what was measured now, not of what was resumed: {names}"
        )
    if report is not None:
        from edgekit.profiling.report import profile_report
        from edgekit.reports import write

        write(profile_report(measured), report)
    if trace is not None:
        from edgekit.profiling.trace import write_trace

        write_trace(measured, trace)
    if markdown is not None:
        from edgekit.atomic import write_file
        from edgekit.profiling.markdown import profile_markdown

        write_file(markdown, profile_markdown(measured).encode())
    if samples is not None:
        from edgekit.profiling.samples import write_samples

        write_samples(measured, samples)


def _to_json(done: list[Profile], bundles: int) -> dict[str, Any]:
    found: list[dict[str, Any]] = [msgspec.to_builtins(measured) for measured in done]
    if not wire.is_open():  # another edgekit wants them, for its report
        for measured in found:
            for entry in measured["profiles"]:
                for name in _SAMPLES:
                    del entry[name]
    return found[0] if bundles == 1 else {"bundles": found}


def _earlier(json: str | None) -> dict[str, Profile]:
    """Return what an earlier run left in the file `json`, by the hash of the model."""
    if json in (None, "-"):
        raise UsageError("`resume` needs `--json FILE`, where the earlier run left its figures")
    from edgekit.profiling.results import Profile

    file = Path(str(json))
    if not file.exists():
        return {}
    if not file.is_file():
        raise InputError(f"cannot resume from {file}: it is no file; name the earlier --json FILE")
    try:
        content = msgspec.json.decode(file.read_bytes())
        parts = content.get("bundles", [content])
        found = [msgspec.convert(part, Profile) for part in parts]
    except (OSError, ValueError, RecursionError, TypeError, AttributeError) as error:
        raise InputError(
            f"cannot resume from {file}: {error}; it is no JSON of edgekit profile: name "
            "another file, or leave out --resume"
        ) from error
    return {measured.bundle_sha256: measured for measured in found}


def _check(done: list[Profile]) -> None:
    doubtful = {
        finding.code
        for measured in done
        for p in measured.profiles
        for finding in p.findings
        if finding.is_doubt
    }
    if doubtful:
        raise CheckFailed(f"the figures do not deserve trust: {', '.join(sorted(doubtful))}")


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise UsageError(f"`threads` must look like 1 or 1,2,4; got {text!r}")
    return numbers
