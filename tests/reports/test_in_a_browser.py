"""The page as a browser shows it: nothing loaded, nothing blocked, readable, sorted by a click."""

import itertools
import json
import time

import pytest
from browser import Browser
from profiling.made_profiles import EVERY, large

from edgekit.profiling.report import profile_report
from edgekit.reports import Report, Table, render

pytest.importorskip("jinja2")

PHONE_PX = 390
# Text against what lies behind it: WCAG 2.2, 1.4.3, over all elements that have text of their own.
CONTRAST = """
(() => {
  const channels = (text) => {
    const found = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    const [r, g, b, a = 1] = found;
    return [r * scale, g * scale, b * scale, a];
  };
  const over = (top, below) => below.map((c, i) => top[3] * top[i] + (1 - top[3]) * c);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map(
      (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const style = getComputedStyle(element);
    let color = over(channels(style.backgroundColor), behind(element.parentElement));
    const image = style.backgroundImage.match(/(rgba?|color)\\([^)]*\\)/);
    return image ? over(channels(image[0]), color) : color;
  };
  let worst = [99, ""];
  for (const element of document.body.querySelectorAll("*")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || ["TITLE", "SCRIPT", "title"].includes(element.tagName)) continue;
    const style = getComputedStyle(element);
    const text = element.tagName === "text" ? style.fill : style.color;
    const [a, b] = [behind(element), over(channels(text), behind(element))].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 90)];
  }
  return worst;
})()
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser"), PHONE_PX) as browser:
        yield browser


@pytest.fixture
def show(browser, tmp_path):
    """Open a page and return its address."""
    numbers = itertools.count()

    def show(html, width=PHONE_PX, *, dark=False):
        # A name of its own each, so that it cannot be taken for the page before.
        file = tmp_path / f"report{next(numbers)}.html"
        file.write_text(html, encoding="utf-8")
        browser.console.clear()
        browser.requests.clear()
        browser.show(width, dark=dark)
        browser.open(file.as_uri())
        there = f"location.href === {json.dumps(file.as_uri())}"
        browser.wait_for(f"{there} && document.readyState === 'complete'")
        return file.as_uri()

    return show


def column(browser, number):
    script = f"[...document.querySelectorAll('tbody tr')].map(r => r.cells[{number}].textContent)"
    return browser.evaluate(script)


@pytest.mark.parametrize("name", [*EVERY, "large"])
def test_the_page_is_readable_on_a_phone_and_quiet(browser, show, name):
    profile = (EVERY | {"large": large})[name]()
    html = render(profile_report(profile))
    assert len(html.encode()) < 2_000_000
    for dark in (False, True):
        address = show(html, dark=dark)
        browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert browser.evaluate("document.documentElement.scrollWidth") == PHONE_PX
        ratio, element = browser.evaluate(CONTRAST)
        assert ratio >= 4.5, f"{ratio:.2f} in {'dark' if dark else 'light'}: {element}"
        assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
        assert browser.console == []
        assert set(browser.requests) == {address}


def test_a_click_on_a_head_sorts_and_on_it_again_turns_round(browser, show):
    rows = [("conv", 2.5), ("add", None), ("pool", 10.0), ("dense", -3.0), ("relu", 1234.5)]
    table = Table(columns=("operator", "ms"), rows=rows)
    show(render(Report(title="Sorting", verdict="info", verdict_text="", sections=(table,))))
    sorts = "[...document.querySelectorAll('th')].map(h => h.getAttribute('aria-sort'))"
    click = "document.querySelectorAll('th button')[{}].click()"
    assert browser.evaluate(sorts) == [None, None]
    browser.evaluate(click.format(1))
    assert column(browser, 0) == ["relu", "pool", "conv", "dense", "add"]
    assert browser.evaluate(sorts) == [None, "descending"]
    browser.evaluate(click.format(1))
    assert column(browser, 0) == ["dense", "conv", "pool", "relu", "add"]
    assert browser.evaluate(sorts) == [None, "ascending"]
    browser.evaluate(click.format(0))
    assert column(browser, 0) == ["add", "conv", "dense", "pool", "relu"]
    assert browser.evaluate(sorts) == ["ascending", None]


def test_the_operators_are_sorted_by_time_and_by_keyboard(browser, show):
    show(render(profile_report(EVERY["healthy"]())), 1200)
    find = "[...document.querySelectorAll('th')].find(h => h.textContent === 'GFLOP/s')"
    assert browser.evaluate("document.querySelector('th[aria-sort]').textContent") == "ms"
    place = browser.evaluate(f"{find}.cellIndex")
    browser.evaluate(f"{find}.firstElementChild.focus()")
    browser.press("Enter", 13)
    assert browser.evaluate(f"{find}.getAttribute('aria-sort')") == "descending"
    table = f"[...{find}.closest('table').tBodies[0].rows].map(r => r.cells[{place}].textContent)"
    shown = browser.evaluate(table)
    known = [float(text) for text in shown if text != "–"]
    assert len(known) > 40
    assert known == sorted(known, reverse=True)
    assert set(shown[len(known) :]) == {"–"}


def test_no_other_script_runs(browser, show):
    html = render(profile_report(EVERY["healthy"]()))
    show(html.replace("</body>", "<script>document.title = 'owned'</script></body>"))
    assert browser.evaluate("document.title") == "Latency of mobilenet.edgekit"
    end_s = time.monotonic() + 30
    while not any("Content Security Policy" in line for line in browser.console):
        assert time.monotonic() < end_s, browser.console
        browser.evaluate("1")  # messages are read with answers


def test_without_its_script_the_table_is_whole(browser, show):
    html = render(profile_report(EVERY["healthy"]()))
    show(html.replace('"use strict";', '"use strict"; // not what the hash is of'))
    assert browser.evaluate("document.querySelectorAll('th button').length") == 0
    assert browser.evaluate("document.querySelectorAll('.sortable tbody tr').length") >= 65
