"""Parity: what the decibels, the difference and the agreement mean."""

import math

import numpy as np
import pytest

from edgekit.errors import CheckFailed
from edgekit.evaluation.parity import MOST_SNR_DB, ParityMeter, agreement
from edgekit.runtime.postprocess import ClassScore, SegmentationMap


def best(index):
    return (ClassScore(index, "", 1.0),)


def test_equal_outputs_have_the_largest_snr():
    meter = ParityMeter()
    output = np.ones((1, 4), np.float32)
    meter.add([output], [output], best(1), best(1))
    parity = meter.result()
    assert (parity.snr_db, parity.max_abs, parity.agreement, parity.n) == (MOST_SNR_DB, 0, 1, 1)


@pytest.mark.parametrize("wanted_db", [-10, 3, 40, 90])
def test_noise_of_a_known_power_gives_its_decibels(wanted_db):
    random = np.random.default_rng(0)
    meter = ParityMeter()
    for _ in range(200):
        signal = random.normal(size=(1, 100))
        noise = random.normal(scale=10 ** (-wanted_db / 20), size=(1, 100))
        meter.add([signal], [signal + noise], None, None)
    parity = meter.result()
    assert parity.snr_db == pytest.approx(wanted_db, abs=0.3)
    assert parity.agreement is None


def test_all_outputs_count():
    meter = ParityMeter()
    same = np.ones((1, 2))
    meter.add([same, same], [same, same + 1], best(0), best(3))
    parity = meter.result()
    assert parity.snr_db == pytest.approx(10 * math.log10(4 / 2))
    assert parity.max_abs == 1
    assert parity.agreement == 0


def test_agreement_of_class_maps_is_by_pixel():
    one = SegmentationMap(np.array([[0, 1], [2, 2]], np.uint8), ())
    other = SegmentationMap(np.array([[0, 1], [2, 1]], np.uint8), ())
    assert agreement(one, other) == 0.75


def test_numbers_have_no_agreement():
    assert agreement(np.zeros(3), np.zeros(3)) is None


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_what_is_no_number_is_never_near(bad):
    source, converted = np.ones((1, 4)), np.array([[1, 1, bad, 1]])
    with pytest.raises(CheckFailed, match="sample 0: output 0 .*float16 ends at 65,504"):
        ParityMeter().add([source], [converted], None, None)


def test_what_is_no_number_in_the_source_either_is_left_out():
    meter = ParityMeter()
    masked = np.array([[1, -math.inf]])
    meter.add([masked], [masked], None, None)
    assert meter.result().snr_db == MOST_SNR_DB and meter.result().max_abs == 0
