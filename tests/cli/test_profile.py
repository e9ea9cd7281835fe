"""`edgekit profile` on the command line: exit codes, files, and sweeps that are taken up again."""

import csv
import json
import os
import sys
from functools import partial
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.profiling import fresh, measurement, roofline
from edgekit.profiling.results import Finding


@pytest.fixture
def profiled(classifier_bundle, tmp_path):
    """Return a function that profiles the classifier and gives its exit code and JSON."""

    def profiled(*arguments):
        file = tmp_path / "out.json"
        arguments = [str(a) for a in arguments]
        code = main(["profile", str(classifier_bundle), *arguments, "--json", str(file)])
        return code, json.loads(file.read_text()) if file.exists() else None

    return profiled


@pytest.fixture
def quick_details(monkeypatch):
    """Measure fewer processes and shorter rooflines; both have tests of their own."""
    monkeypatch.setattr(fresh, "cold_start", partial(fresh.cold_start, processes=1))
    for name in ("_ENGINE_S", "_CACHE_S", "_MEMORY_S"):
        monkeypatch.setattr(roofline, name, 0)


def findings_are(monkeypatch, *findings):
    monkeypatch.setattr(measurement, "examine", lambda observed: findings)


def test_a_figure_that_does_not_deserve_trust_fails_only_if_asked(profiled, monkeypatch, capsys):
    doubt = Finding(code="drift", is_doubt=True, message="it became 12 % slower; wait")
    findings_are(monkeypatch, doubt)
    assert profiled("--runs", 10)[0] == 0
    assert "doubt: it became 12 % slower; wait" in capsys.readouterr().err
    code, written = profiled("--runs", 10, "--strict")
    assert code == 1
    assert "do not deserve trust: drift" in capsys.readouterr().err
    assert written["profiles"][0]["findings"][0]["code"] == "drift"  # written all the same


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(
    profiled, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, written = profiled("--runs", 10, "--report", tmp_path / "latency.html")
    assert (code, written) == (3, None)
    output = capsys.readouterr()
    assert "pip install 'edgekit[report]'" in output.err
    assert "p50" not in output.out


def test_what_is_only_told_does_not_fail(profiled, monkeypatch, capsys):
    findings_are(monkeypatch, Finding(code="heavy-tail", is_doubt=False, message="p99 is far"))
    assert profiled("--runs", 10, "--strict")[0] == 0
    assert "note: p99 is far" in capsys.readouterr().err


def test_a_sweep_goes_on_where_it_was_stopped(profiled):
    code, first = profiled("--runs", 10, "--threads", "1,2")
    assert code == 0
    code, second = profiled("--runs", 10, "--threads", "1,2,3", "--resume")
    assert code == 0
    assert [p["threads"] for p in second["profiles"]] == [1, 2, 3]
    assert second["profiles"][:2] == first["profiles"]  # to the last digit: not measured again


def test_a_sweep_is_written_after_each_configuration(profiled, tmp_path, monkeypatch):
    seen = []

    def examine(observed):
        file = tmp_path / "out.json"
        seen.append(len(json.loads(file.read_text())["profiles"]) if file.exists() else 0)
        return ()

    monkeypatch.setattr(measurement, "examine", examine)
    profiled("--runs", 10, "--threads", "1,2,3")
    assert seen == [0, 1, 2]


def test_what_is_not_enough_is_measured_again(profiled, quick_details):
    profiled("--runs", 10, "--threads", "1,2")
    _, more = profiled("--runs", 10, "--processes", 2, "--threads", 1, "--resume")
    blocks = {p["threads"]: len(p["blocks"]) for p in more["profiles"]}
    assert (blocks, len(more["profiles"])) == ({2: 1, 1: 2}, 2)
    _, details = profiled("--runs", 10, "--threads", 2, "--details", "--resume")
    assert {p["threads"]: p["operators"] is None for p in details["profiles"]} == {
        1: True,
        2: False,
    }
    _, same = profiled("--runs", 10, "--threads", 2, "--resume")
    assert same["profiles"] == details["profiles"]
    assert same["cost"] == details["cost"] is not None


def test_another_scenario_is_told_apart(profiled, tmp_path, capsys):
    profiled("--runs", 10)
    capsys.readouterr()
    samples = tmp_path / "runs.csv"
    profiled("--runs", 10, "--scenario", "paced", "--rate", 500, "--resume", "--samples", samples)
    shown = capsys.readouterr()
    assert "single-stream; paced at 500 Hz" in shown.out
    assert "litert, int8, 1 thread, paced at 500 Hz" in shown.out
    assert "litert, int8, 1 thread, single-stream" in shown.out
    assert "not of what was resumed: litert, int8, 1 thread" in " ".join(shown.err.split())


def test_figures_of_another_model_are_not_lost(profiled, segmenter_bundle, tmp_path, capsys):
    profiled("--runs", 10)
    file = tmp_path / "out.json"
    before = file.read_bytes()
    arguments = ["profile", str(segmenter_bundle), "--runs", "10", "--json", str(file)]
    assert main([*arguments, "--resume"]) == 2
    assert "figures of another model" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_what_was_measured_of_the_next_bundle_is_kept_meanwhile(
    classifier_bundle, segmenter_bundle, tmp_path, monkeypatch
):
    file = tmp_path / "out.json"
    both = [str(classifier_bundle), str(segmenter_bundle), "--runs", "10", "--json", str(file)]
    assert main(["profile", *both]) == 0
    calls = []

    def stopped(observed):
        calls.append(observed)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return ()

    monkeypatch.setattr(measurement, "examine", stopped)
    assert main(["profile", *both, "--threads", "2,3", "--resume"]) == 130
    kept = json.loads(file.read_text())["bundles"]
    assert [[p["threads"] for p in one["profiles"]] for one in kept] == [[1, 2], [1]]


def test_a_source_that_is_not_there_is_no_backends_fault(profiled, capsys):
    code, written = profiled("--threads", "1,2", "--source", "nothing.mp4")
    assert (code, written) == (2, None)
    assert "no such video: nothing.mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        ("{}", 2, "no JSON of edgekit profile"),
        ("[1]", 2, "no JSON of edgekit profile"),
        ("not JSON", 2, "no JSON of edgekit profile"),
        pytest.param("[" * 100_000, 2, "no JSON of edgekit profile", id="deep"),
        ('{"bundle": "\udcff"}', 2, "no JSON of edgekit profile"),
    ],
)
def test_what_is_no_profile_is_not_resumed(profiled, tmp_path, capsys, content, code, message):
    (tmp_path / "out.json").write_text(content, errors="surrogateescape")
    assert main(["profile", "x.edgekit", "--resume", "--json", str(tmp_path / "out.json")]) == code
    assert message in capsys.readouterr().err
    assert (tmp_path / "out.json").read_text(errors="surrogateescape") == content


