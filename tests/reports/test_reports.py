"""The report page: safe, self-contained, small, and whole with any values."""

import hashlib
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64encode
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.errors import MissingPackage, OutputError, UsageError
from edgekit.reports import (
    Bars,
    Curve,
    Curves,
    Ecdf,
    Fact,
    Fold,
    Histogram,
    Matrix,
    Panel,
    Picture,
    Pictures,
    Report,
    Roofline,
    RoofPoint,
    Section,
    Series,
    Spans,
    Spread,
    Spreads,
    Table,
    Text,
    Timeline,
    Trace,
    render,
    write,
)
from edgekit.reports.axis import axis, column, log_axis, number, rounded_axis
from edgekit.reports.confusion import Confusion
from edgekit.reports.plots import bin_values, thin
from edgekit.reports.svg import place_marks

pytest.importorskip("jinja2")

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c63600000000200014873c2160000000049454e44ae426082"
)
HOSTILE = "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(1)>{{ 7*7 }}"
VOID = {"meta", "img", "link", "br", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced; collects elements, their attributes and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words += data


def scripts_of(html: str) -> list[str]:
    return re.findall(r"<script>(.*?)</script>", html, re.DOTALL)


def report(*sections: Section, **changes: object) -> Report:
    start = Report(title="Latency", verdict="pass", verdict_text="Fine.", sections=sections)
    return msgspec.structs.replace(start, **changes)


def everything(word: str = "word") -> Report:
    return Report(
        title=word,
        subtitle=word,
        verdict="warn",
        verdict_text=word,
        reasons=(word,),
        facts=(Fact(word, word, word, word), Fact("share", 0.5)),
        sections=(
            Text(title=word, text=f"{word}\n\n{word}", note=word),
            Table(title=word, columns=(word, "n"), rows=[(word, 1.5), (None, 2)]),
            Fold(
                title=word,
                sections=[
                    Table(
                        columns=(word, "n"),
                        rows=[(word, number) for number in range(30)],
                        bars=("n",),
                        sorted_by="n",
                    )
                ],
            ),
            Histogram(
                title=word,
                values=[1.0, 2.0, 2.5],
                unit=word,
                marks={word: 2.0},
                intervals={word: (1.9, 2.2)},
            ),
            Ecdf(title=word, values=[1.0, 2.0, 2.5], unit=word, intervals=[(0.5, 1.5, 2.2)]),
            Spreads(title=word, spreads=[Spread(word, 1.0, 2.0, 3.0, (0.9, 1.1))], unit=word),
            Timeline(
                title=word,
                panels=[
                    Panel(word, word, [Trace(word, [0, 1, 2], [1, 2, 1])], is_dots=True),
                    Panel(word, word, [Trace(word, [0, 2], [n, 1]) for n in range(4)]),
                ],
                index=word,
                bands=[(0.5, 1.0)],
                marks={word: 1.5},
            ),
            Roofline(
                title=word,
                peak_gflops=60,
                bandwidth_gb_s=9,
                points=[RoofPoint(word, 4.0, 20.0, 0.7, True, word)],
            ),
            Bars(title=word, stages=[(word, 1.0), ("infer", 2.0)], unit=word),
            Series(title=word, values=[1.0, 2.0], unit=word, index=word),
            Curves(
                title=word,
                curves=[Curve(word, [0.0, 1.0], [0.5, 0.7]), Curve("", [0.0], [1.0], 2)],
                x_name=word,
                y_name=word,
                is_square=True,
            ),
            Spans(title=word, series=(word, "other"), rows=[(word, [(0.5, 0.4, 0.6), None])]),
            Matrix(title=word, labels=[word, "cat"], counts=[[9, 1], [2, 8]]),
            Matrix(title=word, labels=[word] * 20, counts=np.full((20, 20), 3).tolist()),
            Pictures(title=word, pictures=(Picture(PNG, word),)),
        ),
        reproduce=word,
        environment={word: word},
    )


def test_everything_is_shown_in_the_order_of_interest() -> None:
    html = render(everything("fjord"))
    page = Page(html)
    assert page.words.count("fjord") > 30
    places = [html.index(part) for part in ("<h1>", "Warning", 'class="facts"', "<svg", "<pre>")]
    assert places == sorted(places)
    assert html.count("<svg class=") == 10
    assert all(
        attrs.get("role") == "img" for tag, attrs in page.tags if "class" in attrs and tag == "svg"
    )


def test_hostile_text_is_inert_everywhere() -> None:
    html = render(everything(HOSTILE))
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"iframe", "object", "link", "base", "form"}
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert scripts_of(html) == scripts_of(render(everything("word")))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert page.words.count(HOSTILE) > 30
    assert "49" not in page.words


