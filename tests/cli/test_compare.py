"""`edgekit compare` on the command line: exit codes, refusals, what it writes, bad input."""

import json

import msgspec
import numpy as np
import pytest

from edgekit.cli import main
from edgekit.profiling.results import Block, Finding, LatencyProfile, Memory, Profile
from edgekit.runtime.statistics import Summary

QUICK = ["--duration", "0.1", "--threads", "1"]
DOUBT = Finding(code="drift", is_doubt=True, message="it drifts by 12 %; wait and profile again")


def summary(p50):
    return Summary(p50, 1.1 * p50, 1.3 * p50, 2 * p50, 1.05 * p50)


def measured(p50_ms=5.0, processes=5, **changes):
    """Return a configuration whose processes differ by about 0.5 %."""
    luck = 1 + 0.005 * np.linspace(-1, 1, processes)
    blocks = [
        Block(latency_ms=summary(p50_ms * f), runs=500, cpu_ms=p50_ms * f) for f in map(float, luck)
    ]
    plain = LatencyProfile(
        scenario="single-stream",
        backend="litert",
        executes="LiteRT",
        threads=1,
        precision="int8",
        latency_ms=summary(p50_ms),
        intervals_ms={},
        cpu_ms=p50_ms,
        throughput_fps=1000 / p50_ms,
        stages_ms={},
        peak_rss_mb=80.0,
        runs=500 * processes,
        warm_up_runs=30,
        steady=True,
        blocks=tuple(blocks),
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """Return a function that writes a profile, and work in its folder."""
    monkeypatch.chdir(tmp_path)

    def write(name, *profiles, **changes):
        profile = Profile(
            bundle=f"{name}.edgekit",
            bundle_sha256="0" * 64,
            frames="golden",
            input="a 16x16 picture (stretch)",
            environment={"cpu": "Virtual 3000", "edgekit": "0.1.0"},
            profiles=profiles or (measured(),),
        )
        profile = msgspec.structs.replace(profile, **changes)
        (tmp_path / f"{name}.json").write_bytes(msgspec.json.encode(profile))
        return f"{name}.json"

    return write


@pytest.fixture
def told(capsys):
    """Return a function that runs a line and gives exit code, standard output and error."""

    def run(*arguments):
        code = main(["compare", *map(str, arguments)])
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out, shown.err

    return run


def error_line(shown):
    """Return the one line that tells the error."""
    *_, last = shown.splitlines()
    assert last.startswith("edgekit: ")
    return last


def test_two_bundles_are_measured_in_turns(classifier_bundle, told, tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.profiling.compare.bundles._MEMORY_PROCESSES", 2)
    out, page, text = tmp_path / "out.json", tmp_path / "page.html", tmp_path / "text.md"
    written = ["--json", out, "--report", page, "--markdown", text, "--memory"]
    code, shown, _ = told(classifier_bundle, classifier_bundle, *QUICK, *written)
    assert code == 0
    assert "p50" in shown and "memory" in shown
    result = json.loads(out.read_text())
    (comparison,) = result["comparisons"]
    assert result["method"] == "in turns"
    assert comparison["a"]["threads"] == comparison["b"]["threads"] == 1
    figures = {figure["name"]: figure for figure in comparison["figures"]}
    assert len(figures["p50"]["each"]) == comparison["a"]["blocks"] == 8
    assert figures["memory"]["ratio"] == pytest.approx(1, abs=0.05)
    for figure in figures.values():
        assert figure["interval"]["low"] <= figure["ratio"] <= figure["interval"]["high"]
        assert figure["a"] > 0 and figure["b"] > 0
    assert "All runs" in page.read_text() and "openings" in page.read_text()
    assert "edgekit compare" in text.read_text() and "| p50 |" in text.read_text()


def test_one_bundle_run_in_two_ways(classifier_bundle, told, tmp_path):
    out = tmp_path / "out.json"
    code, _, _ = told(classifier_bundle, *QUICK, "--threads-b", 2, "--json", out)
    assert code == 0
    (comparison,) = json.loads(out.read_text())["comparisons"]
    assert (comparison["a"]["threads"], comparison["b"]["threads"]) == (1, 2)
    assert comparison["a"]["bundle"] == comparison["b"]["bundle"]


def test_a_bundle_of_another_precision_is_compared(classifier_bundle, make_bundle, told):
    code, shown, _ = told(classifier_bundle, make_bundle(precision="fp32"), *QUICK)
    assert code == 0 and "p50" in shown


def test_another_task_or_input_is_refused_without_force(
    classifier_bundle, segmenter_bundle, make_bundle, told, tmp_path
):
    code, _, shown = told(classifier_bundle, segmenter_bundle, *QUICK)
    assert code == 2
    assert "the task is classification in the one, segmentation in the other" in error_line(shown)
    letterbox = make_bundle(preprocess="raw,resize=letterbox")
    code, _, shown = told(classifier_bundle, letterbox, *QUICK)
    assert code == 2
    assert "16x16 picture (stretch)" in shown and "16x16 picture (letterbox)" in shown
    out = tmp_path / "out.json"
    code, _, shown = told(classifier_bundle, letterbox, *QUICK, "--force", "--json", out)
    assert code == 0
    assert "compared although" in json.loads(out.read_text())["notes"][0]


@pytest.mark.parametrize(
    "options, expected",
    [
        ([], "--backend-b NAME"),
        (["--threads-b", "0"], "at least 1; got 0"),
        (["--backend-b", "tpu"], "must be one of"),
        (["--threads-b", "2", "--duration", "0"], "above 0 s"),
        (["--threads-b", "2", "--duration", "nan"], "above 0 s"),
        (["--threads-b", "2", "--seed", "-1"], "seed"),
        (["--threads-b", "2", "--report", "no/page.html"], "its folder does not exist"),
        (["--threads-b", "2", "--json", "-", "--markdown", "-"], "both want standard output"),
        (["no.edgekit"], "no such bundle: no.edgekit"),
        (["no.json"], "two bundles NAME.edgekit or two files"),
        (["folder"], "folder is no bundle"),
    ],
    ids=str,
)
def test_wrong_use_is_told_before_anything_is_measured(
    options, expected, classifier_bundle, told, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    code, _, shown = told(classifier_bundle, *options)
    assert code == (3 if "no/page.html" in options else 2)
    assert expected in error_line(shown)


@pytest.mark.parametrize(
    "limit", ["p50", "p50>", "p50>5", "p51>+5%", "p50>-5%", "p50<5%", "p50>+nan%", "", "p50>+5%%"]
)
def test_a_limit_that_cannot_be_read_is_told_with_the_grammar(limit, saved, told):
    code, _, shown = told(saved("a"), saved("b"), "--fail-if", limit)
    assert code == 2
    assert "'p50>+5%': one of p50, p90, p99, mean, cpu, memory" in error_line(shown)


@pytest.mark.parametrize(
    "p50_ms, limits, expected, outcomes",
    [
        (5.0, ["p50>+5%"], 0, ["holds"]),
        (5.6, ["p50>+5%"], 1, ["fails"]),
        (5.6, ["p50 > 5 %", "mean>+20%"], 1, ["fails", "holds"]),
        (5.6, ["p90>+5%", "p99>+5%", "mean>+5%", "cpu>+5%"], 1, ["fails"] * 4),
        (5.25, ["p50>+5%"], 0, ["cannot tell"]),  # 5 % slower: its interval lies around the limit
        (4.0, ["p50>+0%"], 0, ["holds"]),
        (5.001, ["p50>+0%"], 0, ["cannot tell"]),
    ],
)
def test_a_limit_fails_only_where_the_interval_is_above_it(
    p50_ms, limits, expected, outcomes, saved, told, tmp_path
):
    options = [word for limit in limits for word in ("--fail-if", limit)]
    out = tmp_path / "out.json"
    code, _, shown = told(saved("a"), saved("b", measured(p50_ms)), *options, "--json", out)
    assert code == expected
    (comparison,) = json.loads(out.read_text())["comparisons"]
    assert [gate["outcome"] for gate in comparison["gates"]] == outcomes
    if code == 1:
        assert "p50>+5%" in shown or "p90>+5%" in shown
        assert "12.0 % slower" in error_line(shown)


def test_a_limit_on_memory_needs_memory(saved, told):
    lean, fat = (Memory(peak_rss_mb=mb) for mb in (80.0, 100.0))
    code, _, shown = told(saved("a"), saved("b"), "--fail-if", "memory>+5%")
    assert code == 2 and "edgekit profile --details" in error_line(shown)
    a, b = saved("a", measured(memory=lean)), saved("b", measured(memory=fat))
    code, _, shown = told(a, b, "--fail-if", "memory>+5%")
    assert code == 1 and "25.0 % more memory" in error_line(shown)
    assert told(a, b, "--fail-if", "memory>+30%")[0] == 0
    assert told(a, a, "--fail-if", "memory>+0%")[0] == 0


def test_a_limit_on_a_percentile_of_too_few_runs_cannot_tell(saved, told):
    blocks = tuple(Block(latency_ms=summary(5.0), runs=10, cpu_ms=5.0) for _ in range(3))
    few = saved("few", measured(blocks=blocks))
    code, _, shown = told(few, few, "--fail-if", "p99>+5%")
    assert code == 0
    assert "p99>+5% cannot tell" in shown


def test_saved_profiles_are_told_faster_and_slower(saved, told):
    slow, fast = saved("slow", measured(6.0)), saved("fast", measured(5.0))
    code, shown, _ = told(slow, fast)
    assert code == 0 and "B is 16.7 % faster at p50" in shown
    code, shown, _ = told(fast, slow)
    assert code == 0 and "B is 20.0 % slower at p50" in shown
    code, shown, _ = told(fast, fast)
    assert code == 0 and "cannot tell at p50" in shown


def test_configurations_are_matched_and_the_rest_is_named(saved, told, tmp_path):
    a = saved("a", measured(), measured(4.0, threads=2), measured(3.0, threads=4))
    b = saved("b", measured(8.0, threads=2), measured(), measured(threads=8))
    out = tmp_path / "out.json"
    code, _, shown = told(a, b, "--json", out)
    assert code == 0
    found = {c["a"]["threads"]: c for c in json.loads(out.read_text())["comparisons"]}
    assert {threads: c["figures"][0]["verdict"] for threads, c in found.items()} == {
        1: "cannot tell",
        2: "slower",
    }
    assert "threads 4 is in the first only" in shown
    assert "threads 8 is in the second only" in shown
    code, _, shown = told(a, saved("c", measured(threads=8), measured(threads=16)))
    assert code == 2 and "no configuration in common" in error_line(shown)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"frames": "a.mp4"}, "frames: 'golden' in the one, 'a.mp4' in the other"),
        ({"input": "1x40x3"}, "input: a 16x16 picture (stretch) in the one, 1x40x3 in the other"),
        ({"environment": {"cpu": "Other"}}, "cpu: Virtual 3000 in the one, Other in the other"),
        ({"environment": {}}, "cpu: Virtual 3000 in the one, nothing in the other"),
        (
            {"profiles": (measured(threads=2),)},
            "threads 1 in the one, single-stream litert threads",
        ),
        ({"profiles": (measured(backend="openvino"),)}, "openvino"),
        ({"profiles": (measured(scenario="paced", rate_hz=30.0),)}, "paced litert threads 1 30 Hz"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_must_be_the_same_is_refused_without_force(changes, expected, saved, told, tmp_path):
    a, b = saved("a"), saved("b", **changes)
    code, _, shown = told(a, b)
    assert code == 2
    assert expected in error_line(shown) and "--force" in shown
    out = tmp_path / "out.json"
    assert told(a, b, "--force", "--json", out)[0] == 0
    assert expected in " ".join(json.loads(out.read_text())["notes"])


def test_another_version_of_edgekit_is_what_is_compared(saved, told):
    newer = {"cpu": "Virtual 3000", "edgekit": "0.2.0"}
    assert told(saved("a"), saved("b", environment=newer))[0] == 0


def test_the_cpu_time_of_streams_is_of_a_frame(saved, told, tmp_path):
    a = saved("a", measured(scenario="multi-stream", streams=4))
    assert told(a, a, "--json", tmp_path / "out.json")[0] == 0
    figures = json.loads((tmp_path / "out.json").read_bytes())["comparisons"][0]["figures"]
    (cpu,) = (figure for figure in figures if figure["name"] == "cpu")
    assert cpu["a"] == pytest.approx(5.0 / 4, rel=0.01)


def test_a_profile_in_doubt_is_told(saved, told):
    code, _, shown = told(saved("a"), saved("b", measured(findings=(DOUBT,))))
    assert code == 0
    assert "b.json" in shown and "is in doubt: it drifts by 12 %" in shown
    code, shown, _ = told("a.json", "b.json", "--markdown", "-")
    assert "do not rely on it: a profile is in doubt" in shown
    assert "do not rely" not in told("a.json", "a.json")[1]


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_too_few_processes_are_refused_also_with_force(processes, saved, told):
    few = saved("few", measured(processes=processes))
    code, _, shown = told(saved("a"), few, "--force")
    assert code == 2
    assert f"measured in {processes} process" in error_line(shown)
    assert "edgekit profile --processes 5 --json" in shown


def test_three_processes_are_enough(saved, told):
    assert told(saved("a", measured(processes=3)), saved("b", measured(processes=3)))[0] == 0


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"", "is no saved profile"),
        (b"\xff\xfe\x00", "is no saved profile"),
        (b"{}", "is no saved profile"),
        (b"[" * 100_000, "is no saved profile"),
        (b'{"bundle": "x", "profiles": NaN}', "is no saved profile"),
        (b"PK\x03\x04", "is no saved profile"),
        ("no profiles", "holds no measured configuration"),
        ("zero", "must be above 1e-09"),
        ("negative", "must be above 1e-09"),
        ("null", "is no saved profile"),
        ("no runs", "a block of 0 runs"),
        ("huge", "and below 1e+12 ms"),
        ("no memory", "a peak of 0.0 MB of memory"),
        ("several", "holds profiles of 2 bundles"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_profile_is_one_line_and_2(content, expected, saved, told, tmp_path):
    good = saved("good")
    if isinstance(content, str):
        made = json.loads((tmp_path / good).read_bytes())
        block = made["profiles"][0]["blocks"][0]
        if content == "no profiles":
            made["profiles"] = []
        elif content == "no runs":
            block["runs"] = 0
        elif content == "no memory":
            made["profiles"][0]["memory"] = {"peak_rss_mb": 0}
        elif content == "several":
            made = {"bundles": [made, made]}
        else:
            values = {"zero": 0, "negative": -1.0, "null": None, "huge": 1e308}
            block["latency_ms"]["p90"] = values[content]
        content = json.dumps(made).encode()
    (tmp_path / "bad.json").write_bytes(content)
    for pair in (("good.json", "bad.json"), ("bad.json", "good.json")):
        code, _, shown = told(*pair)
        assert code == 2
        assert "bad.json" in error_line(shown) and expected in shown


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["good.json"], "give a second profile"),
        (["good.json", "no.json"], "cannot read profile no.json: No such file"),
        (["good.json", "good.json", "--threads", "2", "--memory"], "--threads, --memory: saved"),
        (["good.json", "good.json", "--json", "good.json"], "are both good.json"),
        (["good.json", "good.json", "--markdown", "good.json"], "are both good.json"),
    ],
    ids=str,
)
def test_wrong_use_of_saved_profiles(arguments, expected, saved, told):
    saved("good")
    code, _, shown = told(*arguments)
    assert code == 2
    assert expected in error_line(shown)


