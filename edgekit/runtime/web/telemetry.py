"""The device's own figures for the page, read once a second at most, and only if somebody asks."""

from __future__ import annotations

import threading
import time
from typing import Any

from edgekit.errors import EnvironmentLacks
from edgekit.targets.telemetry import Reader, Sample, readers

_PERIOD_S = 1.0
_KEYS = ("power_mw", "temperature_c", "clocks_mhz")


class Telemetry:
    """All readers of this machine as one.

    Args:
        available: the readers; by default those that this machine has something for.
    """

    def __init__(self, available: list[Reader] | None = None) -> None:
        self._readers = readers() if available is None else available
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._figures: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        """Return power, temperature and clocks by sensor, load, memory and why it is throttled."""
        with self._lock:
            if time.monotonic() - self._read_s >= _PERIOD_S:
                self._figures = self._merged()
                self._read_s = time.monotonic()
            return self._figures

    def _merged(self) -> dict[str, Any]:
        figures: dict[str, Any] = {key: {} for key in _KEYS}
        figures |= {"gpu_load_percent": None, "throttled": []}
        for reader in self._readers:
            try:
                sample: Sample = reader.read()
            except EnvironmentLacks:
                continue  # there, but not for this user: `edgekit doctor` says what would help
            for key in _KEYS:
                figures[key] |= getattr(sample, key)
            if sample.gpu_load_percent is not None:
                figures["gpu_load_percent"] = sample.gpu_load_percent
            figures["throttled"] += [r for r in sample.throttled if r not in figures["throttled"]]
        return figures