def test_the_policy_names_the_one_script_by_its_hash() -> None:
    html = render(everything(HOSTILE))
    (script,) = scripts_of(html)
    digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy


def test_a_page_without_a_long_table_has_no_script() -> None:
    html = render(report(Table(columns=("a",), rows=[("x",)] * 4)))
    assert scripts_of(html) == []
    assert "script-src" not in html


def test_nothing_is_loaded_from_anywhere() -> None:
    html = render(everything(HOSTILE))
    for _, attrs in Page(html).tags:
        for name in ("src", "href", "srcset", "data", "action", "xlink:href", "poster"):
            assert attrs.get(name, "data:image/png").startswith("data:image/")
        assert "url(" not in (attrs.get("style") or "")
    style = html[html.index("<style>") : html.index("</style>")]
    assert not re.search(r"https?:|url\(|@import", style)
    assert "default-src 'none'" in html


def test_every_plot_is_well_formed_xml_with_a_title() -> None:
    plots = re.findall(r"<figure>(<svg.*?)</figure>", render(everything(HOSTILE)), re.DOTALL)
    assert len(plots) == 10
    for plot in plots:
        assert ElementTree.fromstring(plot)[0].tag == "title"


@pytest.mark.parametrize("verdict", ["pass", "fail", "warn", "info"])
def test_a_verdict_is_a_word_and_not_only_a_colour(verdict: str) -> None:
    word = {"pass": "Pass", "fail": "Fail", "warn": "Warning", "info": "Info"}[verdict]
    assert f"<strong>{word}</strong>" in render(report(verdict=verdict))


def test_parts_that_are_empty_leave_no_trace() -> None:
    words = Page(render(report())).words
    assert "Reproduce" not in words
    assert "Environment" not in words
    assert "<section" not in render(report())


NAN, INF = math.nan, math.inf
VALUES = [
    [],
    [NAN, INF, -INF],
    [0.0],
    [5.0] * 100,
    [1.0, NAN, 3.0],
    [1e308, -1e308, 1e-308],
    [1e9 + 1e-6, 1e9],
    [-3.0, -1.0],
    [*[0.0] * 1000, 3.0],
    [5e-324, 0.0],
]


@pytest.mark.parametrize("values", VALUES)
def test_any_values_can_be_drawn(values: list[float]) -> None:
    html = render(
        report(
            Histogram(values=values, marks={str(i): value for i, value in enumerate(values[:9])}),
            Series(values=values),
            Ecdf(values=values),
            Spreads(spreads=[Spread("a", value, value, value) for value in values]),
            Timeline(panels=[Panel("a", "ms", [Trace("a", values, values)], is_dots=True)]),
            Timeline(panels=[Panel("a", "W", [Trace("a", values, values)])], marks={"x": 0.5}),
            Roofline(
                peak_gflops=values[0] if values else 0.0,
                bandwidth_gb_s=1.0,
                points=[RoofPoint("a", value, value, value, False) for value in values],
            ),
            Bars(stages=[(str(value), value) for value in values]),
            Table(columns=("x",), rows=[(value,) for value in values]),
            facts=tuple(Fact("x", value) for value in values),
        )
    )
    page = Page(html)
    drawn = [value for tag, attrs in page.tags if tag != "style" for value in attrs.values()]
    assert not [value for value in drawn if value and re.search(r"\b(nan|inf)\b", value)]


@pytest.mark.parametrize(
    "counts",
    [[], [[0]], [[NAN, 1], [INF, -2]], np.zeros((30, 30)).tolist(), np.eye(13).tolist()],
)
def test_any_matrix_can_be_drawn(counts: list[list[float]]) -> None:
    Page(render(report(Matrix(labels=["only one"], counts=counts))))


def test_an_empty_plot_says_so() -> None:
    words = Page(render(report(Histogram(values=[NAN, NAN])))).words
    assert "No values to draw." in words
    assert "2 values that are not finite are left out." in words


@pytest.mark.parametrize("values", [values for values in VALUES if np.isfinite(values).any()])
def test_bins_count_every_value_once(values: list[float]) -> None:
    numbers = np.array(values)
    numbers = np.clip(numbers[np.isfinite(numbers)], -1e100, 1e100)
    bins = bin_values(numbers)
    assert bins.counts.sum() == numbers.size
    assert 1 <= bins.counts.size <= 62
    assert (np.diff(bins.edges) > 0).all()


