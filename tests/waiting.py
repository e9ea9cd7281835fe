"""Waiting for other processes, with a limit that only a failure reaches."""

import time

LIMIT_S = 60


def wait_for(condition, what):
    """Wait until `condition()` is true and return it."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {LIMIT_S} s for {what}"
        time.sleep(0.02)
    return found
