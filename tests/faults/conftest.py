"""A clock whose threads are all ended after the test."""

import pytest
from faults.virtual_time import VirtualClock


@pytest.fixture
def clock():
    clock = VirtualClock()
    yield clock
    clock.end()