def test_a_far_outlier_does_not_stretch_the_axis_and_is_named() -> None:
    values = [*np.random.default_rng(0).normal(5, 0.1, 1000), 900.0]
    bins = bin_values(np.array(values))
    assert bins.edges[-1] < 7
    assert bins.counts.sum() == 1001
    words = Page(render(report(Histogram(values=values, unit="ms", marks={"max": 900.0})))).words
    assert "1 of 1,001 values lie above" in words
    assert "max 900 →" in words


def test_bars_of_a_histogram_add_up_in_the_page() -> None:
    values = np.random.default_rng(0).gamma(3, size=5000).tolist()
    html = render(report(Histogram(values=values)))
    counts = re.findall(r"<title>[^<]*: ([\d,]+)</title></rect>", html)
    assert sum(int(count.replace(",", "")) for count in counts) == 5000


def test_a_million_values_make_a_small_page() -> None:
    values = np.random.default_rng(0).normal(size=1_000_000).tolist()
    rows = [(i, float(i), "cell") for i in range(100_000)]
    matrix = np.random.default_rng(0).integers(0, 9, (1000, 1000)).tolist()
    labels = [f"class {i}" for i in range(1000)]
    html = render(
        report(
            Histogram(values=values),
            Series(values=values),
            Ecdf(values=values),
            Spreads(spreads=[Spread("a", 1.0, 2.0, 3.0)] * 5000),
            Timeline(panels=[Panel("a", "ms", [Trace("a", values, values)], is_dots=True)]),
            Timeline(panels=[Panel("a", "W", [Trace("a", values[:50_000], values[:50_000])])]),
            Roofline(
                peak_gflops=1.0,
                bandwidth_gb_s=1.0,
                points=[RoofPoint("a", 1.0, 0.5, 0.1, False)] * 5000,
            ),
            Bars(stages=[("op", 1.0)] * 5000),
            Table(columns=("i", "x", "word"), rows=rows),
            Matrix(labels=labels, counts=matrix),
            Pictures(pictures=(Picture(PNG + bytes(300_000), "big"),) * 9),
        )
    )
    assert len(html.encode()) < 2_000_000
    words = Page(html).words
    assert "99,500 more rows are left out." in words
    assert "6 more pictures are left out" in words
    assert "4960 more" in words
    assert "4,960 more rows are not drawn." in words
    assert "4,500 more operators are not drawn." in words


def test_thinning_keeps_the_extremes_and_the_gaps() -> None:
    values = np.zeros(100_000)
    values[777], values[50_001] = 9, -9
    values[60_000:70_000] = NAN
    positions, kept = thin(values.tolist())
    assert kept.size <= 1200
    assert {9.0, -9.0} <= set(kept)
    assert np.isnan(kept).any()
    assert (np.diff(positions) > 0).all()


def test_values_with_names_say_them_where_the_reader_points() -> None:
    values = [40.0, 30.0, -5.0]
    html = render(report(Series(values=values, unit="dB", names=["a", HOSTILE, "c"])))
    strips = [attrs for tag, attrs in Page(html).tags if attrs.get("class") == "strip"]
    assert [attrs["x"] for attrs in strips] == ["0.000%", "25.000%", "75.000%"]
    assert [attrs["width"] for attrs in strips] == ["25.000%", "50.000%", "25.000%"]
    assert "<title>c: −5\N{NO-BREAK SPACE}dB</title></rect>" in html


def test_a_mark_stands_at_its_value_of_a_series() -> None:
    html = render(report(Series(values=[1.0] * 5, marks={"first bad layer": 3.0})))
    (mark,) = [attrs for _, attrs in Page(html).tags if attrs.get("class") == "mark"]
    assert mark["x1"] == mark["x2"] == "75.000%"
    assert "first bad layer 3" in Page(html).words


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_far_value_of_a_series_is_drawn_whole_or_at_the_edge(is_whole: bool) -> None:
    random = np.random.default_rng(0)
    values = [*random.normal(35, 1, 170), -5.0]
    words = Page(render(report(Series(values=values, is_whole=is_whole)))).words
    assert ("drawn at the edge" in words) is not is_whole


