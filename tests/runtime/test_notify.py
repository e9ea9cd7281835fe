"""What systemd hears, on a socket of ours."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faults.staged import Staged, World
from faults.virtual_time import VirtualClock

from edgekit.errors import EnvironmentLacks, OutputError
from edgekit.runtime.notify import Watchdog

UNIT = Path(__file__).parents[2] / "examples" / "edgekit.service"


@pytest.fixture
def clock():
    clock = VirtualClock()
    yield clock
    clock.end()


@pytest.fixture
def systemd(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(30)
        yield heard


def environment(tmp_path, **more):
    return {"NOTIFY_SOCKET": str(tmp_path / "notify"), **more}


def take(systemd):
    systemd.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return messages


def run_with(watchdog, clock, systemd, world, for_s):
    """Return (seconds since the start, message) of all that was told."""
    told = []
    run = Staged(clock, {"cam": world})
    check = run.check

    def check_and_tell(until_ns):
        check(until_ns)
        watchdog.turn(run.inlets)
        told.extend((world.now_s(), message) for message in take(systemd))

    run.check = check_and_tell
    run.run(for_s=for_s)
    watchdog.close()
    return told + [(world.now_s(), message) for message in take(systemd)]


def beats(told):
    return [at_s for at_s, message in told if message == "WATCHDOG=1"]


def test_ready_alive_and_stopping_are_told(clock, systemd, tmp_path):
    watchdog = Watchdog(environment(tmp_path, WATCHDOG_USEC="10000000"))
    told = run_with(watchdog, clock, systemd, World(clock), 61)
    messages = [message for _, message in told]
    assert messages[0] == "READY=1"
    assert messages[-1] == "STOPPING=1"
    assert re.fullmatch(r"STATUS=cam live, \d+ results", messages[1])
    assert messages.count("READY=1") == messages.count("STOPPING=1") == 1
    assert len(beats(told)) == pytest.approx(61 / 5, abs=2)


@pytest.mark.parametrize(("fault", "goes_on"), [("unplug", True), ("hang", False)])
def test_a_camera_that_is_away_is_alive_and_a_driver_that_hangs_is_not(
    clock, systemd, tmp_path, fault, goes_on
):
    watchdog = Watchdog(environment(tmp_path, WATCHDOG_USEC="10000000"))
    told = run_with(watchdog, clock, systemd, World(clock, [(10, 60, fault)]), 120)
    in_fault = [at_s for at_s in beats(told) if 16 < at_s < 70]
    assert bool(in_fault) == goes_on
    assert any(at_s > 71 for at_s in beats(told))
    assert any("reconnecting" in message for _, message in told) == goes_on


def test_without_a_time_only_the_state_is_told(clock, systemd, tmp_path):
    for more in ({}, {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}):
        told = run_with(Watchdog(environment(tmp_path, **more)), clock, systemd, World(clock), 5)
        assert beats(told) == []
        assert told[0][1] == "READY=1"


def test_an_abstract_socket_is_found(clock):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        name = f"edgekit-test-{os.getpid()}"
        heard.bind("\0" + name)
        Watchdog({"NOTIFY_SOCKET": "@" + name}).close()
        assert heard.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("value", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_systemd_it_is_told_what_to_do(value):
    with pytest.raises(EnvironmentLacks, match="Type=notify"):
        Watchdog(value)


def test_a_socket_that_is_gone_is_one_message(tmp_path):
    with pytest.raises(OutputError, match="cannot tell systemd 'STOPPING=1'"):
        Watchdog(environment(tmp_path)).close()


def test_the_command_tells_systemd(classifier_bundle, systemd, tmp_path):
    command = [sys.executable, "-m", "edgekit", "run", str(classifier_bundle), "--watchdog"]
    told = {**os.environ, **environment(tmp_path, WATCHDOG_USEC="20000000")}
    with subprocess.Popen(
        [*command, "--source", "test://64x48@50", "--sink", "-"],
        env=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline().startswith('{"frame_id":')
        assert systemd.recv(4096) == b"READY=1"
        assert systemd.recv(4096).startswith(b"STATUS=test://64x48@50 live")
        assert systemd.recv(4096) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert take(systemd)[-1] == "STOPPING=1"


def test_the_command_outside_systemd_is_3(classifier_bundle, capsys, monkeypatch):
    from edgekit.cli import main

    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert main(["run", str(classifier_bundle), "--source", "test://64x48", "--watchdog"]) == 3
    assert "NOTIFY_SOCKET is not set" in capsys.readouterr().err


def test_the_unit_file_runs_a_command_that_there_is():
    from edgekit.cli import main

    text = UNIT.read_text()
    (line,) = re.findall(r"^ExecStart=(.+)$", text, re.M)
    assert line.split()[1] == "run"
    assert main(["run", "--help"]) == 0
    assert "Type=notify" in text
    assert re.search(r"^WatchdogSec=\d+$", text, re.M)
    assert {"--source", "--sink", "--watchdog"} <= set(line.split())
