"""One profile of several processes: each figure is of all of them, not of the first."""

import msgspec
import numpy as np
import pytest
from profiling.made_profiles import measured

from edgekit.profiling.latency_report import latency_sections
from edgekit.profiling.processes import merged
from edgekit.profiling.recording import MOST_KEPT
from edgekit.profiling.results import Block, Finding, Moment, Pressure
from edgekit.profiling.trace import _runs
from edgekit.reports import Timeline

FEW = Finding(code="few-runs", is_doubt=False, message="p99 has no interval")


def part(ms=5.0, **changes):
    """Return what one process measured: ten runs, one every 10 ms."""
    whole = measured(np.full(10, ms))
    plain = {
        "starts_s": tuple((np.arange(10) / 100).tolist()),
        "blocks": (Block(latency_ms=whole.latency_ms, runs=10, cpu_ms=1.0),),
        "findings": (),
        "telemetry": (),
    }
    return msgspec.structs.replace(whole, **{**plain, **changes})


def test_drops_are_those_of_all_processes():
    parts = [part(drops={"late": 2}), part(drops={"late": 3, "black": 1}), part()]
    assert merged(parts).drops == {"late": 5, "black": 1}


def test_what_the_machine_did_is_of_all_processes():
    stalled = Pressure(wall_s=1.0, cpu_stalled=0.4, involuntary_switches=10)
    quiet = Pressure(wall_s=3.0, cpu_stalled=0.0, involuntary_switches=1)
    found = merged([part(pressure=stalled), part(pressure=quiet), part(pressure=quiet)]).pressure
    assert found.wall_s == 7
    assert found.cpu_stalled == pytest.approx(0.4 / 7)
    assert found.involuntary_switches == 12
    assert found.stolen is None
    assert merged([part(), part(pressure=None), part()]).pressure is None


def test_energy_is_the_mean_of_all_runs():
    energy = part().energy
    more = msgspec.structs.replace(energy, joules_per_inference=2 * energy.joules_per_inference)
    found = merged([part(), part(energy=more), part(runs=20)]).energy
    assert found.joules_per_inference == pytest.approx(energy.joules_per_inference * 5 / 4)
    assert found.idle_power_w == energy.idle_power_w
    assert merged([part(), part(energy=None)]).energy is None


def test_telemetry_is_on_the_time_axis_of_the_runs():
    """A process rests before its first run: what was seen then is of no run."""
    moments = tuple(Moment(at_s=at_s, temperature_c={"soc": 50.0}) for at_s in (-1, 0.05, 0.2))
    found = merged([part(telemetry=moments)] * 3)
    assert [m.at_s for m in found.telemetry] == pytest.approx([0.05, 0.145, 0.24], abs=1e-5)


def test_no_run_overlaps_with_one_of_another_process():
    found = merged([part(ms) for ms in (1 / 3, 1 / 7, 0.1234567, 0.07)] * 5)
    assert {event["cat"] for event in _runs(found)} == {"runs"}


def test_a_doubt_of_one_process_is_a_doubt_of_all():
    doubt = msgspec.structs.replace(FEW, is_doubt=True, message="p90 has no interval")
    found = merged([part(findings=(FEW,)), part(findings=(doubt,)), part(findings=(FEW,))])
    assert [(f.is_doubt, f.message) for f in found.findings] == [
        (True, "in process 2 of 3: p90 has no interval")
    ]


def test_two_processes_have_no_interval_and_say_so():
    assert merged([part()] * 3).is_trusted
    (only,) = merged([part()] * 2).findings
    assert (only.code, only.is_doubt) == ("few-runs", True)


def test_marks_of_processes_that_kept_not_all_runs():
    kept = measured(np.full(MOST_KEPT // 2, 5.0))
    block = Block(latency_ms=kept.latency_ms, runs=MOST_KEPT, cpu_ms=1.0)
    found = merged([msgspec.structs.replace(kept, blocks=(block,), runs=MOST_KEPT)] * 3)
    (course,) = [s for s in latency_sections(found, "") if isinstance(s, Timeline)]
    second, third = course.marks.values()
    assert third == pytest.approx(2 * second)
    assert second == pytest.approx(found.starts_s[-1] / 3, rel=0.01)
