"""How much memory this process holds (resident set size), MB of 10^6 bytes."""

from __future__ import annotations

import os
import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_STATM = Path("/proc/self/statm")


def peak_rss_mb() -> float:
    """Return the most memory that this process has held.

    Linux's ``ru_maxrss`` outlives `exec`: a process started by one that held 500 MB says 500 MB
    (measured). So it is read from ``VmHWM``, which begins with the program.
    """
    try:
        found = re.search(rb"^VmHWM:\s*(\d+) kB", _STATUS.read_bytes(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def rss_mb() -> float:
    """Return the memory that this process holds now; its peak where the system tells only that."""
    try:
        pages = int(_STATM.read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return peak_rss_mb()
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
