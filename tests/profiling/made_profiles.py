"""Profiles as a machine could have given them, made of seeded random numbers."""

import msgspec
import numpy as np

from edgekit.profiling.results import (
    Block,
    ColdStart,
    Cost,
    Energy,
    Finding,
    LatencyProfile,
    LayerCost,
    Memory,
    Moment,
    Operator,
    Operators,
    Pressure,
    Profile,
    Roofline,
)
from edgekit.runtime.statistics import Interval, Summary

ENVIRONMENT = {
    "machine": "aarch64",
    "cpu": "Cortex-A76, 4 cores at 2,400 MHz",
    "memory_gib": "7.9",
    "governor": "performance",
    "board": "Raspberry Pi 5 Model B Rev 1.0",
    "system": "Linux 6.12.25",
    "python": "3.11.7",
    "edgekit": "0.1.0",
    "ai-edge-litert": "2.3.0",
}
THROTTLED = Finding(
    code="throttling",
    is_doubt=True,
    message="the device throttled itself in 37 % of the time (soft temperature limit); the cpu0 "
    "clock fell from 2400 to 1500 MHz and runs took 45.0 % longer: cool it, give it a supply that "
    "is strong enough, or measure at the clock it can hold",
    evidence={"high_mhz": 2400.0, "low_mhz": 1500.0, "throttled_percent": 37.0},
)
LEVEL_SHIFT = Finding(
    code="level-shift",
    is_doubt=True,
    message="runs took 45.0 % more from 9.4 s on: another clock, another process or another core",
    evidence={"change_percent": 45.0, "from_s": 9.4},
)
TWO_MODES = Finding(
    code="two-modes",
    is_doubt=True,
    message="the latency has two modes, at 5.1 ms (62 %) and 6.9 ms (38 %), so that no single "
    "figure describes it: pin the process to cores of one kind (`taskset`)",
    evidence={"low_ms": 5.1, "high_ms": 6.9},
)
HEAVY_TAIL = Finding(
    code="heavy-tail",
    is_doubt=False,
    message="p99 is 2.1 times p50: quote both",
    evidence={"ratio": 2.1},
)
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "ADD")


def summary(values):
    p50, p90, p99 = np.percentile(values, [50, 90, 99], method="inverted_cdf")
    return Summary(float(p50), float(p90), float(p99), float(max(values)), float(np.mean(values)))


def latencies(n=3000, middle_ms=5.1, seed=0):
    random = np.random.default_rng(seed)
    return middle_ms * (0.97 + random.lognormal(-3.4, 0.7, n))


