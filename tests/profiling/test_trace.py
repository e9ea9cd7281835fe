"""A profile as a trace: the form that viewers document, and what is on its time axis."""

import json

import pytest
from msgspec.structs import replace

from edgekit.errors import OutputError
from edgekit.profiling.results import LatencyProfile, Moment, Operator, Operators, Profile
from edgekit.profiling.trace import trace, write_trace
from edgekit.runtime.statistics import Summary


def summary(mean):
    return Summary(p50=mean, p90=mean, p99=mean, max=mean, mean=mean)


MEASURED = LatencyProfile(
    scenario="single-stream",
    backend="litert",
    executes="LiteRT 2.3.0, XNNPACK",
    threads=1,
    precision="int8",
    latency_ms=summary(4.0),
    intervals_ms={},
    cpu_ms=4.0,
    throughput_fps=250.0,
    stages_ms={"preprocess": summary(1.0), "infer": summary(2.5), "postprocess": summary(0.5)},
    peak_rss_mb=100.0,
    runs=3,
    warm_up_runs=30,
    steady=True,
    operators=Operators(
        operators=(
            Operator(name="Convolution (NHWC, QC8) IGEMM", kind="CONV_2D", ms=2.0, share=0.8),
            Operator(name="Add (ND)", kind="ADD", ms=0.5, share=0.2, layer="sum", macs=0),
        ),
        sum_ms=2.5,
    ),
    telemetry=(
        Moment(at_s=-1.0, power_mw={"rapl: package-0": 900.0}),
        Moment(at_s=0.5, clocks_mhz={"cpu0": 2000.0}, throttled=("thermal",)),
        Moment(at_s=1.0, temperature_c={"cpu": 80.0}, throttled=("thermal",)),
        Moment(at_s=2.0),
    ),
    samples_ms=(4.0, 4.5, 3.5),
    starts_s=(0.0, 0.004, 0.0085),
)


def profile_of(*profiles):
    return Profile(
        bundle="shapes.edgekit",
        bundle_sha256="0" * 64,
        frames="golden",
        environment={"cpu": "one of them"},
        profiles=profiles,
    )


def events_of(measured, **told):
    return [
        event
        for event in trace(profile_of(measured))["traceEvents"]
        if all(event.get(key) == value for key, value in told.items())
    ]


def check_form(document):
    """Assert what the Trace Event Format asks of each kind of event that is written here."""
    assert document["displayTimeUnit"] in ("ms", "ns")
    for event in document["traceEvents"]:
        assert isinstance(event["name"], str) and event["name"]
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
        elif event["ph"] == "C":
            assert all(isinstance(value, float | int) for value in event["args"].values())
        else:
            assert (event["ph"], event["s"]) == ("i", "p")


def check_slices(document):
    """Assert that each slice of a thread lies within the one before it, or behind it."""
    open_ends = {}
    for event in document["traceEvents"]:
        if event["ph"] == "X":
            ends = open_ends.setdefault((event["pid"], event["tid"]), [])
            while ends and ends[-1] <= event["ts"]:
                ends.pop()
            end = event["ts"] + event["dur"]
            assert not ends or end <= ends[-1] + 1e-3, event
            ends.append(end)


