"""Operators, roofline, memory, energy, start and cost, as sections of a profile's page."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from edgekit.profiling.results import (
    ColdStart,
    Cost,
    Energy,
    LatencyProfile,
    Memory,
    Operator,
    Operators,
    Pressure,
)
from edgekit.profiling.results import Roofline as Roofs
from edgekit.profiling.wording import interval_text
from edgekit.reports import (
    Bars,
    Cell,
    Fold,
    Roofline,
    RoofPoint,
    Section,
    Table,
    Text,
)

_MOST_KINDS, _LEAST_SHARE, _LABELLED = 8, 0.005, 5
_LONGEST_NAME, _LONGEST_LAYER = 44, 28
_OPERATOR_DECIMALS = {"share, %": 1, "of the roof, %": 0, "MACs, M": 2, "GFLOP/s": 1}


def machine_sections(measured: LatencyProfile) -> list[Section]:
    """Return what one configuration took of the machine; a section for each part that was seen."""
    sections: list[Section] = []
    if measured.operators is not None:
        sections += _operators(measured.operators, measured.roofline)
    if measured.memory is not None:
        sections.append(_memory(measured.memory))
    if measured.energy is not None:
        sections.append(_energy(measured.energy))
    # The scenario of that name measures the same, and more often.
    if measured.cold_start is not None and measured.scenario != "cold-start":
        sections.append(_cold_start(measured.cold_start))
    if measured.pressure is not None:
        sections.append(_pressure(measured.pressure))
    return sections


def cost_sections(cost: Cost) -> list[Section]:
    """Return what the model costs by its graph, its layers folded."""
    rows: list[tuple[Cell, ...]] = [
        ("parameters", f"{cost.parameters:,}"),
        ("MACs of one inference", f"{cost.macs:,}"),
        ("activations at their peak", f"{cost.activations_bytes / 1e6:,.3f} MB"),
        ("model's file", f"{cost.size_bytes / 1e6:,.3f} MB"),
    ]
    sections: list[Section] = [
        Table(
            title="Cost by the model's graph",
            columns=("what", "of any machine"),
            rows=rows,
            note=" ".join(cost.notes),
        )
    ]
    if not cost.layers:
        return sections
    layers = Table(
        columns=(
            "",
            "layer",
            "kind",
            "shape",
            "dtype",
            "MACs",
            "parameters",
            "weights",
            "read, kB",
            "written, kB",
            "note",
        ),
        rows=[
            (
                *(number, _shorten(one.name), one.kind, _shape(one.shape), one.dtype, one.macs),
                *(one.parameters, one.weights, one.read_bytes / 1e3, one.written_bytes / 1e3),
                one.note,
            )
            for number, one in enumerate(cost.layers)
        ],
    )
    title = f"Cost of each of {len(cost.layers):,} layers"
    return [*sections, Fold(title=title, sections=(filled(layers),))]


def filled(table: Table) -> Table:
    """Return `table` without the columns in which no row has anything."""
    kept = [
        place
        for place in range(len(table.columns))
        if any(row[place] not in (None, "") for row in table.rows)
    ]

    def pick(cells: Sequence[Cell]) -> tuple[Cell, ...]:
        return tuple(cells[place] for place in kept)

    names = [table.columns[place] for place in kept]
    return replace(table, columns=names, rows=[pick(row) for row in table.rows])


def _operators(found: Operators, roofs: Roofs | None) -> list[Section]:
    if not found.operators:
        return [Text(title="Operators", text=found.note)] if found.note else []
    slowest = sorted(enumerate(found.operators), key=lambda pair: -pair[1].ms)
    note = f"Times are means of {found.runs:,} runs; their sum is {found.sum_ms:.3f} ms"
    if found.infer_ms > 0:
        share = 100 * found.sum_ms / found.infer_ms
        note += f", {share:.1f} % of the {found.infer_ms:.3f} ms that the inference took"
    note += f". Measured by {found.source}." if found.source else "."
    columns = (
        *("", "operator", "ms", "share, %", "output", "MACs, M", "GFLOP/s", "of the roof, %"),
        *("bound by", "the engine's name", "layer"),
    )
    table = Table(
        columns=columns,
        rows=[_operator_row(place, one) for place, one in slowest],
        sorted_by="ms",
        bars=("share, %",),
        decimals={"ms": 3 if slowest[0][1].ms >= 1 else 4, **_OPERATOR_DECIMALS},
        note=f"{note} {found.note}".strip(),
    )
    kinds = Bars(title="Operators", stages=_kinds(found.operators), unit="ms")
    plot = [] if roofs is None else _roofline(slowest, roofs)
    return [kinds, filled(table), *plot]


def _operator_row(place: int, one: Operator) -> tuple[Cell, ...]:
    return (
        place,
        one.kind or _shorten(one.name),
        one.ms,
        100 * one.share,
        f"{_shape(one.shape)} {one.dtype}".strip(),
        None if one.macs is None else one.macs / 1e6,
        one.gflops,
        None if one.roofline_share is None else 100 * one.roofline_share,
        one.bound,
        _shorten(one.name) if one.kind not in ("", one.name) else "",
        _end_of(one.layer),
    )


def _kinds(operators: Sequence[Operator]) -> list[tuple[str, float]]:
    """Return the time of each kind of operator, the slowest first, the last ones together."""
    times: dict[str, float] = {}
    counts: dict[str, int] = {}
    for one in operators:
        times[one.kind] = times.get(one.kind, 0.0) + one.ms
        counts[one.kind] = counts.get(one.kind, 0) + 1
    ordered = sorted(times, key=lambda kind: -times[kind])
    least = _LEAST_SHARE * sum(times.values())
    shown = [kind for kind in ordered[:_MOST_KINDS] if times[kind] >= least]
    kinds = [(f"{kind} × {counts[kind]}", times[kind]) for kind in shown]
    if rest := ordered[len(shown) :]:
        count = sum(counts[kind] for kind in rest)
        kinds.append((f"others × {count}", sum(times[kind] for kind in rest)))
    return kinds


def _roofline(slowest: Sequence[tuple[int, Operator]], roofs: Roofs) -> list[Section]:
    points = [
        RoofPoint(
            one.name,
            2 * one.macs / one.bytes,
            one.gflops,
            one.share,
            one.bound == "memory",
            str(place) if rank < _LABELLED else "",
        )
        for rank, (place, one) in enumerate(slowest)
        if one.macs and one.bytes and one.gflops
    ]
    if not points:
        return []
    return [
        Roofline(
            title="Roofline of this machine",
            peak_gflops=roofs.peak_gflops,
            bandwidth_gb_s=roofs.bandwidth_gb_s,
            points=points,
            note=f"At most {roofs.peak_gflops:,.4g} GFLOP/s and {roofs.bandwidth_gb_s:,.4g} GB/s, "
            f"measured by {roofs.source}. A point is an operator, its area its time; those with "
            "their number in the table are among the slowest.",
        )
    ]


def _memory(memory: Memory) -> Section:
    rows = [
        ("peak of a fresh process", memory.peak_rss_mb),
        ("of it opening and the first run", memory.opened_mb),
        ("activations (arena)", memory.arena_mb),
        ("model's file", memory.model_mb),
        ("GPU", memory.gpu_mb),
    ]
    return Table(
        title="Memory",
        columns=("what", "MB"),
        rows=[row for row in rows if row[1] is not None],
        bars=("MB",),
    )


def _energy(energy: Energy) -> Section:
    idle_w = energy.idle_power_w
    rows = [
        ("energy of an inference", f"{1000 * energy.joules_per_inference:,.4g} mJ"),
        ("mean power", f"{energy.mean_power_w:,.3g} W"),
    ]
    if idle_w is not None:
        rows.append(("idle power, before", f"{idle_w:,.3g} W"))
        above = max(0.0, 1 - idle_w / energy.mean_power_w) if energy.mean_power_w > 0 else 0.0
        joules = above * energy.joules_per_inference
        rows.append(("of an inference, above idle", f"{1000 * joules:,.4g} mJ"))
    note = f"Of the whole rail {energy.rail}: idle power is in it."
    return Table(title="Energy", columns=("what", "value"), rows=rows, note=note)


def _cold_start(cold: ColdStart) -> Section:
    parts = [
        ("import", cold.import_ms),
        ("open the bundle", cold.open_ms),
        ("first inference", cold.first_ms),
    ]
    if cold.start_ms is not None:
        parts.insert(0, ("start of the interpreter", cold.start_ms))
    # Medians of parts do not add up to the median of the whole.
    rest_ms = cold.total_ms - sum(ms for _, ms in parts)
    stages = [*parts, ("all else", rest_ms)] if rest_ms > 0 else parts
    interval = cold.total_interval_ms
    known_to = "" if interval is None else f" ({interval_text(cold.total_ms, interval)})"
    note = (
        f"From the interpreter's start to the first result {cold.total_ms:,.0f} ms{known_to}, "
        f"medians of {cold.processes} fresh processes, whose files had been read before; those of "
        "parts need not add up to it."
    )
    if cold.build_ms is not None:
        note += f" The engine's build, once and not in it: {cold.build_ms:,.0f} ms."
    return Bars(title="Cold start", stages=stages, unit="ms", note=note)


def _pressure(pressure: Pressure) -> Section:
    shares = (
        ("waited for a CPU", pressure.cpu_stalled),
        ("waited for memory", pressure.memory_stalled),
        ("waited for input or output", pressure.io_stalled),
        ("taken by the hypervisor", pressure.stolen),
    )
    rows = [(name, f"{100 * share:.2f} %") for name, share in shares if share is not None]
    if pressure.others is not None:
        rows.append(("other processes", f"{pressure.others:.2f} CPUs"))
    counts = (
        ("threads put off their CPU", pressure.involuntary_switches),
        ("pages read from storage", pressure.major_faults),
    )
    rows += [(name, f"{count:,}") for name, count in counts if count is not None]
    if pressure.throttled_s is not None:
        rows.append(("stopped by the container's limit", f"{pressure.throttled_s:.3f} s"))
    note = f"Over {pressure.wall_s:,.1f} s."
    return Table(title="The machine meanwhile", columns=("what", "value"), rows=rows, note=note)


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _end_of(name: str) -> str:
    """Return a layer's name; of long ones the end tells them apart."""
    return name if len(name) <= _LONGEST_LAYER else f"…{name[1 - _LONGEST_LAYER :]}"


def _shape(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "×".join(map(str, shape))
