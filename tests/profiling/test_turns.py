"""What a run waited for a CPU is known, and taken off."""

from pathlib import Path

import pytest

from edgekit.profiling.turns import take_turn, waiting_clock

SCHEDSTAT, OPEN_FILES = Path("/proc/thread-self/schedstat"), Path("/proc/self/fd")


def test_a_wait_within_a_run_is_taken_off_and_one_beside_it_is_not():
    now_s = waited_s = 0.0
    waits = iter([0.0, 0.0, 0.5, 0.0, 5.0])

    def run():
        nonlocal now_s, waited_s
        wait_s = next(waits)
        now_s += 1.0 + (wait_s if wait_s < 1 else 0)
        waited_s += wait_s

    turn = take_turn(run, 3, 3.0, lambda: now_s, lambda: 0.0, lambda: waited_s)
    assert turn.times_s == [1.0, 1.0, 1.0]
    assert turn.waited_s == 0.5


def test_without_the_clock_of_waits_nothing_is_taken_off():
    now_s = 0.0

    def run():
        nonlocal now_s
        now_s += 1.0

    turn = take_turn(run, 2, 3.5, lambda: now_s, lambda: now_s)
    assert (turn.times_s, turn.cpu_s, turn.waited_s) == ([1.0] * 4, 4.0, None)


@pytest.mark.parametrize("content", [None, "", "words", "1 2", "a b c"])
def test_a_system_that_does_not_tell_is_none(content, tmp_path):
    if content is not None:
        (tmp_path / "schedstat").write_text(content)
    with waiting_clock(tmp_path / "schedstat") as waited:
        assert waited is None


def test_the_clock_is_in_seconds_and_its_file_is_closed(tmp_path):
    (tmp_path / "schedstat").write_text("123 1500000000 7\n")
    before = len(list(OPEN_FILES.iterdir()))
    with waiting_clock(tmp_path / "schedstat") as waited:
        assert waited() == 1.5
    assert len(list(OPEN_FILES.iterdir())) == before


@pytest.mark.skipif(not SCHEDSTAT.exists(), reason="this system does not tell what a thread waited")
def test_this_systems_clock_never_goes_back():
    with waiting_clock() as waited:
        assert waited is not None
        seen = [waited() for _ in range(100)]
    assert seen == sorted(seen) and seen[0] >= 0
