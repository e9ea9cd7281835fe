"""What can happen to a stream besides results: one frozen type an event, told to `on_event`.

Times are `time.monotonic_ns`. Events reach `on_event` in the thread that takes the results, before
the result that follows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class FrameDropped(msgspec.Struct, frozen=True, tag=True):
    """A captured frame that gets no result.

    Reasons: ``superseded`` by a newer one before the model was free; ``undecodable``;
    ``interrupted``: in hand when the stream was ended.
    """

    frame_id: int
    reason: Literal["superseded", "undecodable", "interrupted"]
    detail: str = ""


class Gap(msgspec.Struct, frozen=True, tag=True):
    """A live source gave nothing for longer than 2.5 of its frame periods before this frame."""

    frame_id: int
    silent_ms: float


class SourceLost(msgspec.Struct, frozen=True, tag=True):
    """A live source ended or stalled; it is opened again until it comes back."""

    at_ns: int
    detail: str


class SourceBack(msgspec.Struct, frozen=True, tag=True):
    """A lost source gives frames again."""

    at_ns: int
    lost_ms: float


class Reset(msgspec.Struct, frozen=True, tag=True):
    """Frames from here on do not continue those before: forget state that runs over frames."""

    frame_id: int
    reason: Literal["source back", "end of sequence"]


Event = FrameDropped | Gap | SourceLost | SourceBack | Reset
OnEvent = Callable[[Event], None]
