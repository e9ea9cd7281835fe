"""What a profile holds; `docs/json.md` describes the same as JSON.

What a machine or an engine cannot tell is None or empty, never zero.
"""

from __future__ import annotations

import msgspec

from edgekit.runtime.statistics import Interval, Summary


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that the reader of a latency must know.

    Attributes:
        code: its name: ``drift``, ``throttling``, ``contention``, ``two-modes`` …
        is_doubt: whether the figures do not deserve trust because of it; else it is only told.
        message: one sentence with the figures, and what to do.
        evidence: the same figures for machines, by name with its unit.
    """

    code: str
    is_doubt: bool
    message: str
    evidence: dict[str, float] = {}


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one process: what `edgekit compare` of saved profiles resamples.

    Attributes:
        latency_ms: of the block's runs.
        runs: how many.
        cpu_ms: CPU time of a run, all threads.
    """

    latency_ms: Summary
    runs: int
    cpu_ms: float


class Pressure(msgspec.Struct, frozen=True, kw_only=True):
    """What else the machine did meanwhile; shares are of the wall time, 0..1.

    Attributes:
        wall_s: how long it was watched.
        cpu_stalled: share in which some task waited for a CPU (``/proc/pressure/cpu``, some).
        memory_stalled, io_stalled: the same for memory and for input and output.
        stolen: share that the hypervisor gave to others (steal time).
        others: CPU time of all other processes, in CPUs.
        involuntary_switches: how often a thread of this process was put off its CPU.
        major_faults: pages read from storage.
        throttled_s: time that the container's limit of CPU stood still (cgroup).
    """

    wall_s: float
    cpu_stalled: float | None = None
    memory_stalled: float | None = None
    io_stalled: float | None = None
    stolen: float | None = None
    others: float | None = None
    involuntary_switches: int | None = None
    major_faults: int | None = None
    throttled_s: float | None = None


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """What the telemetry readers saw at one moment of the measurement.

    Attributes:
        at_s: seconds since the first measured run began.
        power_mw, temperature_c, clocks_mhz: by rail, zone and unit, as in `telemetry.Sample`.
        throttled: why the device runs slower than it could, now.
    """

    at_s: float
    power_mw: dict[str, float] = {}
    temperature_c: dict[str, float] = {}
    clocks_mhz: dict[str, float] = {}
    throttled: tuple[str, ...] = ()


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """Energy of the measured runs, of one rail.

    Attributes:
        rail: which of the readers' rails, with the reader's name: ``rapl: package-0``.
        joules_per_inference: of the whole rail: idle power is in it.
        mean_power_w: over the measured time.
        idle_power_w: before it, where it was read.
    """

    rail: str
    joules_per_inference: float
    mean_power_w: float
    idle_power_w: float | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Memory, 10^6 bytes.

    Attributes:
        peak_rss_mb: most that a fresh process held: open, and a few runs.
        opened_mb: of it what opening the bundle and the first run added to the interpreter.
        model_mb: size of the model's file.
        arena_mb: activations at their peak, where the engine or the graph tells.
        gpu_mb: of the GPU, what the model took beside CUDA's own part; TensorRT only.
    """

    peak_rss_mb: float
    opened_mb: float | None = None
    model_mb: float | None = None
    arena_mb: float | None = None
    gpu_mb: float | None = None


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """From nothing to a result in fresh processes, milliseconds; medians.

    The files had been read before: they come from the page cache, as after a restart of the
    program and not of the device.

    Attributes:
        import_ms: of edgekit's runtime and the engine's package.
        open_ms: read, verify and open the bundle, replay its golden samples.
        build_ms: the engine's build, once, in none of the others; None where none was built.
        first_ms: the first inference after opening.
        total_ms: from the interpreter's start to the first result.
        processes: how many were measured.
        total_interval_ms: 95 % of the median of `total_ms`; None below six processes.
        start_ms: of `total_ms` the start of the process and of the interpreter.
    """

    import_ms: float
    open_ms: float
    build_ms: float | None
    first_ms: float
    total_ms: float
    processes: int
    total_interval_ms: Interval | None = None
    start_ms: float | None = None


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """What one operator, as the engine runs it, takes in one inference.

    Attributes:
        name: of the engine's kernel or layer.
        kind: what it computes: ``CONV_2D``, ``Conv``, ``FullyConnected`` …
        ms: mean of the profiled runs that count, `Operators.runs`.
        share: of all operators' time, 0..1.
        shape: of its first output; None where the engine does not tell.
        dtype: it computes in; "" where the engine does not tell.
        macs: multiplications with addition; None where not known.
        bytes: that it must read and write at least: inputs, weights, outputs; None where not known.
        gflops: achieved, 2 MACs / ms; None where not known.
        bound: what bounds it on this machine by its roofline: ``compute`` or ``memory``; "".
        roofline_share: achieved / attainable by the roofline, that of the caches where they can
            hold what it moves; None where not known. Above 1 where the probe was disturbed, or the
            time is of few whole microseconds.
        layer: the graph's operator that it is, by the name of its first output; "" where that
            cannot be told.
    """

    name: str
    kind: str
    ms: float
    share: float
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    macs: int | None = None
    bytes: int | None = None
    gflops: float | None = None
    bound: str = ""
    roofline_share: float | None = None
    layer: str = ""


class Operators(msgspec.Struct, frozen=True, kw_only=True):
    """Where an inference's time goes.

    Attributes:
        operators: in the order they run.
        sum_ms: of their times.
        infer_ms: one inference by the clock around it, in the same runs; mean. Of TensorRT, which
            stops after each layer to time it, as `plain_ms`.
        plain_ms: one inference without the profiler, in turns with the profiled runs; mean.
        runs: profiled runs that the means are of: the faster half, where the engine tells runs
            apart.
        source: who measured: ``LiteRT's profiler (libLiteRt.so 2.3.0)`` …
        note: what is to be known, or why there are none.
    """

    operators: tuple[Operator, ...] = ()
    sum_ms: float = 0.0
    infer_ms: float = 0.0
    plain_ms: float = 0.0
    runs: int = 0
    source: str = ""
    note: str = ""


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine can do at most, measured by a short probe.

    Attributes:
        peak_gflops: most of the engine's own matrix product in this precision and threads; a MAC
            is two operations, whether of floats or integers.
        bandwidth_gb_s: of memory, reading and writing large arrays, 10^9 bytes a second.
        source: how they were measured.
        cache_gb_s: of what stays in the caches, the same way; None where not measured.
        cache_bytes: size of the last cache; None where the machine does not tell.
    """

    peak_gflops: float
    bandwidth_gb_s: float
    source: str
    cache_gb_s: float | None = None
    cache_bytes: int | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a model costs before any run, by its graph.

    Attributes:
        parameters: numbers in its weights.
        macs: of one inference.
        activations_bytes: most that lives at once, inputs and outputs of operators.
        size_bytes: of the model's file.
        layers: each operator's.
        notes: what these figures leave out, a sentence each; empty where they are whole.
    """

    parameters: int
    macs: int
    activations_bytes: int
    size_bytes: int
    layers: tuple[LayerCost, ...] = ()
    notes: tuple[str, ...] = ()


class LayerCost(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a model's graph.

    Attributes:
        name: of its first output.
        kind: the operator.
        shape: of its first output.
        dtype: of its first output.
        macs: multiplications with addition, 0 where it has none.
        parameters: numbers in its weights.
        read_bytes: inputs and weights.
        written_bytes: outputs.
        weights: dtype of its first weights; "" where it has none.
        note: what is not known of it, or how it was counted.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    macs: int
    parameters: int
    read_bytes: int
    written_bytes: int
    weights: str = ""
    note: str = ""


class LatencyProfile(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration's figures.

    Attributes:
        scenario: how frames came: single-stream, multi-stream, offline, paced, camera, cold-start.
        backend: inference engine.
        executes: what truly runs.
        threads: CPU threads of the engine.
        precision: of the bundle.
        latency_ms: one frame's preprocess + infer + postprocess; of scenario camera too, whose ages
            are `age_ms`; offline: of a frame in a batch of them.
        intervals_ms: of p50, p90 and p99 the 95 % interval; None where there are too few runs.
        cpu_ms: CPU time of a frame, all threads.
        throughput_fps: frames a second.
        stages_ms: of each stage.
        peak_rss_mb: most memory this process has held so far, 10^6 bytes.
        runs: measured.
        warm_up_runs: before, until steady.
        steady: whether the latency became steady in the warm-up.
        findings: what is to be known of these figures; `is_trusted` without doubts.
        blocks: a process each.
        rate_hz: of scenario paced, as asked for.
        streams: of scenario multi-stream.
        age_ms: age of a frame at its result; scenario camera.
        drops: frames dropped, by reason; scenarios paced and camera.
        samples_ms: each run's latency, in order; not in the JSON: `--samples` keeps them.
        starts_s: when each run began, since the first; likewise.
        stage_samples_ms: each run's stages, in the order of `samples_ms`; likewise.
    """

    scenario: str
    backend: str
    executes: str
    threads: int
    precision: str
    latency_ms: Summary
    intervals_ms: dict[str, Interval | None]
    cpu_ms: float
    throughput_fps: float
    stages_ms: dict[str, Summary]
    peak_rss_mb: float
    runs: int
    warm_up_runs: int
    steady: bool
    findings: tuple[Finding, ...] = ()
    blocks: tuple[Block, ...] = ()
    rate_hz: float | None = None
    streams: int | None = None
    age_ms: Summary | None = None
    drops: dict[str, int] = {}
    pressure: Pressure | None = None
    energy: Energy | None = None
    memory: Memory | None = None
    cold_start: ColdStart | None = None
    operators: Operators | None = None
    roofline: Roofline | None = None
    telemetry: tuple[Moment, ...] = ()
    samples_ms: tuple[float, ...] = ()
    starts_s: tuple[float, ...] = ()
    stage_samples_ms: dict[str, tuple[float, ...]] = {}

    @property
    def is_trusted(self) -> bool:
        """Whether no finding casts doubt on the figures."""
        return not any(finding.is_doubt for finding in self.findings)


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one bundle in one or more configurations, and what they were measured on.

    Attributes:
        bundle: its path.
        bundle_sha256: of its model's file.
        frames: what was measured on: ``golden`` or the source, without a password.
        input: what a frame is for the bundle, as `input_of` says it; "" is not known.
        environment: the machine and its library versions.
        conditions: what changes from minute to minute, before the first measurement.
        cost: by the model's graph; None where it cannot be read.
        profiles: a configuration each.
    """

    bundle: str
    bundle_sha256: str
    frames: str
    environment: dict[str, str]
    profiles: tuple[LatencyProfile, ...]
    cost: Cost | None = None
    left_out: dict[str, str] = {}
    conditions: dict[str, str] = {}
    input: str = ""
