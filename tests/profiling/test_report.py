"""A profile's page and its Markdown: the verdict first, and a section only where there is data."""

import re
import shlex
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from profiling import made_profiles as made

import edgekit
from edgekit.profiling.markdown import profile_markdown
from edgekit.profiling.report import profile_report
from edgekit.profiling.results import Finding, Moment, Operators
from edgekit.profiling.wording import findings_lines, ms, quotable, reproduce_line
from edgekit.reports import Fold, Timeline, render
from edgekit.runtime.statistics import Interval

pytest.importorskip("jinja2")

HOSTILE = "\"'><script>alert(1)</script>|`x`\n# {{ 7*7 }}"
NAN, INF = float("nan"), float("inf")


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)


def titles(report):
    return [section.title for section in report.sections if section.title]


def test_a_trusted_figure_is_one_sentence_with_its_interval():
    report = profile_report(made.healthy())
    assert report.verdict == "pass"
    assert report.reasons == ()
    assert re.match(
        r"p50 5\.\d\d\sms \(95\s%: 5\.\d\d to 5\.\d\d\), p90 5\.\d\d\sms \(95\s%: ",
        report.verdict_text,
    )
    assert "litert, int8, 4 threads; single-stream; 3,000 runs" in report.verdict_text
    # What is no doubt is told all the same, further down.
    assert "Also to be known" in titles(report)


@pytest.mark.parametrize(
    ("name", "words"), [("throttled", "soft temperature limit"), ("bimodal", "two modes")]
)
def test_a_doubtful_figure_is_not_to_be_quoted_and_the_reason_says_what_to_do(name, words):
    report = profile_report(made.EVERY[name]())
    assert report.verdict == "warn"
    assert report.verdict_text.startswith("Do not quote this figure: p50 ")
    (reason,) = report.reasons
    assert words in reason
    assert reason[0].isupper()
    assert "`" not in reason
    assert reason.endswith(".")
    page = render(report)
    assert page.index("Do not quote") < page.index('class="reasons') < page.index('class="facts"')


def test_of_several_the_fastest_that_can_be_trusted_is_shown_and_the_doubtful_named():
    doubtful = made.measured(made.latencies(500, 2.0), threads=8, findings=(made.TWO_MODES,))
    trusted = made.measured(made.latencies(500, 4.0), threads=4, findings=())
    slow = made.measured(made.latencies(500, 9.0), threads=1, findings=())
    report = profile_report(made.of(slow, doubtful, trusted))
    assert report.verdict == "warn"
    assert "int8, 4 threads" in report.verdict_text
    assert report.verdict_text.endswith("Do not quote 1 of 3:")
    assert [reason[:28] for reason in report.reasons] == ["litert, int8, 8 threads: the"]
    assert titles(report)[0] == "Configurations"
    folds = [section for section in report.sections if isinstance(section, Fold)]
    assert [fold.title for fold in folds][:2] == [
        "Details: litert, int8, 1 thread",
        "Details: litert, int8, 8 threads",
    ]
    assert "--threads 4" in report.reproduce
    assert any("--threads 8" in getattr(s, "text", "") for s in folds[1].sections)


def test_where_all_are_doubtful_none_is_to_be_quoted():
    profiles = [made.measured(threads=n, findings=(made.TWO_MODES,)) for n in (1, 2)]
    report = profile_report(made.of(*profiles))
    assert report.verdict_text.startswith("Do not quote any of these figures.")
    assert len(report.reasons) == 2


def test_only_what_was_measured_has_a_section():
    report = profile_report(made.minimal())
    assert titles(report) == ["Where the time goes (mean)"]
    assert set(report.environment) == {"engine", "frames", "model's SHA-256"}
    assert titles(profile_report(made.healthy())) == [
        *("Also to be known", "Latency", "Over time", "Where the time goes (mean)"),
        *("Each process", "Operators", "Roofline of this machine", "Memory", "Energy"),
        *("Cold start", "The machine meanwhile", "Cost by the model's graph"),
        "Cost of each of 65 layers",
    ]


def test_a_finding_is_marked_when_it_began():
    profile = made.of(made.measured(findings=(made.LEVEL_SHIFT,), blocks=()))
    (course,) = [s for s in profile_report(profile).sections if isinstance(s, Timeline)]
    assert course.marks == {"level-shift from": 9.4}


