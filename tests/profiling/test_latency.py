"""Profiling: what the figures are made of; no assertion is about seconds."""

import pytest

import edgekit
from edgekit.errors import UsageError
from edgekit.profiling.environment import environment


def test_a_profile_measures_as_many_runs_as_it_is_told(classifier_bundle):
    measured = edgekit.profile(classifier_bundle, runs=25, threads=[1, 2])
    assert [p.threads for p in measured.profiles] == [1, 2]
    for p in measured.profiles:
        assert p.runs == len(p.samples_ms) == 25
        assert 0 < p.latency_ms.p50 <= p.latency_ms.p90 <= p.latency_ms.p99 <= p.latency_ms.max
        assert set(p.stages_ms) == {"preprocess", "infer", "postprocess"}
        assert sum(stage.mean for stage in p.stages_ms.values()) == pytest.approx(
            p.latency_ms.mean, rel=1e-6
        )
        assert p.cpu_ms > 0
        assert p.peak_rss_mb > 1


def test_a_live_source_is_measured_as_long_as_asked(classifier_bundle):
    found = edgekit.profile(classifier_bundle, source="test://64x48@200", duration_s=0.3).profiles[
        0
    ]
    assert 1 <= found.runs <= 100  # 60 frames pass in that time
    assert "interrupted" not in found.drops  # the one in hand at the end was not too late


def test_a_profile_on_a_source_has_capture_and_sink_too(classifier_bundle, tmp_path):
    measured = edgekit.profile(
        classifier_bundle, source="test://64x48", sinks=[str(tmp_path / "a.jsonl")], runs=20
    )
    (only,) = measured.profiles
    assert set(only.stages_ms) == {"capture", "preprocess", "infer", "postprocess", "sink"}
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 20


def test_a_bundle_without_frames_is_profiled_on_its_tensors(make_bundle):
    measured = edgekit.profile(make_bundle(frames=False), runs=10)
    assert measured.profiles[0].runs == 10


def test_an_opened_model_is_profiled_as_it_is(classifier_bundle):
    with edgekit.open(classifier_bundle, threads=2) as model:
        told = []
        measured = edgekit.profile(model, runs=10, on_measured=told.append)
        assert measured.profiles[0].threads == 2
        assert told == [measured]
        with pytest.raises(UsageError, match="belong to opening"):
            edgekit.profile(model, threads=[1])


@pytest.mark.parametrize(
    "wrong", [{"duration_s": 0}, {"runs": 0}, {"sinks": ["a.jsonl"]}, {"duration_s": float("nan")}]
)
def test_settings_that_make_no_sense_are_refused(classifier_bundle, wrong):
    with pytest.raises(UsageError):
        edgekit.profile(classifier_bundle, **wrong)


def test_the_environment_names_machine_and_versions():
    found = environment()
    assert {"machine", "cpu", "cpus", "memory_gib", "system", "python", "numpy"} <= set(found)
    assert all(isinstance(value, str) and value for value in found.values())
