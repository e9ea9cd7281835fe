"""Power and clocks: power mode, governors, and a supply or a heat sink that is too small."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekit.doctor.finding import Finding, Severity
from edgekit.doctor.machine import Machine
from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import raspberry_pi, thermal

_CPU = "/sys/devices/system/cpu"
_THERMAL = "/sys/class/thermal"
_SELF_CLOCKED = {"intel_pstate", "amd-pstate-epp"}  # there `powersave` follows the load
_IMPLAUSIBLE_MILLI_C = 40_000  # trip points below are placeholders of a firmware
_UNDER_VOLTAGE = raspberry_pi.FLAGS[0]
_SUPPLY = "use the board's own power supply and cable"
_COOLING = "cool the board better, then start it again"


def power_mode(machine: Machine) -> Iterator[Finding]:
    """Look which of its power modes a Jetson is in."""
    config = machine.files.text("/etc/nvpmodel.conf")
    # Only lines that begin so count: "# < POWER_MODEL …" is a comment.
    found = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=(\d{1,9})\s+NAME=([\w.-]+)", config, re.MULTILINE)
    modes = {int(number): name for number, name in found}
    default = re.search(r"^\s*<\s*PM_CONFIG\s+DEFAULT=(\d{1,9})\b", config, re.MULTILINE)
    status = re.search(r"pmode:(\d{1,9})\b", machine.files.text("/var/lib/nvpmodel/status"))
    told = status or default  # before the first change there is no status
    if not modes or told is None:
        return
    mode = int(told[1])
    others = ", ".join(f"{name} (-m {number})" for number, name in modes.items() if number != mode)
    remedy = f"sudo nvpmodel -m NUMBER; there are {others}"
    if mode not in modes:
        what = f"power mode {mode}, which /etc/nvpmodel.conf does not define"
        yield Finding("warning", "power.mode", what, remedy)
        return
    what = f"power mode {modes[mode]} ({mode})"
    default_name = modes.get(int(default[1])) if default else None
    if default_name and _budget_w(modes[mode]) < _budget_w(default_name):
        what += f", below the default {default_name}"
        yield Finding("warning", "power.mode", what, remedy)
    elif any(_budget_w(name) > _budget_w(modes[mode]) for name in modes.values()):
        yield Finding("note", "power.mode", f"{what}; not the fastest", remedy)
    else:
        yield Finding("ok", "power.mode", what)


def gpu_clock(machine: Machine) -> Iterator[Finding]:
    """Look whether a Jetson's GPU clock follows the load, which makes latencies vary."""
    if not machine.probe.is_jetson:
        return
    devfreq = "/sys/class/devfreq"
    for name in machine.files.names(devfreq):
        if not re.search(r"\.gpu$|ga10b$|^gpu-gpc", name):  # Orin, Orin on newer kernels, Thor
            continue
        low = machine.files.number(f"{devfreq}/{name}/min_freq")
        high = machine.files.number(f"{devfreq}/{name}/max_freq")
        if low is None or high is None:
            continue
        if low == high:
            yield Finding("ok", "power.gpu_clock", f"GPU clock fixed at {high / 1e6:.0f} MHz")
        else:
            what = f"GPU clock follows the load, {low / 1e6:.0f} to {high / 1e6:.0f} MHz"
            yield Finding("note", "power.gpu_clock", what, "before measuring: sudo jetson_clocks")


def cpu_clock(machine: Machine) -> Iterator[Finding]:
    """Look at the governors of the CPU clocks."""
    files = machine.files
    policies = [
        f"{_CPU}/{name}/cpufreq"
        for name in files.names(_CPU)
        if re.fullmatch(r"cpu\d+", name) and files.is_there(f"{_CPU}/{name}/cpufreq")
    ]
    governors = sorted({g for p in policies if (g := files.line(f"{p}/scaling_governor"))})
    if not governors:
        return
    clocks = [
        (files.number(f"{p}/scaling_min_freq"), files.number(f"{p}/scaling_max_freq"))
        for p in policies
    ]
    what = f"CPU governor {', '.join(governors)}"
    drivers = {files.line(f"{p}/scaling_driver") for p in policies}
    if governors == ["performance"] or all(low == high is not None for low, high in clocks):
        yield Finding("ok", "power.cpu_clock", what)
        return
    fast = (
        "sudo jetson_clocks"
        if machine.probe.is_jetson
        else f"echo performance | sudo tee {_CPU}/cpu*/cpufreq/scaling_governor"
    )
    if "powersave" in governors and not drivers <= _SELF_CLOCKED:
        what += ": always the lowest clock"
        yield Finding("warning", "power.cpu_clock", what, fast)
    else:
        what += ": the clock follows the load"
        yield Finding("note", "power.cpu_clock", what, f"before measuring: {fast}")


def throttling(machine: Machine) -> Iterator[Finding]:
    """Look whether a Raspberry Pi slows itself down, now or since it was started."""
    reader = raspberry_pi.find(machine.files.root)
    if reader is None:
        return
    try:
        sample = reader.read()
    except EnvironmentLacks as error:
        yield Finding("note", "power.throttling", str(error), "see: vcgencmd get_throttled")
        return
    seen = sample.throttled or sample.throttled_before
    if not seen:
        yield Finding("ok", "power.throttling", "not throttled since it was started")
        return
    what = f"{'now' if sample.throttled else 'since it was started'}: {', '.join(seen)}"
    is_supply = _UNDER_VOLTAGE in (*sample.throttled, *sample.throttled_before)
    severity: Severity = "warning" if sample.throttled or is_supply else "note"
    yield Finding(severity, "power.throttling", what, _SUPPLY if is_supply else _COOLING)


def temperature(machine: Machine) -> Iterator[Finding]:
    """Look for a part that is slowed down by heat, or as hot as the limit from which it is."""
    reader = thermal.find(machine.files.root)
    if reader is None:
        return
    if alerts := reader.read().throttled:
        yield Finding("warning", "power.temperature", f"now: {', '.join(alerts)}", _COOLING)
    for zone in machine.files.names(_THERMAL):
        for name in machine.files.names(f"{_THERMAL}/{zone}"):
            if re.fullmatch(r"trip_point_\d+_type", name):
                yield from _trip(machine, f"{_THERMAL}/{zone}", name.removesuffix("_type"))


def _trip(machine: Machine, zone: str, trip: str) -> Iterator[Finding]:
    files = machine.files
    now, limit = files.number(f"{zone}/temp"), files.number(f"{zone}/{trip}_temp")
    if files.line(f"{zone}/{trip}_type") != "passive" or now is None or limit is None:
        return
    if _IMPLAUSIBLE_MILLI_C < limit <= now:
        what = f"{files.line(f'{zone}/type')} is at {now / 1000:.0f} °C, and slows down from "
        yield Finding("warning", "power.temperature", f"{what}{limit / 1000:.0f} °C on", _COOLING)


def _budget_w(mode: str) -> float:
    """Return the watts in a mode's name, like 15W or MODE_30W; inf for MAXN, nan for others."""
    if mode.startswith("MAXN"):
        return float("inf")
    found = re.search(r"(\d{1,4})W", mode)
    return float(found[1]) if found else float("nan")