def test_throttled_times_are_shaded_below_the_latency():
    report = profile_report(made.throttled())
    (course,) = [section for section in report.sections if isinstance(section, Timeline)]
    assert [panel.title for panel in course.panels] == ["latency", "clocks", "temperature", "power"]
    assert course.bands == [(9.5, 14.75)]
    assert "soft temperature limit" in course.note
    # Cores that run alike are one line.
    assert [trace.name for trace in course.panels[1].traces] == ["cpu0 … cpu3", "v3d"]


def test_of_several_processes_the_page_shows_when_each_began():
    report = profile_report(made.healthy())
    (course,) = [section for section in report.sections if isinstance(section, Timeline)]
    assert course.marks == {"process 2:": 5.0, "process 3:": 10.0}


def test_what_was_left_out_is_told_with_its_reason():
    profile = made.of(made.measured(), left_out={"tensorrt": "no GPU"})
    assert "tensorrt: no GPU" in render(profile_report(profile))
    assert "- left out: tensorrt: no GPU" in profile_markdown(profile)


def test_the_age_at_the_result_comes_first_for_a_camera():
    report = profile_report(made.camera())
    assert report.verdict_text.startswith("age at the result p50 ")
    assert report.facts[0].label == "age at the result"
    page = render(report)
    assert "12 superseded, 1 too old of 913 frames" in page
    assert report.reproduce.count("--source /dev/video0") == 1


def test_samples_without_times_are_drawn_by_their_number():
    profile = made.of(made.measured(starts_s=(), telemetry=()))
    report = profile_report(profile)
    assert not [section for section in report.sections if isinstance(section, Timeline)]
    assert titles(report).count("Over time") == 1


def test_operators_that_could_not_be_read_say_why():
    note = "libLiteRt.so 1.4.0 has no profiler: install ai-edge-litert 2.1 or newer"
    report = profile_report(made.of(made.measured(operators=Operators(note=note))))
    assert note in render(report)


@pytest.mark.parametrize("bad", [NAN, INF, 0.0, -1.0])
def test_numbers_that_make_no_sense_are_drawn_somehow(bad):
    whole = made.measured(samples_ms=[1.0] * 12)
    broken = msgspec.structs.replace(
        whole,
        operators=msgspec.structs.replace(
            whole.operators,
            operators=tuple(
                msgspec.structs.replace(one, ms=bad, share=bad, gflops=bad)
                for one in whole.operators.operators[:6]
            ),
            infer_ms=bad,
        ),
        roofline=msgspec.structs.replace(whole.roofline, peak_gflops=bad),
        energy=msgspec.structs.replace(whole.energy, mean_power_w=bad),
        cold_start=msgspec.structs.replace(whole.cold_start, total_ms=bad),
        intervals_ms={"p50": Interval(bad, bad), "p99": None},
        telemetry=(Moment(at_s=bad, clocks_mhz={"cpu0": bad}),),
        samples_ms=(bad, 1.0, 2.0),
        starts_s=(bad, 0.0, bad),
    )
    page = render(profile_report(made.of(broken)))
    assert not re.search(r'="[^"]*\b(nan|inf)\b', page[page.index("<body>") :])
    assert profile_markdown(made.of(broken))


def test_hostile_names_are_inert_in_page_and_markdown():
    one = made.operators(6).operators[0]
    operator = msgspec.structs.replace(one, name=HOSTILE, kind=HOSTILE, dtype=HOSTILE)
    finding = Finding(code=HOSTILE, is_doubt=True, message=HOSTILE, evidence={"from_s": 1.0})
    profile = made.of(
        made.measured(
            backend=HOSTILE,
            operators=Operators(operators=(operator,) * 6, source=HOSTILE, note=HOSTILE),
            findings=(finding,),
        ),
        bundle=HOSTILE,
        environment={HOSTILE: HOSTILE},
    )
    assert Tags(render(profile_report(profile))).found.count("script") == 1
    text, fence = profile_markdown(profile).split("```sh\n")
    assert "<script>" not in text.replace("\\<script\\>", "")
    assert len([line for line in text.splitlines() if line.startswith("#")]) == 1
    assert len(fence.rstrip("\n").splitlines()) == 2  # the command on one line, and the fence's end


