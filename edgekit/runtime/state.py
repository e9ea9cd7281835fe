"""The state of a model of one step: what goes from each step into the next, for each stream."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.runtime.backends import Backend
from edgekit.runtime.events import Event, FrameDropped, Gap, Reset, SourceBack
from edgekit.streaming import ResetOn, Streaming

_BY_REASON: dict[str, ResetOn] = {
    "source back": "source_back",
    "end of sequence": "end_of_sequence",
}


class StateKeeper:
    """Keeps the states of a backend's model, one set a stream.

    Each state has two arrays that change places: a step writes into the one that the step before
    did not, so that a run that fails leaves the state as it was.

    Args:
        streaming: as the bundle says it.
        backend: with the model open.
    """

    def __init__(self, streaming: Streaming, backend: Backend) -> None:
        self._streaming = streaming
        self._backend = backend
        self._zeros = [self._zero(pair.input) for pair in streaming.states]
        self._streams: dict[str, tuple[list[NDArray[Any]], list[NDArray[Any]]]] = {}
        self._stream = ""

    def select(self, stream: str) -> None:
        """Continue with the state of a stream, by its name; of a new one it is zero."""
        self._stream = stream

    def clear(self) -> None:
        """Forget all streams, and select the one without a name."""
        self._streams.clear()
        self._stream = ""

    def reset(self) -> None:
        """Begin the selected stream anew."""
        self._streams.pop(self._stream, None)

    def on_event(self, event: Event) -> bool:
        """Forget the state of the event's stream if the bundle says so; return whether it does."""
        cause = cause_of(event)
        if cause is None or cause not in self._streaming.reset_on:
            return False
        self._streams.pop(getattr(event, "source", ""), None)
        return True

    def run(self, data_outputs: list[NDArray[Any]]) -> None:
        """Do one step from the data in the backend's input buffers into `data_outputs`."""
        pairs, streams = self._streaming.states, self._streams
        if self._stream not in streams:
            streams[self._stream] = self._copies(), self._copies()
        given, left = streams[self._stream]
        for pair, array in zip(pairs, given, strict=True):
            self._backend.input_buffer(pair.input)[...] = array
        self._backend.run([*data_outputs, *left])
        streams[self._stream] = left, given

    def _zero(self, place: int) -> NDArray[Any]:
        spec = self._backend.inputs[place]
        return spec.quantize(np.zeros(spec.shape))

    def _copies(self) -> list[NDArray[Any]]:
        return [zero.copy() for zero in self._zeros]


def cause_of(event: Event) -> ResetOn | None:
    """Return what an event is to a state, or None: nothing."""
    if isinstance(event, Gap):
        return "gap"
    if isinstance(event, FrameDropped):
        return "dropped"
    if isinstance(event, SourceBack):
        return "source_back"
    return _BY_REASON.get(event.reason) if isinstance(event, Reset) else None