def test_the_file_has_the_documented_form(tmp_path):
    file = tmp_path / "trace.json"
    write_trace(profile_of(MEASURED, replace(MEASURED, threads=2)), file)
    document = json.loads(file.read_text("utf-8"))
    check_form(document)
    check_slices(document)
    assert document["otherData"]["bundle"] == "shapes.edgekit"
    assert document["otherData"]["cpu"] == "one of them"
    names = [e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"]
    assert names == [
        "single-stream: litert, int8, 1 thread",
        "single-stream: litert, int8, 2 threads",
    ]


def test_runs_lie_where_they_began_behind_the_telemetry_that_was_before():
    runs = events_of(MEASURED, ph="X", cat="runs")
    assert [(run["ts"], run["dur"]) for run in runs] == [
        (1_000_000.0, 4000.0),
        (1_004_000.0, 4500.0),
        (1_008_500.0, 3500.0),
    ]
    assert [run["args"]["number"] for run in runs] == [0, 1, 2]


def test_the_stages_of_a_run_lie_within_it():
    stages = {"preprocess": (1.0, 1.0, 0.5), "infer": (2.5, 3.0, 2.5), "postprocess": (0.5,) * 3}
    told = replace(MEASURED, stage_samples_ms=stages, telemetry=(), operators=None)
    check_slices(trace(profile_of(told)))
    runs = events_of(told, ph="X", cat="runs")
    assert [(event["name"], event["ts"], event["dur"]) for event in runs[4:8]] == [
        ("run", 4000.0, 4500.0),
        ("preprocess", 4000.0, 1000.0),
        ("infer", 5000.0, 3000.0),
        ("postprocess", 8000.0, 500.0),
    ]


def test_stages_that_are_longer_than_the_run_are_not_put_into_it():
    stages = {"capture": (30.0,) * 3, "infer": (2.5,) * 3}
    told = replace(MEASURED, stage_samples_ms=stages)
    assert {event["name"] for event in events_of(told, ph="X", cat="runs")} == {"run"}


def test_runs_of_several_streams_get_threads_of_their_own():
    streams = replace(MEASURED, starts_s=(0.0, 0.001, 0.0055), telemetry=())
    assert [run["cat"] for run in events_of(streams, ph="X", name="run")] == [
        "runs",
        "runs that overlap, 2",
        "runs",
    ]
    check_slices(trace(profile_of(streams)))
    threads = {event["args"]["name"] for event in events_of(streams, name="thread_name")}
    assert threads == {
        "stages of a mean run",
        "operators of a mean inference",
        "runs",
        "runs that overlap, 2",
    }


def test_operators_and_stages_stand_end_to_end_with_what_is_known_of_them():
    alone = replace(MEASURED, telemetry=())
    conv, add = events_of(alone, ph="X", cat="operators of a mean inference")
    assert (conv["name"], conv["ts"], conv["dur"]) == ("Convolution (NHWC, QC8) IGEMM", 0, 2000)
    assert (add["name"], add["ts"], add["dur"]) == ("sum", 2000, 500)
    assert add["args"]["name"] == "Add (ND)"
    assert "gflops" not in conv["args"]  # not known
    assert add["args"]["macs"] == 0
    stages = events_of(alone, ph="X", cat="stages of a mean run")
    assert [(stage["name"], stage["ts"]) for stage in stages] == [
        ("preprocess", 0),
        ("infer", 1000),
        ("postprocess", 3500),
    ]


def test_telemetry_is_counters_and_throttling_is_told_when_it_changes():
    counters = events_of(MEASURED, ph="C")
    assert [(c["name"], c["ts"], c["args"]) for c in counters] == [
        ("power: rapl: package-0 (mW)", 0, {"mW": 900.0}),
        ("clock: cpu0 (MHz)", 1_500_000, {"MHz": 2000.0}),
        ("temperature: cpu (°C)", 2_000_000, {"°C": 80.0}),
    ]
    assert [(mark["name"], mark["ts"]) for mark in events_of(MEASURED, ph="i")] == [
        ("throttled: thermal", 1_500_000),
        ("no longer throttled", 3_000_000),
    ]


def test_a_profile_of_which_little_is_known_is_a_trace_too():
    bare = replace(MEASURED, stages_ms={}, operators=None, telemetry=(), samples_ms=(), starts_s=())
    document = trace(profile_of(bare))
    check_form(document)
    assert [event["name"] for event in document["traceEvents"]] == ["process_name"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(OutputError, match="its folder does not exist; make it first"):
        write_trace(profile_of(MEASURED), tmp_path / "nowhere" / "trace.json")