def test_the_markdown_summary_takes_standard_output_and_marks_nothing(saved, told):
    a = saved("a")
    b = saved("b", measured(5.6), bundle="b|<b>*x*`\n.edgekit")
    code, shown, _ = told(a, b, "--markdown", "-", "--fail-if", "p50>+5%")
    assert code == 1
    assert shown.startswith("### slower: b\\|\\<b\\>\\*x\\*\\` .edgekit\n")
    assert "**B is 12.0 % slower at p50" in shown
    assert "| p50 | 5 ms | 5.6 ms | +12.0 % |" in shown
    assert "- p50\\>+5% FAILS" in shown
    assert "edgekit compare a.json b.json --fail-if 'p50>+5%'" in shown


def test_the_line_of_the_summary_does_it_again_also_with_odd_names(saved, told):
    code, shown, _ = told(saved("a"), saved("two  spaces"), "--markdown", "-")
    assert code == 0
    assert "edgekit compare a.json 'two  spaces.json'\n" in shown


def test_the_page_of_saved_profiles(saved, told, tmp_path):
    code, _, _ = told(saved("a"), saved("b", measured(5.6)), "--report", tmp_path / "page.html")
    assert code == 0
    page = (tmp_path / "page.html").read_text()
    assert "B is 12.0 % slower at p50" in page and "Virtual 3000" in page
