"""Layer by layer: what is measured, and that damage done on purpose is found and named."""

import itertools
import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgekit.errors import DataError, ModelError, UsageError
from edgekit.evaluation.causes import BadLayer
from edgekit.evaluation.layer_meter import Grid, LayerMeter
from edgekit.evaluation.layers import compare_layers, pair_by_name
from edgekit.runtime.tflite import TensorDetail

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "tests" / "assets"
SEGMENTER = [
    (ASSETS / f"segmenter_{precision}.tflite").read_bytes() for precision in ("fp32", "int8")
]
GRID = Grid(scale=0.5, zero_point=-128, least=-128, most=127)


def pictures(n, seed=0):
    random = np.random.default_rng(seed)
    return [(random.uniform(0, 255, (1, 16, 16, 3)).astype(np.float32),) for _ in range(n)]


def measured(values, stored, grid=GRID, class_axis=None):
    meter = LayerMeter(grid, class_axis)
    meter.add(np.array(values, np.float32), np.array(stored, np.int8))
    return meter


def test_a_grid_is_that_of_the_tensor():
    grid = Grid.of(TensorDetail("t", (4,), "int8", (0.5,), (-128,)))
    assert (grid, grid.low, grid.high) == (GRID, 0, 127.5)
    assert Grid.of(TensorDetail("t", (4,), "float32")) is None


def test_only_values_beyond_the_grid_are_saturated():
    # 127.5 is the grid's end itself, and 127.7 rounds to it.
    meter = measured([[127.5, 127.7, 200.0, 3.0]], [[127, 127, 127, -122]])
    assert meter.saturated == 0.25
    assert meter.clipping == pytest.approx(72.5**2)
    assert meter.rounding == pytest.approx(0.2**2, rel=1e-3)


def test_unused_steps_are_those_outside_the_values():
    assert measured([[0.0, 31.5]], [[-128, -65]]).unused == pytest.approx(1 - 64 / 256)
    assert measured([[0.0, 127.5]], [[-128, 127]]).unused == 0
    assert measured([[0.0, 1.0]], [[0, 1]], grid=None).unused is None


def test_snr_and_cosine_are_those_of_all_samples_together():
    random = np.random.default_rng(0)
    meter = LayerMeter(GRID)
    real = random.uniform(0, 127, (5, 1, 6, 6, 4)).astype(np.float32)
    stored = random.integers(-128, 128, real.shape).astype(np.int8)
    for sample in range(5):
        meter.add(real[sample], stored[sample])
    found = (stored.astype(float) + 128) / 2
    wanted = 10 * np.log10((real.astype(float) ** 2).sum() / ((real - found) ** 2).sum())
    assert meter.snr_db == pytest.approx(wanted, abs=1e-3)
    cosine = (real * found).sum() / np.linalg.norm(real) / np.linalg.norm(found)
    assert meter.cosine == pytest.approx(cosine, abs=1e-4)
    assert meter.places == 5 * 36


def test_a_narrow_channel_that_is_lost_shows_in_the_channels_snr():
    real = np.zeros((1, 50, 4), np.float32)
    real[..., 0] = np.linspace(0, 127, 50)
    real[..., 1:] = 0.2  # less than half a step
    meter = measured(real, np.round(real / 0.5) - 128)
    assert meter.snr_db > 40
    assert meter.channel_snr_db == pytest.approx(0)
    assert meter.range_ratio == pytest.approx(127 / 0.2)


def test_ties_count_where_the_float_answer_shares_the_maximum():
    real = [[[1.0, 3.0, 3.2], [5.0, 1.0, 1.0], [2.0, 2.0, 1.0]]]
    tied = measured(
        real, [[[-126, -122, -122], [-118, -126, -126], [-124, -124, -126]]], class_axis=-1
    )
    assert (tied.tied, tied.answers) == (1, 2)  # the last place is a tie in float already
    assert measured(real, [[[-126, -122, -122]] * 3]).answers == 0


def test_the_same_model_twice_is_equal_everywhere():
    model = SEGMENTER[0]
    pairs = pair_by_name(model, model)
    comparison = compare_layers(model, model, pairs, pictures(2), class_axis=-1)
    assert comparison.n == 2
    assert comparison.first_bad is None
    assert [layer.operator for layer in comparison.layers][0] == "INPUT"
    assert len(comparison.layers) == len(pairs) + 1
    for layer in comparison.layers:
        assert (layer.snr_db, layer.dtype, layer.saturated) == (200, "float32", None)
        assert layer.cosine == pytest.approx(1)


def test_samples_are_taken_one_by_one():
    taken = []

    def samples():
        for sample in itertools.islice(itertools.cycle(pictures(1)), 5):
            taken.append(sample)
            yield sample

    assert compare_layers(*SEGMENTER, pair_by_name(*SEGMENTER), samples()).n == len(taken) == 5


@pytest.mark.parametrize(
    ("pairs", "samples", "error", "words"),
    [
        ([], [], DataError, "no samples"),
        (
            [],
            [(np.zeros((1, 2), np.float32),)],
            DataError,
            r"sample 1 .* takes \[\(1, 16, 16, 3\)\]",
        ),
        ([("conv", 900, 0)], pictures(1), UsageError, "layer conv is tensor 900 of shape None"),
        (
            [],
            [(np.full((1, 16, 16, 3), np.nan, np.float32),)],
            ModelError,
            "not finite on sample 0",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(pairs, samples, error, words):
    with pytest.raises(error, match=words):
        compare_layers(SEGMENTER[0], SEGMENTER[0], pairs, samples)


def test_the_documented_keys_are_those_written():
    comparison = compare_layers(*SEGMENTER, pair_by_name(*SEGMENTER), pictures(1))
    written = json.loads(msgspec.json.encode(comparison))
    text = (ROOT / "docs" / "json.md").read_text()
    documented = set(re.findall(r"^\| `layers\.([^`]+)`", text, re.M))
    rows = {f"layers[].{key}" for row in written["layers"] for key in row}
    bad = {f"first_bad.{field}" for field in BadLayer.__struct_fields__}
    assert documented == {"n", *rows, *bad}
