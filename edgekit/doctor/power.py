"""Power and clocks: power mode, governors, and a supply or a heat sink that is too small."""

from __future__ import annotations

import re
from collections.abc import Iterator

from edgekit.doctor.finding import Finding, Severity
from edgekit.doctor.machine import Machine
from edgekit.errors import EnvironmentLacks
from edgekit.targets.power_mode import power_mode as power_mode_of
from edgekit.targets.processors import cpu_clocks, jetson_gpu_clocks_mhz
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
    found = power_mode_of(machine.files)
    if found is None:
        return
    mode, modes = found.number, found.names
    others = ", ".join(f"{name} (-m {number})" for number, name in modes.items() if number != mode)
    remedy = f"sudo nvpmodel -m NUMBER; there are {others}"
    if found.name is None:
        what = f"power mode {mode}, which /etc/nvpmodel.conf does not define"
        yield Finding("warning", "power.mode", what, remedy)
        return
    what = f"power mode {found.name} ({mode})"
    default_name = None if found.default is None else modes.get(found.default)
    if default_name and _budget_w(found.name) < _budget_w(default_name):
        what += f", below the default {default_name}"
        yield Finding("warning", "power.mode", what, remedy)
    elif any(_budget_w(name) > _budget_w(found.name) for name in modes.values()):
        yield Finding("note", "power.mode", f"{what}; not the fastest", remedy)
    else:
        yield Finding("ok", "power.mode", what)


def gpu_clock(machine: Machine) -> Iterator[Finding]:
    """Look whether a Jetson's GPU clock follows the load, which makes latencies vary."""
    if not machine.probe.is_jetson:
        return
    for low_mhz, high_mhz in jetson_gpu_clocks_mhz(machine.files).values():
        if low_mhz == high_mhz:
            yield Finding("ok", "power.gpu_clock", f"GPU clock fixed at {high_mhz:.0f} MHz")
        else:
            what = f"GPU clock follows the load, {low_mhz:.0f} to {high_mhz:.0f} MHz"
            yield Finding("note", "power.gpu_clock", what, "before measuring: sudo jetson_clocks")


def cpu_clock(machine: Machine) -> Iterator[Finding]:
    """Look at the governors of the CPU clocks."""
    clocks = cpu_clocks(machine.files)
    if clocks is None:
        return
    governors = clocks.governors
    what = f"CPU governor {', '.join(governors)}"
    if governors == ("performance",) or clocks.is_fixed:
        yield Finding("ok", "power.cpu_clock", what)
        return
    fast = (
        "sudo jetson_clocks"
        if machine.probe.is_jetson
        else f"echo performance | sudo tee {_CPU}/cpu*/cpufreq/scaling_governor"
    )
    if "powersave" in governors and not _SELF_CLOCKED.issuperset(clocks.drivers):
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
