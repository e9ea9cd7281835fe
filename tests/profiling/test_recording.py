"""Recordings: bounded however long a measurement lasts, and nothing lost of what is summed."""

import csv

import numpy as np
import pytest

import edgekit
from edgekit.profiling.recording import Recording, Run, Until, kept_of, summary_of
from edgekit.profiling.samples import write_samples


def filled(latencies_ns, **options):
    recording = Recording(("infer",), **options)
    for number, latency_ns in enumerate(latencies_ns):
        recording.add(Run(number * 10_000_000, [latency_ns], latency_ns, cpu_ns=latency_ns // 2))
    return recording


def test_a_recording_gives_what_was_added():
    recording = filled([3_000_000, 1_000_000, 2_000_000])
    assert recording.latencies_ms.tolist() == [3, 1, 2]
    assert recording.starts_s.tolist() == [0, 0.01, 0.02]
    assert recording.cpu_ms.tolist() == [1.5, 0.5, 1]
    assert recording.cpu_mean_ms == pytest.approx(1)
    assert recording.latency_summary() == summary_of(np.array([3.0, 1.0, 2.0]))
    assert set(recording.stage_summaries()) == {"infer"}
    assert recording.ages_ms.size == 0


def test_of_runs_that_overlap_the_first_may_end_later():
    recording = Recording(("infer",))
    recording.add(Run(2_000_000, [1_000_000], 1_000_000))
    recording.add(Run(1_000_000, [9_000_000], 9_000_000))
    assert recording.starts_s.tolist() == [0.001, 0]
    assert recording.first_start_ns == 1_000_000


def test_a_long_recording_keeps_runs_of_its_whole_time_in_order():
    latencies_ns = np.random.default_rng(0).integers(1_000_000, 9_000_000, 10_000).tolist()
    recording = filled(latencies_ns, most_kept=64)
    kept = recording.latencies_ms
    assert recording.count == 10_000
    assert 32 <= len(kept) < 64
    # Evenly spread: each of every so many runs.
    distances = np.diff(recording.starts_s)
    assert np.ptp(distances) < 1e-9
    assert recording.starts_s[-1] > 0.9 * 10_000 * 0.01
    summary = recording.latency_summary()
    assert summary.max == max(latencies_ns) / 1e6
    assert summary.mean == pytest.approx(np.mean(latencies_ns) / 1e6)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 127, 128, 129, 5000])
def test_how_many_runs_are_kept_is_known_from_their_number(count):
    assert kept_of(count, 64) == len(filled([1] * count, most_kept=64).latencies_ms)


def test_times_of_the_gpus_own_clock_are_stages_too():
    recording = filled([3_000_000, 1_000_000])
    recording.add_gpu(gpu_compute=2.0, gpu_with_transfers=2.5)
    assert recording.stage_summaries()["gpu_with_transfers"].p50 == 2.5


@pytest.mark.parametrize(
    ("until", "count", "elapsed_s", "is_over"),
    [
        (Until(5, None), 4, 1e9, False),
        (Until(5, None), 5, 0, True),
        (Until(None, 2.0), 100, 1.9, False),
        (Until(None, 2.0), 100, 2.0, True),
        (Until(None, 2.0), 9, 60.0, False),  # a slow model is measured ten times at least
        (Until(50, 2.0), 9, 2.0, True),
    ],
)
def test_when_a_measurement_is_over(until, count, elapsed_s, is_over):
    assert until.is_over(filled([1] * count), int(1e9 * elapsed_s)) is is_over


def test_samples_are_a_line_a_run(classifier_bundle, tmp_path):
    measured = edgekit.profile(classifier_bundle, runs=12, threads=[1, 2])
    write_samples(measured, tmp_path / "samples.csv")
    lines = list(csv.DictReader((tmp_path / "samples.csv").read_text().splitlines()))
    assert len(lines) == 24
    assert [line["configuration"] for line in lines[::12]] == [
        "single-stream litert 1",
        "single-stream litert 2",
    ]
    for line in lines:
        stages_ms = sum(float(line[f"{s}_ms"]) for s in ("preprocess", "infer", "postprocess"))
        assert float(line["latency_ms"]) == pytest.approx(stages_ms)
