"""Layers in a report: the sentence, the plot's mark and the table agree with what was measured."""

import re

import msgspec
import pytest

pytest.importorskip("jinja2")

from edgekit.bundle import Parity, read_bundle
from edgekit.converters.convert import ConversionSummary
from edgekit.converters.layer_report import describe, layer_sections, layer_table, short_name
from edgekit.converters.report import conversion_report
from edgekit.evaluation.causes import BadLayer
from edgekit.evaluation.evaluate import Comparison
from edgekit.evaluation.layers import LayerComparison, LayerError
from edgekit.reports import Report, render


def comparison(n, bad=None):
    layers = tuple(
        LayerError(f"block_{i}", "CONV_2D", "int8", 40.0 - i / 10, 0.999, 0.0, 0.1, 2.0, None)
        for i in range(n)
    )
    return LayerComparison(16, layers, bad)


BAD = BadLayer(7, "block_7", "wide_channels", 14.2, "block_9", "Ranges differ 40-fold.")


def page(shown):
    sections = (*layer_sections(shown), layer_table(shown))
    return render(Report(title="t", verdict="info", verdict_text="v", sections=sections))


@pytest.mark.parametrize("n", [8, 65, 170])
def test_every_layer_is_in_the_plot_and_in_the_table(n):
    html = page(comparison(n, BAD))
    assert len(re.findall(r'class="strip"', html)) == n
    assert len(re.findall(r"<td>block_\d+</td>", html)) == n
    assert "first bad layer 7" in html
    assert len(html) < 200_000


def test_the_sentence_names_the_layer_the_cause_and_where_it_shows():
    text = describe(comparison(10, BAD))
    assert "block_7 (layer 7)" in text
    assert "very different range" in text
    assert "shows at block_9, where signal to noise falls by 14.2 dB" in text
    assert text.endswith("Ranges differ 40-fold.")


def test_a_conversions_report_holds_them(classifier_bundle):
    parity = Parity(20.0, 0.1, None, 3)
    summary = ConversionSummary(
        bundle="m.edgekit",
        format="litert",
        precision="int8",
        size_bytes=1000,
        seconds=1.0,
        peak_rss_mb=100.0,
        parity=parity,
        accuracy=None,
        fallbacks=(),
        warnings=(),
        notes=(),
        budget=None,
        failure=None,
        layers=comparison(10, BAD),
    )
    manifest = read_bundle(classifier_bundle).manifest
    html = render(conversion_report(manifest, summary, Comparison(parity, None), []))
    places = [html.index(h) for h in ("Where the error enters", "Inputs and outputs", "Layer by")]
    assert places == sorted(places)
    without = msgspec.structs.replace(summary, layers=None)
    report = conversion_report(manifest, without, Comparison(parity, None), [])
    assert "Where the error enters" not in render(report)


def test_without_a_bad_layer_nothing_is_marked():
    html = page(comparison(10))
    assert "No layer stands out" in html
    assert 'class="mark"' not in html


def test_an_input_without_error_does_not_dwarf_the_others():
    shown = comparison(3)
    equal = LayerError("picture", "INPUT", "int8", 200.0, 1.0, 0.0, 0.0, 1.0, None)
    html = page(LayerComparison(1, (equal, *shown.layers), None))
    assert "60\N{NO-BREAK SPACE}dB</title></rect>" in html
    assert ">200</text>" not in html


def test_long_names_keep_their_end():
    name = "functional_12/block_3/conv2d_3/BiasAdd;functional_12/block_3/conv2d_3/Conv2D"
    assert len(short_name(name)) == 28
    assert short_name(name).endswith("conv2d_3/BiasAdd")
    assert short_name("conv") == "conv"