def operators(count=65):
    random = np.random.default_rng(1)
    times = random.gamma(0.7, 0.11, count) + 0.002
    found = []
    for number, ms in enumerate(times.tolist()):
        kind = KINDS[number % 4]
        side, channels = max(7, 112 >> (number // 13)), 16 * (1 + number // 8)
        intensity, ridge = float(random.lognormal(2.2, 1.1)), 60.0 / 9.0
        roof = min(60.0, 9.0 * intensity)
        gflops = None if kind == "ADD" else roof * float(random.uniform(0.15, 0.9))
        macs = None if gflops is None else int(gflops * ms * 1e6 / 2)
        size = int(side * side * channels * 2 if macs is None else 2 * macs / intensity)
        found.append(
            Operator(
                name=f"{kind.lower()}_{number}",
                layer=f"model/block_{number}/{kind.lower()}",
                kind=kind,
                ms=ms,
                share=ms / float(times.sum()),
                shape=(1, side, side, channels),
                dtype="int8",
                macs=macs,
                bytes=size,
                gflops=gflops,
                bound="" if macs is None else "compute" if intensity > ridge else "memory",
                roofline_share=None if gflops is None else gflops / roof,
            )
        )
    total = float(times.sum())
    return Operators(
        operators=tuple(found),
        sum_ms=total,
        infer_ms=total * 1.02,
        runs=50,
        source="LiteRT's profiler (libLiteRt.so 2.3.0)",
    )


def cost(count=65):
    layers = tuple(
        LayerCost(
            name=f"model/block_{n}/{KINDS[n % 4].lower()}",
            kind=KINDS[n % 4],
            shape=(1, 56, 56, 24),
            dtype="int8",
            macs=0 if KINDS[n % 4] == "ADD" else 1_800_000 + 1000 * n,
            parameters=0 if KINDS[n % 4] == "ADD" else 3456,
            read_bytes=78_000,
            written_bytes=75_264,
        )
        for n in range(count)
    )
    return Cost(
        parameters=3_538_984,
        macs=300_774_272,
        activations_bytes=1_505_280,
        size_bytes=3_969_000,
        layers=layers,
    )


def telemetry(throttled_from=None, seconds=15.0):
    random = np.random.default_rng(2)
    moments = []
    for at_s in np.arange(0, seconds, 0.25).tolist():
        hot = throttled_from is not None and at_s >= throttled_from
        moments.append(
            Moment(
                at_s=at_s,
                power_mw={"VDD_IN": 6100 + 900 * (not hot) + random.normal(0, 60)},
                temperature_c={
                    "cpu-thermal": min(85.0, 58 + 2.9 * at_s if throttled_from else 52 + at_s / 9),
                    "rp1": 47 + at_s / 9,
                },
                clocks_mhz={f"cpu{n}": 1500.0 if hot else 2400.0 for n in range(4)}
                | {"v3d": 500.0},
                throttled=("soft temperature limit",) if hot else (),
            )
        )
    return tuple(moments)


def measured(samples_ms=None, **changes):
    """Return one configuration with all that a machine may tell."""
    samples = latencies() if samples_ms is None else np.asarray(samples_ms, np.float64)
    p50, p90, p99 = (float(np.percentile(samples, q)) for q in (50, 90, 99))
    whole = summary(samples)
    found = LatencyProfile(
        scenario="single-stream",
        backend="litert",
        executes="LiteRT 2.3.0, XNNPACK, int8",
        threads=4,
        precision="int8",
        latency_ms=whole,
        intervals_ms={
            "p50": Interval(p50 * 0.997, p50 * 1.003),
            "p90": Interval(p90 * 0.99, p90 * 1.012),
            "p99": Interval(p99 * 0.96, p99 * 1.05),
        },
        cpu_ms=whole.mean * 3.4,
        throughput_fps=1000 / whole.mean,
        stages_ms={
            "preprocess": summary(samples * 0.06),
            "infer": summary(samples * 0.92),
            "postprocess": summary(samples * 0.02),
        },
        peak_rss_mb=96.4,
        runs=len(samples),
        warm_up_runs=120,
        steady=True,
        findings=(HEAVY_TAIL,),
        blocks=tuple(
            Block(latency_ms=summary(part), runs=len(part), cpu_ms=17.2)
            for part in np.array_split(samples, 3)
        ),
        pressure=Pressure(
            wall_s=15.4,
            cpu_stalled=0.012,
            memory_stalled=0.0,
            io_stalled=0.0,
            stolen=0.0,
            others=0.08,
            involuntary_switches=41,
            major_faults=0,
        ),
        energy=Energy(
            rail="ina3221: VDD_IN", joules_per_inference=0.0362, mean_power_w=7.0, idle_power_w=3.1
        ),
        memory=Memory(peak_rss_mb=71.2, opened_mb=18.8, model_mb=3.97, arena_mb=1.51),
        cold_start=ColdStart(
            import_ms=184.0,
            open_ms=46.0,
            build_ms=None,
            first_ms=6.1,
            total_ms=291.0,
            processes=7,
            total_interval_ms=Interval(286.0, 301.0),
            start_ms=52.0,
        ),
        operators=operators(),
        roofline=Roofline(
            peak_gflops=60.0, bandwidth_gb_s=9.0, source="a matrix product and a copy, 4 threads"
        ),
        telemetry=telemetry(),
        samples_ms=tuple(samples.tolist()),
        starts_s=tuple((np.arange(len(samples)) * 15.0 / len(samples)).tolist()),
    )
    return msgspec.structs.replace(found, **changes)


def of(*profiles, **changes):
    found = Profile(
        bundle="mobilenet.edgekit",
        bundle_sha256="9f" * 32,
        frames="golden",
        environment=ENVIRONMENT,
        conditions={"load_1_5_15_min": "0.12 0.20 0.18", "temperature_c": "51"},
        profiles=profiles,
        cost=cost(),
    )
    return msgspec.structs.replace(found, **changes)


def healthy():
    return of(measured())


def throttled():
    samples = latencies()
    samples[1880:] *= 1.45
    return of(measured(samples, findings=(THROTTLED,), telemetry=telemetry(9.4), blocks=()))


def bimodal():
    samples = latencies()
    slow = np.random.default_rng(3).random(samples.size) < 0.38
    return of(measured(np.where(slow, samples * 1.35, samples), findings=(TWO_MODES, HEAVY_TAIL)))


def camera():
    samples = latencies(900)
    ages = samples + np.random.default_rng(4).uniform(2, 35, 900)
    only = measured(
        samples,
        scenario="camera",
        age_ms=summary(ages),
        drops={"superseded": 12, "too old": 1},
        stages_ms={
            "capture": summary(samples * 0.3),
            **measured(samples).stages_ms,
            "sink": summary(samples * 0.1),
        },
        starts_s=tuple((np.arange(900) / 30).tolist()),
        telemetry=telemetry(seconds=30),
    )
    return of(only, frames="/dev/video0")


def three():
    one = measured(latencies(800, 14.8, 5), threads=1, findings=())
    two = measured(latencies(1500, 8.1, 6), threads=2, findings=(TWO_MODES,))
    four = measured(findings=())
    return of(one, two, four)


def contended():
    """Return runs of which one in twenty waited for its CPU, thirty times as long."""
    random = np.random.default_rng(7)
    samples = latencies(4000, 0.25, 7)
    waited = random.random(samples.size) < 0.05
    samples[waited] = random.choice([4.0, 8.0, 12.0], int(waited.sum()))
    return of(measured(samples, findings=(HEAVY_TAIL,), blocks=(), telemetry=()))


def minimal():
    """Return what the smallest profile holds: ten runs, no extras."""
    samples = np.linspace(1.0, 1.2, 10)
    only = LatencyProfile(
        scenario="single-stream",
        backend="onnxruntime",
        executes="CPUExecutionProvider",
        threads=1,
        precision="fp32",
        latency_ms=summary(samples),
        intervals_ms={},
        cpu_ms=1.1,
        throughput_fps=905.0,
        stages_ms={"infer": summary(samples)},
        peak_rss_mb=60.0,
        runs=10,
        warm_up_runs=10,
        steady=True,
    )
    return of(only, environment={}, conditions={}, cost=None)


def large():
    """Return as much as one configuration can hold: 65,536 runs, 200 operators."""
    only = measured(latencies(65536), operators=operators(200), telemetry=telemetry(200.0, 600.0))
    return of(only, cost=cost(200))


EVERY = {
    "healthy": healthy,
    "throttled": throttled,
    "bimodal": bimodal,
    "camera": camera,
    "contended": contended,
    "three": three,
    "minimal": minimal,
}
