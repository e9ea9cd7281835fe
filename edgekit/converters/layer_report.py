"""Where a conversion's error enters, as sections of its report."""

from __future__ import annotations

from edgekit.evaluation.causes import GOOD_SNR_DB, LEAST_FALL_DB
from edgekit.evaluation.layers import LayerComparison, LayerError
from edgekit.reports import Section, Series, Table, Text

_MOST_DRAWN_DB = 60.0
_LONGEST_NAME = 28
_CAUSES = {
    "clipping": "clipped values",
    "wide_channels": "channels of very different range under one scale",
    "few_steps": "a scale too coarse for the values",
    "tied_logits": "tied answers",
    "weights": "rounded weights",
    "amplified": "the error of its inputs, amplified",
}


def layer_sections(comparison: LayerComparison) -> list[Section]:
    """Return what to read first: in words where the error enters, and a plot of all layers."""
    layers, bad = comparison.layers, comparison.first_bad
    plot = Series(
        values=[min(layer.snr_db, _MOST_DRAWN_DB) for layer in layers],
        unit="dB",
        index="layer",
        names=[f"{n}: {layer.name} ({layer.operator})" for n, layer in enumerate(layers)],
        marks={"first bad layer": bad.index} if bad is not None else {},
        is_whole=True,
        note=f"Signal to noise of each layer on {comparison.n} samples, in order of execution; 0 "
        f"is the input. What has more than {_MOST_DRAWN_DB:.0f} dB is drawn there.",
    )
    return [Text(title="Where the error enters", text=describe(comparison)), plot]


def layer_table(comparison: LayerComparison) -> Table:
    """Return the figures of all layers."""
    return Table(
        title="Layer by layer",
        columns=("", "layer", *_FIGURES, "operator", "dtype"),
        rows=[
            (n, short_name(layer.name), *_figures(layer), layer.operator, layer.dtype)
            for n, layer in enumerate(comparison.layers)
        ],
        note="Saturated: values that the ends of the grid cut off. Unused: steps of the grid that "
        "no value reaches. Channels: range of the widest against that of the lower quartile.",
    )


def describe(comparison: LayerComparison) -> str:
    """Return in words which layer goes bad first and why, or that none does."""
    bad = comparison.first_bad
    if bad is None:
        return (
            f"No layer stands out: none falls by {LEAST_FALL_DB:.0f} dB against its inputs, or "
            f"from {GOOD_SNR_DB:.0f} dB, that later layers do not recover."
        )
    name = short_name(bad.name)
    said = f"First bad layer: {name} (layer {bad.index}). Likely cause: {_CAUSES[bad.cause]}."
    if bad.shows_at != bad.name:
        where = f"It shows at {short_name(bad.shows_at)}, where"
    else:
        where = "There"
    if bad.fall_db >= LEAST_FALL_DB:
        said += f" {where} signal to noise falls by {bad.fall_db:.1f} dB."
    return f"{said} {bad.why}"


def short_name(name: str) -> str:
    """Return the end of a layer's name; fused ones have several, of which the first counts."""
    first = name.split(";")[0]
    return first if len(first) <= _LONGEST_NAME else f"…{first[1 - _LONGEST_NAME :]}"


_FIGURES = ("SNR, dB", "saturated, %", "unused, %", "channels, ×", "cosine")


def _figures(layer: LayerError) -> tuple[float | None, ...]:
    return (
        round(layer.snr_db, 1),
        None if layer.saturated is None else round(100 * layer.saturated, 2),
        None if layer.unused is None else round(100 * layer.unused, 1),
        None if layer.range_ratio is None else round(layer.range_ratio, 1),
        round(layer.cosine, 4),
    )
