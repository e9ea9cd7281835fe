"""`docs/json.md` against what the program writes, in both directions."""

import json
import re
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.cli import main
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

DOCUMENT = Path(__file__).parent.parent / "docs" / "json.md"


def documented(verb):
    """Return the patterns of the keys in the verb's table."""
    section = re.search(rf"^## {verb}\n(.*?)(?=^## |\Z)", DOCUMENT.read_text(), re.M | re.S)[1]
    return re.findall(r"^\| `([^`]+)`", section, re.M)


def paths(value, prefix=""):
    """Yield the path of each leaf: a.b[].c."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from paths(part, f"{prefix}.{key}" if prefix else key)
    elif isinstance(value, list):
        for part in value:
            yield from paths(part, f"{prefix}[]")
    else:
        yield prefix


def check(verb, written, absent=()):
    """Hold that every leaf is documented, and that every documented key but `absent` is written."""
    patterns = {
        key: re.compile(re.escape(key).replace("NAME", r"[^.\[\]]+|.+?") + r"(\..*|\[\].*)?$")
        if key == "bundle" and verb == "inspect"
        else re.compile(
            ".".join(
                r"[A-Za-z0-9_.-]+?" if part == "NAME" else re.escape(part)
                for part in key.split(".")
            ).replace("?.", r"?\.")
            + "$"
        )
        for key in documented(verb)
    }
    leaves = list(paths(written))
    for leaf in leaves:
        assert any(p.match(leaf) for p in patterns.values()), f"{verb}: {leaf} is not documented"
    for key, pattern in patterns.items():
        if key not in absent:
            assert any(pattern.match(leaf) for leaf in leaves), f"{verb}: {key} is not written"


def run(tmp_path, *arguments):
    out = tmp_path / "out.json"
    assert main([str(a) for a in (*arguments, "--json", out)]) == 0
    return json.loads(out.read_text())


def test_run_and_its_sink(classifier_bundle, tmp_path):
    lines = tmp_path / "a.jsonl"
    source = ["--source", "test://64x48@200", "--every-nth", 2, "--max-frames", 5]
    written = run(tmp_path, "run", classifier_bundle, *source, "--sink", lines)
    check("run", written, ["adapted[]"])
    assert written["captured"] == written["frames"] + sum(written["drops"].values())
    first = json.loads(lines.read_text().splitlines()[0])
    assert list(first) == documented("sink")
    assert set(first["value"][0]) == {"index", "label", "score"}


def test_segmentation_lines(segmenter_bundle, tmp_path):
    lines = tmp_path / "a.jsonl"
    source = ["--source", "test://64x48", "--max-frames", 2, "--sink", lines]
    run(tmp_path, "run", segmenter_bundle, *source)
    value = json.loads(lines.read_text().splitlines()[0])["value"]
    assert list(value) == ["height", "width", "shares"]
    assert sum(value["shares"].values()) == pytest.approx(1, abs=1e-5)


def full_profile():
    """Return a profile that has a configuration with everything, and one with next to nothing."""
    times, ends = Summary(1, 2, 3, 4, 1.5), Interval(0.9, 1.1)
    bare = LatencyProfile(
        scenario="single-stream",
        backend="litert",
        executes="LiteRT",
        threads=1,
        precision="int8",
        latency_ms=times,
        intervals_ms=dict.fromkeys(("p50", "p90", "p99")),
        cpu_ms=1.0,
        throughput_fps=1.0,
        stages_ms={"infer": times},
        peak_rss_mb=1.0,
        runs=1,
        warm_up_runs=1,
        steady=True,
        pressure=Pressure(wall_s=1.0),
        energy=Energy(rail="VDD_IN", joules_per_inference=1.0, mean_power_w=1.0),
        memory=Memory(peak_rss_mb=1.0),
        cold_start=ColdStart(
            import_ms=1.0, open_ms=1.0, build_ms=None, first_ms=1.0, total_ms=3.0, processes=1
        ),
        operators=Operators(
            operators=(Operator(name="a", kind="b", ms=1.0, share=1.0),), note="why"
        ),
    )
    layer = LayerCost(
        name="a", kind="b", shape=(1,), dtype="int8", macs=1, parameters=1, read_bytes=1,
        written_bytes=1,
    )  # fmt: skip
    full = msgspec.structs.replace(
        bare,
        intervals_ms=dict.fromkeys(("p50", "p90", "p99"), ends),
        findings=(Finding(code="a", is_doubt=True, message="b", evidence={"c_ms": 1.0}),),
        blocks=(Block(latency_ms=times, runs=1, cpu_ms=1.0),),
        age_ms=times,
        drops={"late": 1},
        energy=None,
        memory=None,
        cold_start=msgspec.structs.replace(bare.cold_start, total_interval_ms=ends),
        operators=Operators(
            operators=(Operator(name="a", kind="b", ms=1.0, share=1.0, shape=(1,)),)
        ),
        roofline=Roofline(peak_gflops=1.0, bandwidth_gb_s=1.0, source="a probe"),
        telemetry=(
            Moment(
                at_s=0.0,
                power_mw={"a": 1.0},
                temperature_c={"a": 1.0},
                clocks_mhz={"a": 1.0},
                throttled=("hot",),
            ),
        ),
    )
    none = msgspec.structs.replace(bare, cold_start=None, operators=None)
    return Profile(
        bundle="a.edgekit",
        bundle_sha256="0",
        frames="golden",
        environment={"machine": "x86_64"},
        profiles=(bare, full, none),
        cost=Cost(
            parameters=1,
            macs=1,
            activations_bytes=1,
            size_bytes=1,
            layers=(layer,),
            notes=("why",),
        ),
        left_out={"openvino": "why"},
        conditions={"throttled": "no"},
    )


def test_profile(classifier_bundle, tmp_path):
    written = run(tmp_path, "profile", classifier_bundle, "--runs", 10)
    check("profile", written, documented("profile"))
    everything = json.loads(msgspec.json.encode(full_profile()))
    for entry in everything["profiles"]:
        for name in ("samples_ms", "starts_s", "stage_samples_ms"):
            del entry[name]
    check("profile", everything, ["cost"])


def test_tune(classifier_bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    written = run(tmp_path, "tune", classifier_bundle)
    check("tune", written, [] if written["left_out"] else ["left_out.NAME"])


def test_compare(classifier_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.profiling.compare.bundles._TOLD_WAIT", -1.0)
    both = [classifier_bundle, classifier_bundle, "--threads", 1, "--duration", 0.1]
    written = run(tmp_path, "compare", *both, "--fail-if", "p50>+900%")
    check("compare", written, ["notes[]"])


AGAINST = ("sign_test", "changed")
NO_INTERVAL = ("intervals.NAME", "classes[].intervals.NAME")


def test_evaluate(classifier_bundle, tmp_path):
    np.savez(tmp_path / "set.npz", x=np.zeros((3, 16, 16, 3), np.uint8), y=np.zeros(3, int))
    written = run(tmp_path, "evaluate", classifier_bundle, "--data", tmp_path / "set.npz")
    assert [written.pop(key) for key in AGAINST] == [None, None]
    absent = [key for key in documented("evaluate") if key.startswith(AGAINST)]
    check("evaluate", written, ["notes[]", *absent])


def test_evaluate_against_another_bundle(make_bundle, segmenter_bundle, tmp_path):
    """The float segmenter differs from its int8 twin on noise."""
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "set.npz", x=x, y=random.integers(0, 3, (4, 16, 16)))
    other = make_bundle(name="segmenter", precision="fp32")
    against = ["--data", tmp_path / "set.npz", "--against", other]
    written = run(tmp_path, "evaluate", segmenter_bundle, *against)
    assert written["changed"]["n"] > 0
    of_classes = [key for key in documented("evaluate") if key.startswith("calibration")]
    check("evaluate", written, ["notes[]", *NO_INTERVAL, *of_classes])
    names = [name for name in written["intervals"] if not name.startswith(("source_", "diff"))]
    assert names == ["pixel_accuracy", "mean_iou", "mean_dice"]
    for name in names:
        assert f"`{name}`" in DOCUMENT.read_text()
        difference = written["metrics"][name] - written["metrics"][f"source_{name}"]
        assert written["metrics"][f"difference_{name}"] == pytest.approx(difference)


def test_diagnose(classifier_bundle, tmp_path):
    colors = np.array([[0, 0, 255], [0, 255, 0], [255, 0, 0], [255, 255, 255]], np.uint8)
    y = np.arange(80) % 4
    x = np.broadcast_to(colors[y][:, None, None], (80, 16, 16, 3))  # BGR, where RGB is expected
    np.savez(tmp_path / "set.npz", x=x, y=y)
    out, data = tmp_path / "out.json", tmp_path / "set.npz"
    diagnose = ["diagnose", classifier_bundle, "--data", data, "--json", out]
    assert main([str(a) for a in diagnose]) == 1
    check("diagnose", json.loads(out.read_text()))


def test_inspect(classifier_bundle, tmp_path):
    of_onnx = [key for key in documented("inspect") if key.startswith("findings[]")]
    of_onnx.append("cost.notes[]")
    check("inspect", run(tmp_path, "inspect", classifier_bundle, "--layers"), of_onnx)
    model = classifier_bundle / "model.tflite"
    check("inspect", run(tmp_path, "inspect", model, "--layers"), of_onnx)


def test_inspect_of_onnx(tmp_path):
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")
    from onnx_graphs import GraphWriter

    graph = GraphWriter()
    onnx.save(graph.model(graph.qdq(graph.input(), zero=3)), tmp_path / "m.onnx")
    written = run(tmp_path, "inspect", tmp_path / "m.onnx", "--layers")
    assert {finding["rule"] for finding in written["findings"]} == {"zero-point"}
    check("inspect", written, ["findings", "cost.notes[]"])


def test_targets(tmp_path):
    check("targets", run(tmp_path, "targets"))


def test_targets_here(tmp_path):
    check("targets --here", run(tmp_path, "targets", "--here"), ["gpus[]"])


def test_doctor(tmp_path):
    written = run(tmp_path, "doctor")
    check("targets --here", written.pop("machine"), ["gpus[]"])
    check("doctor", written, ["machine"])


def test_build(bundle_of_onnx, tmp_path, monkeypatch):
    """With a stand-in for TensorRT-RTX: what it calls an engine runs nowhere."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install -e '.[lint]'")
    from onnx_graphs import GraphWriter
    from stand_in_tensorrt import stand_in

    monkeypatch.setitem(sys.modules, "tensorrt_rtx", stand_in("tensorrt_rtx", "1.7.1"))
    monkeypatch.setattr("edgekit.runtime.engines.gpu.first_gpu", lambda: None)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    graph = GraphWriter()
    onnx.save(graph.model(graph.op("Relu", graph.input())), tmp_path / "m.onnx")
    bundle = bundle_of_onnx(tmp_path / "m.onnx")
    check("build", run(tmp_path, "build", bundle, "--for", "rtx"))
    check("build --list", run(tmp_path, "build", "--list"))