def test_a_gap_lifts_the_pen() -> None:
    html = render(report(Series(values=[1.0, 2.0, NAN, 3.0])))
    curve = re.search(r' d="([^"]*)"', html)
    assert curve is not None
    assert curve[1].count("M") == 2


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 7), (3.61, 12.4), (0, 1e6), (1e-7, 3e-7), (5, 5), (1e9, 1e9 + 3)]
)
def test_ticks_are_round_distinct_and_inside(low: float, high: float) -> None:
    for made in (axis(low, high), rounded_axis(low, high)):
        ticks = made.ticks()
        assert 2 <= len(ticks) <= 8
        assert all(0 <= position <= 1 for position, _ in ticks)
        assert len({label for _, label in ticks}) == len(ticks)
        assert f"{made.step:.0e}"[0] in "125"


def test_labels_of_marks_do_not_overlap() -> None:
    marks = {"p50": 5.0, "p90": 5.1, "p95": 5.2, "p99": 9.0, "max": 9.1, "nan": NAN}
    placed = place_marks(marks, axis(0, 10))
    assert len(placed) == 5
    close = [row for position, _, row in placed if position < 0.6]
    assert len(set(close)) == len(close)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (0.012345, "0.01235"),
        (203.0, "203"),
        (1234567.8, "1,234,568"),
        (-2.5, "−2.5"),
        (-0.0, "0"),
        (1e-9, "1e-09"),
        (NAN, "–"),
        (None, "–"),
        (-INF, "−∞"),
        (True, "yes"),
        ("4 of 5", "4 of 5"),
    ],
)
def test_numbers_are_readable(value: object, text: str) -> None:
    assert number(value) == text


def test_columns_of_numbers_stand_right_with_their_points_aligned() -> None:
    assert column([0.0213, 4.2, None]) == (["0.021", "4.200", "–"], True)
    assert column([1.5, 120000.0, 0.00002])[0] == ["1.5", "120,000", "0.00002"]
    assert column(["a", 1]) == (["a", "1"], False)
    assert column([True, False])[1] is False
    html = render(report(Table(columns=("name", "ms"), rows=[("a", 1.0)])))
    assert '<td>a</td><td class="right">1.00</td>' in html


def test_a_table_without_rows_shows_its_head() -> None:
    assert "name" in Page(render(report(Table(columns=("name",), rows=[])))).words


def test_confusions_are_sorted_and_shared_by_true_class() -> None:
    confusion = Confusion.of(["cat", "dog"], [[6, 4], [1, 0]])
    assert confusion.most_frequent() == [("cat", "dog", 4, 40.0), ("dog", "cat", 1, 100.0)]
    assert [row["recall"] for row in confusion.cells()] == [60.0, 0.0]


def test_a_picture_of_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="must be an encoded PNG or JPEG"):
        render(report(Pictures(pictures=(Picture(b"<svg onload=alert(1)>", "x"),))))


def test_sections_survive_json() -> None:
    made = report(Text(text="a"), Bars(stages=[("infer", 1.0)]), Pictures(pictures=(Picture(PNG),)))
    again = msgspec.json.decode(msgspec.json.encode(made), type=Report)
    assert render(again) == render(made)


def test_writing_replaces_the_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write(report(title="name \udcff"), path)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "name ?" in path.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_does_not_exist_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write .*report.html") as caught:
        write(report(), tmp_path / "absent" / "report.html")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_is_an_output_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        write(report(), tmp_path / "report.html")
    tmp_path.chmod(0o700)


def test_a_failed_replacement_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.mkdir()
    with pytest.raises(OutputError):
        write(report(), path)
    assert list(tmp_path.iterdir()) == [path]


def test_without_jinja2_the_error_holds_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(MissingPackage, match=r"pip install 'edgekit\[report\]'"):
        render(report())


def plot_of(section: Section) -> ElementTree.Element:
    found = re.search(r"<figure>(<svg.*?</svg>)</figure>", render(report(section)), re.DOTALL)
    assert found is not None
    return ElementTree.fromstring(found[1])


def paths_of(plot: ElementTree.Element) -> list[tuple[str, str]]:
    svg = plot.find("svg")
    assert svg is not None
    return [(path.get("class", ""), path.get("d", "")) for path in svg]


def test_curves_share_axes_and_the_background_is_drawn_first() -> None:
    curves = [Curve("ours", [0.0, 1.0], [0.0, 10.0]), Curve("", [0.0, 2.0], [5.0, 5.0], 2)]
    plot = plot_of(Curves(curves=curves))
    (behind, level), (ours, rising) = paths_of(plot)
    assert (behind, ours) == ("curve behind", "curve")
    assert level == "M0.0 90.0L0.0 90.0L1000.0 90.0"
    assert rising == "M0.0 180.0L0.0 180.0L500.0 0.0"
    assert [text.text for text in plot.iter("text") if text.text == "ours"] == ["ours"]


