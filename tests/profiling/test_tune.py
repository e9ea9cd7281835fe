"""The fastest way to run a bundle is found, remembered, and forgotten when the machine changes."""

import json

import numpy as np
import pytest

from edgekit.bundle import read_bundle
from edgekit.cli import main
from edgekit.errors import EnvironmentLacks
from edgekit.profiling import tune as module
from edgekit.profiling.tune import Candidate, Measured, choose, contest, remembered, tune


class Virtual:
    """A contestant on a clock that only it moves."""

    now_s = 0.0

    def __init__(self, name, draw):
        self.name, self.executes, self._draw, self.runs = name, "virtual", draw, 0

    def run(self):
        self.runs += 1
        Virtual.now_s += self._draw()


def virtual_contest(times_s, noise, seed):
    random = np.random.default_rng(seed)
    contestants = [
        Virtual(Candidate(f"engine{i}", 1), lambda t=t: t * random.lognormal(0, noise))
        for i, t in enumerate(times_s)
    ]
    return contestants, contest(contestants, lambda *a: None, lambda: Virtual.now_s)


def test_what_is_chosen_is_within_five_percent_of_the_best():
    chosen = []
    for seed in range(60):
        times_s = np.random.default_rng(seed).uniform(0.01, 0.02, 6)
        _, measured = virtual_contest(times_s, 0.2, seed)
        number = int(choose(measured).backend.removeprefix("engine"))
        chosen.append(times_s[number] / times_s.min())
    assert np.quantile(chosen, 0.95) <= 1.05


def test_a_machine_whose_speed_jumps_does_not_decide():
    chosen = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        times_s = random.uniform(0.005, 0.01, 6)
        jumps_at_s, speed = Virtual.now_s, 1.0

        def draw(time_s, random=random):
            nonlocal jumps_at_s, speed
            if Virtual.now_s > jumps_at_s:
                jumps_at_s, speed = (
                    Virtual.now_s + random.exponential(0.5),
                    random.lognormal(0, 0.3),
                )
            return time_s * speed * random.lognormal(0, 0.2)

        contestants = [
            Virtual(Candidate(f"engine{i}", 1), lambda t=t, draw=draw: draw(t))
            for i, t in enumerate(times_s)
        ]
        measured = contest(contestants, lambda *a: None, lambda: Virtual.now_s)
        number = int(choose(measured).backend.removeprefix("engine"))
        chosen.append(times_s[number] / times_s.min())
    assert max(chosen) <= 1.05


def test_the_slow_ones_are_measured_less():
    contestants, measured = virtual_contest([0.01, 0.011, 0.05], 0.01, 0)
    assert [m.candidate.backend for m in measured] == ["engine0", "engine1", "engine2"]
    assert measured[2].blocks < measured[0].blocks == measured[1].blocks
    assert contestants[2].runs < contestants[0].runs


def test_of_equals_the_one_with_more_threads_is_not_measured_to_the_end():
    random = np.random.default_rng(0)
    contestants = [
        Virtual(Candidate("engine", threads), lambda: 0.01 * random.lognormal(0, 0.005))
        for threads in (2, 1)
    ]
    measured = contest(contestants, lambda *a: None, lambda: Virtual.now_s)
    assert choose(measured) == Candidate("engine", 1)
    assert measured[0].blocks < 12


def test_figures_of_who_dropped_out_are_of_the_same_speed_of_the_machine():
    fast, slow = Candidate("fast", 1), Candidate("slow", 1)

    def slower_from_the_start_on():
        return 1.0 if Virtual.now_s < 0.3 else 3.0

    Virtual.now_s = 0.0
    contestants = [
        Virtual(fast, lambda: 0.001 * slower_from_the_start_on()),
        Virtual(slow, lambda: 0.002 * slower_from_the_start_on()),
        Virtual(Candidate("as fast", 1), lambda: 0.00101 * slower_from_the_start_on()),
    ]
    measured = {
        m.candidate: m for m in contest(contestants, lambda *a: None, lambda: Virtual.now_s)
    }
    assert measured[slow].blocks < measured[fast].blocks
    assert measured[slow].p50_ms == pytest.approx(2 * measured[fast].p50_ms)


def test_of_equals_the_one_with_fewer_threads_is_chosen():
    measured = [
        Measured(Candidate("a", 4), "", 1.0, 12),
        Measured(Candidate("a", 2), "", 1.015, 12),
        Measured(Candidate("a", 1), "", 1.3, 12),
        Measured(Candidate("b", 1), "", 0.5, 4),  # dropped out: its first rounds mean little
    ]
    assert choose(measured) == Candidate("a", 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_is_remembered_for_this_model_on_this_machine(
    classifier_bundle, segmenter_bundle, cache, monkeypatch
):
    bundle = read_bundle(classifier_bundle)
    assert remembered(bundle) is None
    tuning = tune(bundle)
    assert remembered(bundle) == tuning.best
    assert remembered(read_bundle(segmenter_bundle)) is None
    monkeypatch.setattr(module, "environment", lambda: {"cpu": "another"})
    assert remembered(bundle) is None


def test_what_is_damaged_is_measured_again(classifier_bundle, cache):
    bundle = read_bundle(classifier_bundle)
    tune(bundle)
    (file,) = (cache / "tuned").iterdir()
    file.write_text('{"best": 3}')
    assert remembered(bundle) is None
    tune(bundle)
    assert remembered(bundle) is not None


def test_engines_of_another_precision_and_those_that_fail_are_named(classifier_bundle, cache):
    tuning = tune(read_bundle(classifier_bundle))
    assert "litert" in {m.candidate.backend for m in tuning.measured}
    assert "bfloat16" in tuning.left_out.get("openvino_bf16", "bfloat16")
    assert not {m.candidate.backend for m in tuning.measured} & set(tuning.left_out)


def test_no_engine_at_all(classifier_bundle, cache, monkeypatch):
    monkeypatch.setattr(module.plugins, "names", lambda kind: [])
    with pytest.raises(EnvironmentLacks, match="no backend can run"):
        tune(read_bundle(classifier_bundle))


def test_a_cache_that_cannot_be_written_is_told(classifier_bundle, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file"))
    assert main(["tune", str(classifier_bundle)]) == 3
    assert "EDGEKIT_CACHE" in capsys.readouterr().err


def test_it_is_kept_where_the_documents_say(classifier_bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    kept = module._file(read_bundle(classifier_bundle))
    assert kept.parent == tmp_path / ".cache/edgekit/engines/tuned"


def test_run_takes_what_was_found(classifier_bundle, cache, tmp_path, capsys):
    run = ["run", str(classifier_bundle), "--source", "test://64x48", "--max-frames", "3", "--auto"]
    out = tmp_path / "out.json"
    assert main([*run, "--json", str(out)]) == 0
    best = remembered(read_bundle(classifier_bundle))
    assert json.loads(out.read_text())["backend"] == best.backend
    assert f"{best.backend}, {best.threads} thread" in capsys.readouterr().err
    assert main([*run, "--backend", "litert"]) == 2
