"""`edgekit doctor`: what is wrong with this machine, and what mends it."""

from __future__ import annotations

from collections import Counter

from edgekit.cli._output import Json, print_json, print_table
from edgekit.doctor import SEVERITIES, diagnose, this_machine
from edgekit.errors import CheckFailed


def command(json: Json = None) -> None:
    """Look for what is wrong with this machine; exit code 1 if something does not work."""
    machine = this_machine()
    findings = diagnose(machine)
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(
        f"{counts[severity]} {severity}{'' if severity == 'ok' or counts[severity] == 1 else 's'}"
        for severity in SEVERITIES
    )
    name = machine.probe.target or machine.probe.model or machine.probe.architecture
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.severity, finding.check, finding.what))
        if finding.remedy:
            rows.append(("", "", f"→ {finding.remedy}"))
    columns = ("", "check", "what was found, and → what to do")
    print_table(f"doctor: {name}: {told}", columns, rows, json, numbers=False)
    print_json({"machine": machine.probe, "findings": findings}, json)
    faults = [finding.check for finding in findings if finding.severity == "fault"]
    if faults:
        raise CheckFailed(f"does not work here: {', '.join(faults)}; the table says what mends it")