def test_status_of_the_live_page():
    from edgekit.runtime.events import FrameDropped
    from edgekit.runtime.stream import Result
    from edgekit.runtime.web.board import Board
    from edgekit.runtime.web.telemetry import Telemetry
    from edgekit.targets.telemetry import Sample

    class Reader:
        name = "all"

        def read(self):
            return Sample(
                power_mw={"VDD_IN": 4800.0},
                temperature_c={"cpu": 50.0},
                clocks_mhz={"gpu": 900.0},
                throttled=("too warm",),
            )

    board = Board()
    board.result(Result(0, 0, 1.0, "x", np.zeros((2, 2, 3), np.uint8), {"infer": 1}))
    board.event(FrameDropped(1, "superseded"))
    check("status.json", {**board.status(), "telemetry": Telemetry([Reader()]).read()})


def test_pack_and_unpack(classifier_bundle, tmp_path):
    packed = tmp_path / "m.zip"
    check("pack", run(tmp_path, "pack", classifier_bundle, "-o", packed))
    check("unpack", run(tmp_path, "unpack", packed, "-o", tmp_path / "again.edgekit"))


@pytest.mark.convert
def test_convert_and_the_bundles_report(tmp_path):
    """The shipped model with eval data and a fallback-free int8: all keys but the fallbacks'."""
    import edgekit.demo
    from edgekit.demo.frames import make_set

    x, y = make_set(24, seed=5)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    written = run(
        tmp_path,
        "convert",
        Path(edgekit.demo.__file__).with_name("model.keras"),
        "-o",
        tmp_path / "m.edgekit",
        "--precision",
        "int8",
        "--data",
        tmp_path / "set.npz",
        "--eval-data",
        tmp_path / "set.npz",
    )
    report = json.loads((tmp_path / "m.edgekit" / "report.json").read_text())
    assert report.pop("failure") is None
    assert set(paths(report)) == set(paths(written))
    absent = ["fallbacks[].what", "fallbacks[].reason"]
    written["fallbacks"] or written.pop("fallbacks")
    # Tests of their own hold the keys of `layers` and `budget`.
    apart = ("layers", "budget", "drift")
    absent += [key for key in documented("convert") if key.startswith(apart)]
    for key in apart:
        written.pop(key)
    assert written["warnings"]  # no preprocess was given
    check("convert", written, absent)


@pytest.mark.convert
def test_qat(tmp_path):
    import edgekit.demo
    from edgekit.demo.frames import make_set

    x, y = make_set(40, seed=5)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    written = run(
        tmp_path,
        "qat",
        Path(edgekit.demo.__file__).with_name("model.keras"),
        "-o",
        tmp_path / "aware.keras",
        "--data",
        tmp_path / "set.npz",
        "--epochs",
        1,
    )
    assert written["notes"]  # no preprocess was given
    assert written["size_bytes"] == (tmp_path / "aware.keras").stat().st_size
    check("qat", written)