def test_a_pipe_is_not_resumed(tmp_path, capsys):
    os.mkfifo(tmp_path / "out.json")  # to read it would wait for ever
    assert main(["profile", "x.edgekit", "--resume", "--json", str(tmp_path / "out.json")]) == 2
    assert "it is no file" in capsys.readouterr().err


def test_figures_of_another_input_are_not_mixed_in(profiled, tmp_path, capsys):
    """Of the same model's file in a bundle whose pictures are resized in another way."""
    _, written = profiled("--runs", 10)
    written["input"] = "a 16x16 picture (letterbox)"
    (tmp_path / "out.json").write_text(json.dumps(written))
    assert profiled("--runs", 10, "--resume")[0] == 2
    assert "another input: a 16x16 picture (letterbox), now" in capsys.readouterr().err


def test_figures_of_another_machine_are_not_mixed_in(profiled, tmp_path, capsys):
    _, written = profiled("--runs", 10)
    written["environment"]["cpu"] = "another"
    (tmp_path / "out.json").write_text(json.dumps(written))
    assert profiled("--runs", 10, "--resume")[0] == 2
    shown = capsys.readouterr().err
    assert "another environment" in shown
    assert "'cpu': 'another'" in shown


def test_several_bundles(classifier_bundle, segmenter_bundle, tmp_path, capsys):
    file = tmp_path / "out.json"
    both = [str(classifier_bundle), str(segmenter_bundle), "--runs", "10"]
    assert main(["profile", *both, "--json", str(file)]) == 0
    names = [Path(one["bundle"]).name for one in json.loads(file.read_text())["bundles"]]
    assert names == [classifier_bundle.name, segmenter_bundle.name]
    assert main(["profile", *both, "--report", str(tmp_path / "a.html")]) == 2
    assert "`report` takes one bundle" in capsys.readouterr().err


