"""Several cameras and one model: fair, and each alone with its faults."""

import numpy as np
import pytest
from faults.staged import FAULTS, Staged, World

from edgekit.errors import DataError, SourceError
from edgekit.runtime.events import SourceBack, SourceFailed, SourceLost

RATES_HZ = {"a": 15, "b": 30, "c": 30, "d": 60}


def gaps_s(run, name):
    stamps = [r.captured_ns for r in run.results if r.source == name]
    return np.diff(stamps) / 1e9


def count(run, name):
    return sum(r.source == name for r in run.results)


def test_four_cameras_get_the_same_share(clock):
    worlds = {name: World(clock, rate_hz=rate_hz) for name, rate_hz in RATES_HZ.items()}
    run = Staged(clock, worlds, model_s=0.02).run(for_s=60)
    shares = [count(run, name) / len(run.results) for name in worlds]
    assert shares == pytest.approx([0.25] * 4, rel=0.1)
    assert len(run.results) == pytest.approx(60 / 0.02, rel=0.02)


def test_a_camera_that_needs_less_than_its_share_leaves_the_rest_to_the_others(clock):
    worlds = {"slow": World(clock, rate_hz=2), "a": World(clock), "b": World(clock)}
    run = Staged(clock, worlds, model_s=0.04).run(for_s=60)
    assert count(run, "slow") == pytest.approx(120, abs=3)
    assert count(run, "a") == pytest.approx(count(run, "b"), rel=0.05)
    assert len(run.results) == pytest.approx(60 / 0.04, rel=0.02)


@pytest.mark.parametrize("fault", ["unplug", "stall", "hang", "corrupt"])
def test_a_camera_that_fails_and_returns_makes_no_gap_in_the_others(clock, fault):
    def run(faults):
        worlds = {name: World(clock, read_s=1.0) for name in "abcd"}
        worlds["b"].faults = faults
        return Staged(clock, worlds, model_s=0.01).run(for_s=24)

    whole, broken = run([]), run([(8, 6, fault)])
    for name in "acd":
        assert gaps_s(broken, name).max() <= 2 * np.percentile(gaps_s(whole, name), 99)
        assert count(broken, name) >= count(whole, name)
    assert count(broken, "b") == pytest.approx(0.75 * count(whole, "b"), rel=0.1)
    assert {e.source for e in broken.events if isinstance(e, SourceLost | SourceBack)} <= {"b"}


def test_each_camera_has_faults_of_its_own_for_ten_minutes(clock):
    worlds = {}
    for number, name in enumerate("abcd"):
        kinds = [FAULTS[(i + 3 * number) % len(FAULTS)] for i in range(85)]
        faults = [(7 * i + number, 1 + i % 4, kind) for i, kind in enumerate(kinds, 1)]
        worlds[name] = World(clock, faults, rate_hz=5)
    run = Staged(clock, worlds, model_s=0.07).run(for_s=600)
    assert min(count(run, name) for name in worlds) > 650
    assert clock.alive() == []


def test_a_camera_that_is_not_there_at_the_start_is_waited_for(clock):
    worlds = {"a": World(clock), "late": World(clock, [(0, 5, "unplug")])}
    run = Staged(clock, worlds).run(for_s=10)
    (lost,) = (e for e in run.events if isinstance(e, SourceLost))
    assert (lost.source, lost.detail) == ("late", "late is not there")
    assert count(run, "a") > 50
    assert 20 < count(run, "late") < count(run, "a")


def test_a_single_camera_that_is_not_there_is_an_error(clock):
    with pytest.raises(SourceError, match="cam is not there"):
        Staged(clock, {"cam": World(clock, [(0, 5, "unplug")])})


class Breaking:
    """A camera whose driver has a bug after `good` frames."""

    live, rate_hz = True, 30.0

    def __init__(self, camera, good=5):
        self.camera, self.good = camera, good
        self.description = camera.description

    def grab(self):
        self.good -= 1
        if self.good < 0:
            raise DataError("bug in the driver")
        return self.camera.grab()

    def retrieve(self):
        return self.camera.retrieve()

    def close(self):
        self.camera.close()


def test_an_error_that_no_reopening_mends_ends_that_camera_alone(clock):
    worlds = {"a": World(clock), "b": World(clock)}

    def opens(name):
        camera = worlds[name].open(name)
        return Breaking(camera) if name == "b" else camera

    run = Staged(clock, worlds, opens=opens, model_s=0.01).run(for_s=10)
    (failed,) = (e for e in run.events if isinstance(e, SourceFailed))
    assert (failed.source, failed.detail) == ("b", "bug in the driver")
    assert count(run, "b") == 5
    assert gaps_s(run, "a").max() < 0.04


def test_when_the_last_camera_fails_its_error_is_raised(clock):
    worlds = {"a": World(clock), "b": World(clock)}
    run = Staged(clock, worlds, opens=lambda name: Breaking(worlds[name].open(name)))
    with pytest.raises(DataError, match="bug in the driver"):
        run.run(for_s=10)
    assert run.kinds() == ["SourceFailed"]


def test_cameras_of_one_name_are_told_apart(clock):
    worlds = {"a": World(clock), "b": World(clock)}
    run = Staged(clock, worlds, opens=lambda name: worlds[name].open("twin")).run(for_s=2)
    assert {r.source for r in run.results} == {"twin #1", "twin #2"}