def test_curves_of_many_points_stay_small_and_gaps_stay_gaps() -> None:
    x = np.linspace(0, 1, 100_000)
    y = np.where((x > 0.4) & (x < 0.6), np.nan, x)
    html = render(report(Curves(curves=[Curve("a", x.tolist(), y.tolist())], is_square=True)))
    assert len(html) < 40_000
    ((_, path),) = paths_of(plot_of(Curves(curves=[Curve("a", x.tolist(), y.tolist())])))
    assert path.count("M") == 2


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, -math.inf]])
def test_curves_without_a_value_say_so(values: list[float]) -> None:
    section = Curves(curves=[Curve("a", [0.0] * len(values), values)])
    assert "No values to draw." in render(report(section))


def test_spans_show_value_and_interval_of_each_series() -> None:
    rows = [("cat", [(0.5, 0.25, 0.75), None]), ("dog", [(2.0, math.nan, math.nan), (0.1, 0, 0.3)])]
    plot = plot_of(Spans(series=("ours", "theirs"), rows=rows))
    bars = [rect.get("width") for rect in plot.iter("rect") if "bar" in rect.get("class", "")]
    assert bars[2:] == ["50.000%", "100.000%", "10.000%"]  # after the two of the legend
    lines = [(line.get("x1"), line.get("x2")) for line in plot.iter("line")]
    assert lines[0] == ("25.000%", "75.000%")
    assert len(lines) == 6  # two intervals, each with two ends
    values = [text.text for text in plot.iter("text") if "value" in text.get("class", "")]
    assert values == ["50.0 % · –", "200.0 % · 10.0 %"]


def test_rows_beyond_forty_are_counted() -> None:
    rows = [(f"class {number}", [(0.5, 0.4, 0.6)]) for number in range(1000)]
    html = render(report(Spans(series=("ours",), rows=rows)))
    assert "960 more rows are not drawn." in html
    assert "No values to draw." in render(report(Spans(series=("ours",), rows=[])))


def test_the_tail_of_a_distribution_has_as_much_room_as_its_bulk() -> None:
    values = np.arange(1, 1000).tolist()
    plot = plot_of(Ecdf(values=values, unit="ms", intervals=[(0.9, 880.0, 920.0)]))
    labels = [text.text for text in plot.iter("text")]
    assert [label for label in labels if label and label.endswith(" %")] == [
        *("0 %", "50 %", "90 %", "99 %", "99.9 %")
    ]
    grid = [float(line.get("y1", "")) for line in plot.iter("line") if line.get("class") == "grid"]
    bottom, _, p90, p99, p999 = grid
    assert bottom - p90 == pytest.approx(p90 - p99) == pytest.approx(p99 - p999)
    whisker, *ends = (line for line in plot.iter("line") if line.get("class") == "whisker")
    assert float(whisker.get("y1", "")) == pytest.approx(p90)
    assert len(ends) == 2


def test_few_values_claim_no_rare_percentile() -> None:
    words = Page(render(report(Ecdf(values=[1.0] * 20, intervals=[(0.99, 1.0, 2.0)])))).words
    assert "90 %" in words
    assert "99 %" not in words
    assert 'class="whisker"' not in render(
        report(Ecdf(values=[1.0] * 20, intervals=[(0.99, 1.0, 2.0)]))
    )


def test_bands_and_marks_of_a_timeline_stand_at_their_times() -> None:
    panels = [
        Panel("latency", "ms", [Trace("a", [0, 5, 10], [1, 1, 2])], is_dots=True),
        Panel("clocks", "MHz", [Trace("cpu0", [0, 10], [2400, 1500])]),
        Panel("power", "W", [Trace("rail", [], [])]),
    ]
    plot = plot_of(Timeline(panels=panels, bands=[(5.0, 10.0)], marks={"throttling": 5.0}))
    (band,) = [rect for rect in plot.iter("rect") if rect.get("class") == "band"]
    assert (band.get("x"), band.get("width")) == ("50.000%", "50.000%")
    (mark,) = [line for line in plot.iter("line") if line.get("class") == "mark"]
    assert mark.get("x1") == "50.000%"
    # Both go through the panels that have values, from the first to the last.
    frames = plot.findall("svg")
    assert len(frames) == 2
    top, bottom = float(frames[0].get("y", "")), float(frames[1].get("y", "")) + 84
    assert float(band.get("y", "")) == top
    assert float(band.get("y", "")) + float(band.get("height", "")) == bottom
    assert float(mark.get("y2", "")) == bottom