def test_files_beside_the_table(profiled, tmp_path, quick_details):
    out = {name: tmp_path / f"out.{name}" for name in ("csv", "md", "html", "trace")}
    places = ("--samples", out["csv"], "--markdown", out["md"], "--report", out["html"])
    assert profiled("--runs", 10, *places, "--trace", out["trace"])[0] == 0
    assert len(list(csv.reader(out["csv"].read_text().splitlines()))) == 11
    assert "p50" in out["md"].read_text()
    assert "p50" in out["html"].read_text()
    assert json.loads(out["trace"].read_text())["traceEvents"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk needs /dev/full")
def test_figures_are_there_though_a_page_cannot_be_written(classifier_bundle, capsysbinary):
    arguments = ["profile", str(classifier_bundle), "--runs", "10", "--json", "-"]
    assert main([*arguments, "--samples", "/dev/full"]) == 3
    assert json.loads(capsysbinary.readouterr().out)["profiles"]


def test_processes_are_blocks(profiled):
    _, written = profiled("--runs", 10, "--processes", 3)
    (only,) = written["profiles"]
    assert [block["runs"] for block in only["blocks"]] == [10, 10, 10]
    assert only["runs"] == 30
    blocks_ms = [block["latency_ms"]["p50"] for block in only["blocks"]]
    assert only["latency_ms"]["p50"] == pytest.approx(sum(blocks_ms) / 3)
    interval = only["intervals_ms"]["p50"]
    assert interval["low"] < only["latency_ms"]["p50"] < interval["high"]


def test_cold_starts(profiled):
    _, written = profiled("--scenario", "cold-start", "--runs", 2, "--details")
    (only,) = written["profiles"]
    assert only["runs"] == 2
    assert {"start", "import", "open", "first"} == set(only["stages_ms"])
    assert only["cold_start"] is None  # not measured twice
    assert only["cpu_ms"] > 10  # of the processes, which import an engine


@pytest.mark.parametrize("scenario", ["multi-stream", "offline", "paced"])
def test_each_scenario_is_written(profiled, scenario):
    code, written = profiled("--scenario", scenario, "--runs", 12, "--rate", 400)
    assert code == 0
    assert written["profiles"][0]["throughput_fps"] <= (400 if scenario == "paced" else 1e9)


def test_every_engine_that_can_run(profiled):
    code, written = profiled("--backend", "all", "--runs", 10)
    assert code == 0
    assert "litert" in {p["backend"] for p in written["profiles"]}
    assert written["left_out"].keys() & {"openvino_bf16"} or "openvino" not in written["left_out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "`threads`"),
        (["--threads", "1,x"], "`threads`"),
        (["--backend", "litert,nothing", "--runs", "10"], "nothing"),
        (["--resume"], "`resume` needs"),
        (["--markdown", "-"], "`markdown` needs"),
        (["--scenario", "server"], "`scenario`"),
        (["--rate", "0", "--scenario", "paced"], "`rate`"),
        (["--processes", "2", "--source", "test://64x48", "--sink", "a.jsonl"], "`sink`"),
        (["--threads", "1,2", "--source", "-"], "standard input is read once"),
        (["--source", "test://64x48", "--sink", "a.jsonl", "--json", "a.jsonl"], "named twice"),
        (["--source", "test://64x48", "--sink", "a.mp4", "--samples", "a.mp4"], "named twice"),
        (["--source", "test://64x48", "--sink", "-", "--json", "-"], "standard output"),
    ],
)
def test_wrong_use(classifier_bundle, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["profile", str(classifier_bundle), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
