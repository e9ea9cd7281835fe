"""`edgekit tune`: the fastest engine and thread count for a bundle on this machine."""

from __future__ import annotations

from edgekit.cli._output import BundlePath, Json, note, print_json, print_table, progress


def command(bundle: BundlePath, json: Json = None) -> None:
    """Measure all engines that are here at equal precision; `edgekit run --auto` takes the best."""
    from edgekit.bundle import read_bundle
    from edgekit.profiling.tune import tune

    with progress() as show:
        tuning = tune(read_bundle(bundle), show)
    best = min(m.p50_ms for m in tuning.measured)
    print_table(
        f"inference of {bundle}, one frame at a time",
        ("", "threads", "p50 ms", "times the best"),
        [
            (
                m.candidate.backend + (" *" if m.candidate == tuning.best else ""),
                str(m.candidate.threads),
                f"{m.p50_ms:.3f}",
                f"{m.p50_ms / best:.2f}",
            )
            for m in tuning.measured
        ],
        json,
    )
    for name, reason in tuning.left_out.items():
        note(f"not measured: {name}: {reason}")
    threads = f"{tuning.best.threads} thread{'s' if tuning.best.threads > 1 else ''}"
    note(f"remembered for edgekit run --auto: {tuning.best.backend}, {threads}")
    print_json(tuning, json)
