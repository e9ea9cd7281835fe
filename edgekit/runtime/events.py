"""What can happen to a stream besides results: one frozen type an event, told to `on_event`.

Times are `time.monotonic_ns`; `source` is what `Result.source` says. Events reach `on_event` in the
thread that takes the results, before the result that follows them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

DropReason = Literal[
    "superseded",
    "undecodable",
    "out_of_order",
    "frozen",
    "black",
    "repeated",
    "every_nth",
    "rate_limit",
    "outside_roi",
    "late",
    "interrupted",
]


class FrameDropped(msgspec.Struct, frozen=True, tag=True):
    """A captured frame that gets no result.

    Reasons: ``superseded`` by a newer one before the model was free; ``undecodable``;
    ``out_of_order``: older than the frame before it; ``frozen``, ``black``, ``repeated``: no fresh
    picture; ``every_nth``, ``rate_limit``: as asked for; ``outside_roi``: smaller than the region
    of interest; ``late``: older than the age budget; ``interrupted``: in hand when the stream was
    ended.
    """

    frame_id: int
    reason: DropReason
    detail: str = ""
    source: str = ""


class Gap(msgspec.Struct, frozen=True, tag=True):
    """A live source gave nothing for longer than 2.5 of its frame periods before this frame."""

    frame_id: int
    silent_ms: float
    source: str = ""


class SourceLost(msgspec.Struct, frozen=True, tag=True):
    """A live source ended or stalled; it is opened again until it comes back."""

    at_ns: int
    detail: str
    source: str = ""


class SourceBack(msgspec.Struct, frozen=True, tag=True):
    """A lost source gives frames again."""

    at_ns: int
    lost_ms: float
    source: str = ""


class SourceFailed(msgspec.Struct, frozen=True, tag=True):
    """One of several sources ended with an error; the others go on."""

    at_ns: int
    detail: str
    source: str = ""


class SinkLost(msgspec.Struct, frozen=True, tag=True):
    """A sink failed and was closed; the others go on."""

    at_ns: int
    sink: str
    detail: str


class Adapted(msgspec.Struct, frozen=True, tag=True):
    """What was measured at the start, and how the stream works from here on because of it."""

    at_ns: int
    detail: str
    source: str = ""


class Reset(msgspec.Struct, frozen=True, tag=True):
    """Frames from here on do not continue those before: forget state that runs over frames."""

    frame_id: int
    reason: Literal["source back", "end of sequence"]
    source: str = ""


OfSource = FrameDropped | Gap | SourceLost | SourceBack | SourceFailed | Adapted | Reset
Event = OfSource | SinkLost
OnEvent = Callable[[Event], None]