def test_the_slowest_of_many_runs_are_among_the_dots() -> None:
    values = np.ones(65_536)
    values[40_000] = 1.5
    trace = Trace("latency", np.arange(65_536.0).tolist(), values.tolist())
    plot = plot_of(Timeline(panels=[Panel("latency", "ms", [trace], is_dots=True)]))
    (dots, middle) = paths_of(plot)
    assert dots[0] == "dots"
    assert 1500 <= dots[1].count("h0") <= 1600
    heights = {float(y) for y in re.findall(r" ([\d.]+)h0", dots[1])}
    assert len(heights) == 2
    assert {float(y) for y in re.findall(r" ([\d.]+)", middle[1])} == {max(heights)}


def test_a_roofline_meets_its_roof_at_the_ridge() -> None:
    points = [
        RoofPoint("conv", 60.0, 30.0, 0.8, False, "3"),
        RoofPoint("add", 0.6, 3.0, 0.2, True),
        RoofPoint("unknown", NAN, 3.0, 0.2, True),
    ]
    plot = plot_of(Roofline(peak_gflops=60.0, bandwidth_gb_s=10.0, points=points))
    slope, flat = (line for line in plot.iter("line") if line.get("class") == "roof")
    assert (slope.get("x2"), slope.get("y2")) == (flat.get("x1"), flat.get("y1"))
    assert flat.get("y1") == flat.get("y2")
    conv, add = plot.iter("circle")
    assert (conv.get("class"), add.get("class")) == ("point", "point memory")
    assert float(conv.get("r", "")) == 2 * float(add.get("r", ""))  # area by time
    assert float(conv.get("cy", "")) > float(flat.get("y1", ""))  # below the roof
    assert [text.text for text in plot.iter("text")].count("3") == 1


def test_a_spread_of_far_values_has_a_logarithmic_axis() -> None:
    rows = [Spread("a", 1.0, 2.0, 3.0, (0.9, 1.1)), Spread("b", 100.0, 200.0, 1000.0)]
    plot = plot_of(Spreads(spreads=rows, unit="ms"))
    first, second = (float((dot.get("cx") or "").rstrip("%")) for dot in plot.iter("circle"))
    assert second - first == pytest.approx(200 / 3, abs=0.1)
    assert len([rect for rect in plot.iter("rect") if rect.get("class") == "span"]) == 1


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (0.013, 9.0), (3.0, 4e7), (1e-80, 1e80)])
def test_logarithmic_ticks_are_inside_and_distinct(low: float, high: float) -> None:
    made = log_axis(low, high)
    assert made.low <= low * (1 + 1e-9)
    assert made.high >= high * (1 - 1e-9)
    ticks = made.ticks()
    assert 2 <= len(ticks) <= 10
    assert all(0 <= position <= 1 for position, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks)


def test_bars_of_a_column_are_relative_to_its_largest_number() -> None:
    table = Table(columns=("a", "b"), rows=[(4, 4), (1, -1), (None, 0)], bars=("a",))
    html = render(report(table))
    assert re.findall(r"--share:([\d.]+)%", html) == ["100.0", "25.0"]


def test_a_fold_is_closed_and_holds_its_sections() -> None:
    html = render(report(Fold(title="More", sections=[Text(title="Inside", text="words")])))
    page = Page(html)
    (details,) = [attrs for tag, attrs in page.tags if tag == "details"]
    assert "open" not in details
    inside = html[html.index("<details>") : html.index("</details>")]
    assert "<summary>More</summary>" in inside
    assert "Inside" in inside


def test_a_long_tail_gets_a_logarithmic_axis_and_no_value_is_lost() -> None:
    values = [*np.random.default_rng(0).normal(0.25, 0.01, 950).tolist(), *[8.0] * 50]
    html = render(report(Histogram(values=values, unit="ms", marks={"p99": 8.0})))
    counts = re.findall(r"<title>[^<]*: ([\d,]+)</title></rect>", html)
    assert sum(int(count.replace(",", "")) for count in counts) == 1000
    assert len(counts) > 3  # on a linear axis the first bar holds nearly all
    ticks = [text.text for text in plot_of(Histogram(values=values)).iter("text")]
    assert {"0.2", "0.5", "1", "2", "5", "10"} <= set(ticks)
