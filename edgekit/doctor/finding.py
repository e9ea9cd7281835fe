"""What a check of the doctor finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, get_args

import msgspec

from edgekit.doctor.machine import Machine

Severity = Literal["fault", "warning", "note", "ok"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
"""``fault``: something that EdgeKit needs here does not work. ``warning``: it works, but not all of
it, or not for long. ``note``: good to know before measuring or choosing. ``ok``: looked at."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        severity: see `Severity`.
        check: its name, ``family.subject``, which stays.
        what: what was seen, on one line.
        remedy: what to do, on one line; empty for what is ok.
    """

    severity: Severity
    check: str
    what: str
    remedy: str = ""


Check = Callable[[Machine], Iterator[Finding]]
"""Looks at one thing; finds nothing where the machine has no such thing."""
