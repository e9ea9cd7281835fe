"""What a conversion did and cost, as a page for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit.bundle import Manifest
from edgekit.converters.budget import Budget
from edgekit.converters.layer_report import layer_sections, layer_table
from edgekit.evaluation.evaluate import Comparison, summary_of
from edgekit.evaluation.metrics import format_metric
from edgekit.evaluation.report import evaluation_sections
from edgekit.golden import GoldenSample
from edgekit.profiling.environment import environment
from edgekit.reports import (
    Fact,
    Picture,
    Pictures,
    Report,
    Section,
    Series,
    Table,
    Text,
    Verdict,
)
from edgekit.streaming import Drift

if TYPE_CHECKING:
    from edgekit.converters.convert import ConversionSummary

_MOST_LAYERS = 20


def conversion_report(
    manifest: Manifest,
    summary: ConversionSummary,
    comparison: Comparison,
    samples: Sequence[GoldenSample],
) -> Report:
    """Return the report that goes into a bundle."""
    verdict, sentence = _verdict(manifest, summary)
    sections: list[Section] = []
    if comparison.assessment is not None:
        assessment = comparison.assessment
        sections += evaluation_sections(assessment, summary_of(assessment))
    if summary.drift is not None:
        sections.append(_drift_section(summary.drift))
    if summary.budget is not None:
        sections += _budget_sections(summary.budget)
    if summary.warnings:
        sections.append(Text(title="Warnings", text="\n\n".join(summary.warnings)))
    if summary.notes:
        sections.append(Text(title="How it was quantized", text="\n\n".join(summary.notes)))
    if summary.fallbacks:
        sections.append(
            Table(
                title="Not in the precision that was asked for"
                if summary.budget is None
                else "Not in int8",
                columns=("part", "reason"),
                rows=[(f.what, f.reason) for f in summary.fallbacks],
            )
        )
    if summary.layers is not None:
        sections += layer_sections(summary.layers)
    sections.append(_tensors(manifest))
    pictures = _golden_pictures(samples) if manifest.preprocess.size else []
    if pictures:
        note = "Stored with the bundle and computed again wherever it is opened."
        sections.append(Pictures(title="Golden samples", pictures=pictures, note=note))
    if summary.layers is not None:
        sections.append(layer_table(summary.layers))
    where = manifest.target or f"{manifest.format} on any device"
    return Report(
        title=f"Conversion of {manifest.provenance.source}",
        subtitle=f"{manifest.task}, {manifest.precision}, {where}",
        verdict=verdict,
        verdict_text=sentence,
        facts=_facts(manifest, summary),
        sections=tuple(sections),
        reproduce=_command_line(manifest),
        environment={**environment(), **manifest.provenance.tools},
    )


def _drift_section(drift: Drift) -> Section:
    """Return how the error goes over a long stream."""
    ends = [drift.block_steps * (place + 1) for place in range(len(drift.blocks_snr_db))]
    return Series(
        title="A long stream",
        values=drift.blocks_snr_db,
        unit="dB",
        index=f"block of {drift.block_steps} steps",
        names=[f"steps {end - drift.block_steps} to {end}" for end in ends],
        is_whole=True,
        note=f"Signal to noise of the outputs over {drift.steps:,} steps without a reset, beside "
        f"the float model step by step: {drift.snr_db:.1f} dB over all, largest difference "
        f"{drift.max_abs:.3g}. An error that grew from step to step would make it fall.",
    )


def _budget_sections(budget: Budget) -> list[Section]:
    """Return the mixes that were tried, and the layers that cost most in int8."""
    tried = [
        (
            "all int8"
            if not mix.layers
            else f"{len(mix.layers)} layers in {', '.join(sorted(set(mix.layers.values())))}",
            round(100 * mix.drop, 3),
            round(mix.predicted_ms, 3),
            None if mix.measured_ms is None else round(mix.measured_ms, 3),
            "yes" if mix.layers == budget.chosen.layers else "",
        )
        for mix in budget.tried
    ]
    worst = [
        (one.layer, one.operator, one.snr_db, budget.chosen.layers.get(one.layer, "int8"))
        for one in budget.sensitivities[:_MOST_LAYERS]
    ]
    sections: list[Section] = [
        Table(
            title="Mixed precision",
            columns=("mix", "drop, % points", "predicted, ms", "measured, ms", "chosen"),
            rows=tried,
            note=f"A drop of {100 * budget.max_drop:g} % points is allowed. Times are of one "
            f"thread on this machine: int8 {budget.int8_ms:.2f} ms, fp32 {budget.fp32_ms:.2f} ms.",
        )
    ]
    if worst:
        sections.append(
            Table(
                title="Layers that cost most",
                columns=("layer", "operator", "SNR at the output, dB", "became"),
                rows=worst,
                note="Each layer alone in int8, all others float, on calibration samples; the "
                f"{len(worst)} worst of {len(budget.sensitivities)}.",
            )
        )
    return sections


def _verdict(manifest: Manifest, summary: ConversionSummary) -> tuple[Verdict, str]:
    if summary.failure is not None:
        return "fail", summary.failure
    if summary.fallbacks and summary.budget is None:
        return "warn", f"Converted, but {len(summary.fallbacks)} parts are not {summary.precision}."
    accuracy = manifest.accuracy
    if accuracy is not None:
        return "pass", (
            f"{accuracy.metric} {format_metric(accuracy.metric, accuracy.converted)}, "
            f"{format_metric(accuracy.metric, accuracy.source)} before the conversion."
        )
    same = "on synthetic inputs" if manifest.golden.synthetic else "on the calibration set"
    return "info", f"Converted; {summary.parity.snr_db:.1f} dB to the source's outputs, {same}."


def _facts(manifest: Manifest, summary: ConversionSummary) -> tuple[Fact, ...]:
    parity, accuracy = summary.parity, summary.accuracy
    facts = [
        Fact("model size", round(summary.size_bytes / 1000, 1), "kB"),
        Fact("signal to noise", round(parity.snr_db, 1), "dB", f"{parity.n} samples"),
    ]
    if parity.agreement is not None:
        facts.append(Fact("same answer", round(100 * parity.agreement, 2), "%", "top-1"))
    if accuracy is not None:
        hint = f"source {format_metric(accuracy.metric, accuracy.source)}"
        facts.append(
            Fact(accuracy.metric, format_metric(accuracy.metric, accuracy.converted), "", hint)
        )
    facts.append(Fact("conversion", round(summary.seconds, 1), "s"))
    return tuple(facts)


def _tensors(manifest: Manifest) -> Table:
    rows = [
        (
            kind,
            spec.name,
            "×".join(map(str, spec.shape)),
            spec.dtype,
            spec.scale,
            spec.zero_point,
        )
        for kind, specs in (("input", manifest.inputs), ("output", manifest.outputs))
        for spec in specs
    ]
    columns = ("", "name", "shape", "dtype", "scale", "zero point")
    return Table(title="Inputs and outputs", columns=columns, rows=rows)


def _golden_pictures(samples: Sequence[GoldenSample]) -> list[Picture]:
    import cv2

    pictures = []
    for number, sample in enumerate(samples):
        if sample.frame is None:
            continue
        scale = 240 / max(sample.frame.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = cv2.resize(sample.frame, None, fx=scale, fy=scale, interpolation=method)
        done, content = cv2.imencode(".jpg", small)
        if done:
            pictures.append(Picture(content.tobytes(), f"sample {number}"))
    return pictures


def _command_line(manifest: Manifest) -> str:
    """Return the command that converts the same model again with the settings in the bundle."""
    return f"edgekit convert {manifest.provenance.source} -o NEW.edgekit --recipe THIS.edgekit"