def test_many_large_configurations_stay_below_two_megabytes():
    big = made.large().profiles[0]
    many = made.of(*(msgspec.structs.replace(big, threads=n) for n in range(1, 31)))
    page = render(profile_report(many))
    assert len(page.encode()) < 2_000_000
    assert "Details of 24 of them are left out" in page
    assert page.count("<summary>Details") == 5


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (5.1234, Interval(5.101, 5.149), "5.12 ms (95 %: 5.10 to 5.15)"),
        (5.3647, Interval(5.310, 5.428), "5.36 ms (95 %: 5.31 to 5.43)"),
        (291.3, Interval(286.0, 301.2), "291 ms (95 %: 286 to 301)"),
        (0.0521, Interval(0.0519, 0.0523), "0.0521 ms (95 %: 0.0519 to 0.0523)"),
        (1.0, Interval(1.0, 1.0), "1.00 ms (95 %: 1.00 to 1.00)"),
        (0.042, Interval(0.040, 4.1), "0.04 ms (95 %: 0.04 to 4.10)"),
        (24.19, None, "24 ms"),
        (1.0912, None, "1.09 ms"),
        (NAN, None, "nan ms"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_deserves(value, interval, text):
    assert ms(value, interval) == text


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"scenario": "multi-stream", "streams": 8}, "p50 5.11 ms (95 %: 5.10 to 5.13), p99"),
        ({"scenario": "offline"}, "193.9 frames/s, p50"),
        ({"scenario": "paced", "rate_hz": 30.0}, "p50 5.11 ms (95 %: 5.10 to 5.13), p99"),
        ({"scenario": "cold-start"}, "from nothing to the first result p50 5.11 ms (95 %"),
    ],
)
def test_each_scenario_quotes_its_own_figure(changes, start):
    profile = made.of(made.measured(**changes))
    sentence = quotable(profile, profile.profiles[0])
    assert sentence.startswith(start)
    assert changes["scenario"] in sentence


def test_a_cold_start_has_one_figure_and_not_that_of_the_details_too():
    report = profile_report(made.of(made.measured(scenario="cold-start")))
    assert "from the start of a process to its first result" in report.subtitle
    assert "Cold start" not in titles(report)
    assert not {fact.label for fact in report.facts} & {"cold start", "throughput", "CPU time"}


def test_the_command_measures_this_configuration_again():
    only = made.measured(scenario="paced", rate_hz=30.0, threads=2)
    profile = made.of(only, bundle="my models/a.edgekit")
    assert shlex.split(reproduce_line(profile, only)) == [
        *("edgekit", "profile", "my models/a.edgekit", "--scenario", "paced"),
        *("--backend", "litert", "--threads", "2", "--rate", "30"),
        *("--runs", "1000", "--processes", "3", "--details"),
    ]
    assert reproduce_line(msgspec.structs.replace(profile, frames="iterator"), only) == ""


def test_markdown_is_a_verdict_a_table_and_the_command():
    text = profile_markdown(made.three())
    lines = text.splitlines()
    assert lines[0] == "### Latency of mobilenet.edgekit"
    assert lines[2].startswith("**p50 5.11 ms (95 %: ")
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 3
    assert {line.count("|") for line in table} == {9}
    assert sum("doubt: two-modes" in line for line in table) == 1
    assert "- doubt: litert, int8, 2 threads: the latency has two modes" in text
    assert lines[-2].startswith("edgekit profile mobilenet.edgekit ")
    assert text.endswith("```\n")
    throttled = profile_markdown(made.throttled())
    assert "**Do not quote this figure (throttling):** p50 " in throttled


def test_findings_are_lines_with_the_doubts_first():
    profile = made.bimodal()
    first, second = findings_lines(profile)
    assert first.startswith("doubt: the latency has two modes")
    assert second == "note: p99 is 2.1 times p50: quote both"


def test_a_real_profile_has_a_page(classifier_bundle):
    measured = edgekit.profile(classifier_bundle, runs=30, threads=[1, 2])
    page = render(profile_report(measured))
    assert "litert, int8, 1 thread" in page
    assert "litert, int8, 2 threads" in page
    assert profile_markdown(measured).count("\n|") == 4
    assert np.isfinite([p.latency_ms.p50 for p in measured.profiles]).all()
