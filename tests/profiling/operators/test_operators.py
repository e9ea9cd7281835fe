"""Where an inference's time goes, by each engine's own word."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit import isolated
from edgekit.errors import BackendError, UsageError
from edgekit.profiling.operators import _litert_child as child
from edgekit.profiling.operators import litert, operators_of
from edgekit.profiling.operators._timing import (
    Budget,
    Run,
    in_turns,
    mean_of_faster_half,
    mean_run,
)
from edgekit.profiling.operators.onnxruntime import nodes_by_run
from edgekit.profiling.results import Cost, LayerCost
from edgekit.runtime.model import open_model

needs_litert = pytest.mark.skipif(litert.find_library() is None, reason="ai-edge-litert is missing")


def made_cost(*layers):
    costs = [
        LayerCost(
            name=name,
            kind=kind,
            shape=shape,
            dtype="float32",
            macs=macs,
            parameters=0,
            read_bytes=8,
            written_bytes=8,
        )
        for name, kind, shape, macs in layers
    ]
    return Cost(parameters=0, macs=0, activations_bytes=0, size_bytes=0, layers=tuple(costs))


@needs_litert
@pytest.mark.parametrize("threads", [1, 2])
def test_litert_names_its_kernels_and_their_times(segmenter_bundle, threads):
    with open_model(segmenter_bundle, threads=threads) as model:
        found = operators_of(model, runs=6)
        assert model(model.bundle.golden()[0].frame).value is not None  # it still runs
    kinds = [operator.kind for operator in found.operators]
    assert any("Convolution" in kind or "Fully Connected" in kind for kind in kinds)
    assert all(operator.ms >= 0 for operator in found.operators)
    assert found.sum_ms == pytest.approx(sum(operator.ms for operator in found.operators))
    assert sum(operator.share for operator in found.operators) == pytest.approx(1)
    assert found.infer_ms > 0
    assert found.runs == 3  # the faster half
    assert found.source.startswith("LiteRT's profiler (libLiteRt")


def test_a_litert_without_the_profiler_says_what_to_install(classifier_bundle, monkeypatch):
    monkeypatch.setattr(litert, "find_library", lambda: None)
    with open_model(classifier_bundle) as model:
        found = operators_of(model, runs=1)
    assert found.operators == ()
    assert "pip install --upgrade ai-edge-litert" in found.note


@pytest.mark.skipif(sys.platform != "linux", reason="its C library has another name")
def test_a_library_without_the_functions_is_told_by_name(classifier_bundle, monkeypatch):
    monkeypatch.setattr(litert, "find_library", lambda: Path("libc.so.6"))
    with open_model(classifier_bundle) as model:
        found = operators_of(model, runs=1)
    assert found.operators == ()
    assert "it has no function LiteRtCreateEnvironment" in found.note


@pytest.mark.parametrize(
    ("boot", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "by signal SIGSEGV"),
        ("import sys; sys.exit('out of\\nluck')", "with exit code 1; its last line: luck"),
        ("pass", "with exit code 0"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
def test_a_profiler_that_ends_its_process_ends_no_other(classifier_bundle, monkeypatch, boot, told):
    monkeypatch.setattr(isolated, "_BOOT", boot)
    monkeypatch.setattr(litert, "_patience_s", lambda *_: 0.5 if "sleep" in boot else 30.0)
    with open_model(classifier_bundle) as model:
        found = operators_of(model, runs=1)
        assert found.operators == ()
        assert told in found.note
        assert "\n" not in found.note
        model.infer()


def event(kind, name, start_us, elapsed_us, subgraph=0):
    return SimpleNamespace(
        kind=kind,
        tag=name.encode(),
        start_us=start_us,
        elapsed_us=elapsed_us,
        index=0,
        subgraph=subgraph,
    )


def test_litert_events_are_operators_and_kernels_and_not_what_is_around_them():
    events = [
        event(1, "LiteRT::Run[buffer registration]", 0, 14),
        event(1, "Invoke", 14, 900),
        event(8, "Convolution (NHWC, F32) IGEMM", 1 << 63, 600),  # XNNPACK tells no beginning
        event(2, "SOFTMAX", 700, 50),
        event(32, "Invoke", 0, 1 << 32),  # telemetry: no duration
    ]
    found = child.understood(events, wall_us=950)
    assert found.kernels == (("Convolution (NHWC, F32) IGEMM", 0.6), ("SOFTMAX", 0.05))
    assert found.infer_ms == 0.9


def test_what_runs_inside_a_loop_is_the_loops_time():
    events = [
        event(2, "ADD", 0, 10),
        event(2, "WHILE", 10, 500),
        event(2, "MUL", 20, 100, subgraph=2),
        event(8, "Fully Connected (NC, F32) GEMM", 0, 300),
        event(2, "RESHAPE", 510, 5),
        event(8, "Softmax (NC, F32)", 0, 7),
    ]
    found = child.understood(events, wall_us=600)
    assert [name for name, _ in found.kernels] == ["ADD", "WHILE", "RESHAPE", "Softmax (NC, F32)"]


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([event(7, "?", 0, 1)], "has the type 7"),
        ([event(8, "", 0, 1)], "'' took 1 of"),
        ([event(8, "Add (ND)", 0, 10**9)], "took 1000000000 of"),
        ([event(2, "ADD", 50, 1), event(2, "MUL", 10, 1)], "MUL began before"),
        ([event(8, "Add (ND)", 0, 900)] * 2, "2 operators took 1800 of 1000"),
        ([event(1, "Invoke", 0, 900)], "0 operators took 0 of 1000"),
    ],
)
def test_events_that_make_no_sense_are_not_believed(events, told):
    with pytest.raises(child.NotUnderstoodError, match=told):
        child.understood(events, wall_us=1000)


def test_what_whole_microseconds_cut_off_is_told_where_it_is_not_little():
    short = (litert._kernel("Add (ND)", 0.002), litert._kernel("Softmax (NC, F32)", 0.003))
    assert "the 2 operators may lack 1 µs of 5" in litert._rounding(short)
    assert litert._rounding((litert._kernel("Convolution (NHWC, F32) IGEMM", 1.0),)) == ""


def test_kernels_tell_their_kind_and_type():
    told = litert._kernel("Convolution (NHWC, QC8) DWConv", 1.0)
    assert (told.kind, told.dtype) == ("Convolution DW", "int8")
    told = litert._kernel("Fully Connected (NC, QS8, QC8W) GEMM", 1.0)
    assert (told.kind, told.dtype) == ("Fully Connected", "int8")
    assert litert._kernel("SOFTMAX", 1.0).kind == "SOFTMAX"
    assert litert._kernel("Add (ND)", 1.0).dtype == ""


def test_an_event_has_the_size_of_the_librarys():
    assert child.ctypes.sizeof(child._Event) == 104


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_onnx_engines_tell_their_layers_and_the_graph_fills_in_the_rest(
    opened, convolutions, backend
):
    pytest.importorskip(backend)
    cost = made_cost(
        ("first_out", "Conv", (1, 16, 32, 32), 1_179_648),
        ("clipped_out", "Relu", (1, 16, 32, 32), 0),
        ("second_out", "Conv", (1, 4, 32, 32), 589_824),
        ("pooled_out", "GlobalAveragePool", (1, 4, 1, 1), 0),
    )
    with opened(convolutions, backend) as model:
        found = operators_of(model, runs=6, cost=cost)
    by_layer = {operator.layer: operator for operator in found.operators if operator.layer}
    assert by_layer["first_out"].macs == 1_179_648
    assert by_layer["second_out"].macs == 589_824
    assert by_layer["first_out"].shape == (1, 16, 32, 32)
    assert by_layer["first_out"].dtype == "float32"
    assert by_layer["first_out"].gflops is None or by_layer["first_out"].gflops > 0
    assert found.infer_ms > 0
    assert found.runs == (3 if backend == "onnxruntime" else 6)
    assert model.backend.executes in found.source
    assert list(convolutions.parent.iterdir()) == [convolutions]  # the profile's file is gone


def test_onnx_runtimes_nodes_are_those_of_each_run():
    def of(name, ts, cat="Node", dur=1):
        return {"cat": cat, "name": name, "ts": ts, "dur": dur, "args": {}}

    events = [
        of("session_initialization", 0, "Session"),
        of("b_kernel_time", 13),
        of("a_kernel_time", 11),
        of("a_fence_before", 10),
        of("model_run", 10, "Session"),
        of("add_kernel_time", 23),
        of("loop_kernel_time", 21, dur=6),
        of("a_kernel_time", 27),
        of("model_run", 20, "Session"),
    ]
    runs = [(whole["ts"], [node["name"] for node in run]) for whole, run in nodes_by_run(events)]
    assert runs == [
        (10, ["a_kernel_time", "b_kernel_time"]),
        (20, ["loop_kernel_time", "a_kernel_time"]),
    ]


class TensorRT:
    """A stand-in for the backend: the real one needs a GPU."""

    threads, executes, outputs = 1, "TensorRT 10.3.0, stand-in", ()

    def run(self, outputs):
        pass

    def layer_times(self):
        return [("conv1 + relu1", 0.5), ("fc", 0.25)]


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_tensorrts_layers_are_found_by_the_names_that_they_were_fused_from(name):
    model = SimpleNamespace(backend=TensorRT(), backend_name=name)
    cost = made_cost(("conv1", "Conv", (1, 1), 10), ("relu1", "Relu", (1, 1), 0))
    found = operators_of(model, runs=2, cost=cost)
    conv, dense = found.operators
    assert (conv.ms, conv.layer, conv.kind, conv.macs) == (0.5, "conv1", "Conv", 10)
    assert (dense.ms, dense.layer, dense.kind, dense.macs) == (0.25, "", "", None)
    assert found.note.startswith("TensorRT stops after each layer")


@pytest.mark.parametrize("name", ["elsewhere", "_timing", "not-a-name", "os.path"])
def test_a_backend_that_nobody_can_time_gives_a_note(name):
    found = operators_of(SimpleNamespace(backend_name=name))
    assert found.operators == ()
    assert found.note == f"EdgeKit has no way to time the operators of the backend {name}."


def test_an_engine_that_refuses_gives_a_note():
    class Refusing(TensorRT):
        def layer_times(self):
            raise BackendError("TensorRT cannot time its layers: out of memory")

    found = operators_of(SimpleNamespace(backend=Refusing(), backend_name="tensorrt"), runs=1)
    assert found.operators == ()
    assert found.note.endswith("cannot time its layers: out of memory")


@pytest.mark.parametrize("asked", [{"duration_s": 0}, {"duration_s": 1e6}, {"runs": 0}])
def test_a_budget_that_makes_no_sense_is_refused(asked):
    with pytest.raises(UsageError, match="`duration_s` must be above 0 s and `runs` from 1"):
        operators_of(SimpleNamespace(backend_name="litert"), **asked)


def test_both_run_in_turns_after_the_warm_up():
    calls = []
    plain_ms, results = in_turns(
        lambda: calls.append("plain"),
        lambda: calls.append("profiled") or len(calls),
        Budget(runs=4, duration_s=1),
    )
    assert calls == ["plain", "profiled"] * 6
    assert results == [6, 8, 10, 12]
    assert len(plain_ms) == 4


def test_without_a_number_there_are_three_runs_at_least():
    _, results = in_turns(lambda: None, lambda: 1, Budget(runs=None, duration_s=1e-9))
    assert len(results) == 3


def test_means_are_of_the_faster_half_of_the_usual_runs():
    def of(infer_ms, a, b=2.0):
        return Run((("a", a), ("b", b)), infer_ms)

    runs = [of(4, 1.0), of(90, 50.0), of(5, 3.0), of(70, 9.0), Run((("a", 0.1),), 0.2)]
    assert mean_run(runs) == (Run((("a", 2.0), ("b", 2.0)), 4.5), 2)
    assert mean_of_faster_half([4.0, 2.0, 9.0]) == 3.0
