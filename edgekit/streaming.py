"""How a bundle with a model of one step is fed: states, and what makes them zero again."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from edgekit.specs import TensorSpec

ResetOn = Literal["gap", "dropped", "source_back", "end_of_sequence"]
"""What can interrupt a stream: a silence of the source, a frame without a result, a source that was
lost and opened again, the end of one of several sequences."""

RESETS: tuple[str, ...] = get_args(ResetOn)
DEFAULT_RESETS: tuple[ResetOn, ...] = ("gap", "source_back", "end_of_sequence")
"""What is said for it: after these, what comes does not continue what was. A dropped frame is one
step less of a sequence that goes on; a stream that drops many would never get beyond its start."""


class StatePair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A state: the output of one step that is the input of the next.

    Attributes:
        input: its place among the model's inputs.
        output: its place among the model's outputs; same shape, dtype, scale and zero point.
    """

    input: int
    output: int


class Drift(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A long stream through the bundle beside the float model of one step, state never reset.

    Attributes:
        steps: in the stream.
        snr_db: 10 log10(power of the float outputs / power of the difference) over all steps; 200
            at most, which stands for "equal".
        max_abs: largest absolute difference of an output.
        block_steps: in each block.
        blocks_snr_db: of one block after the other: that it does not fall is what shows no drift.
    """

    steps: int
    snr_db: float
    max_abs: float
    block_steps: int
    blocks_snr_db: tuple[float, ...]


class Streaming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model of one step is fed: each state is zero at first, then what the last step left.

    Attributes:
        states: what goes round: the last inputs and outputs, in their order.
        every_step: whether the source gives an output for each step of a sequence; else it gives
            one for the last, and earlier ones of a stream are as if it had ended there.
        reset_on: what makes the states zero again in a stream.
        drift: measured when the bundle was made.
    """

    states: tuple[StatePair, ...]
    every_step: bool
    reset_on: tuple[ResetOn, ...] = DEFAULT_RESETS
    drift: Drift | None = None

    def wrong_with(
        self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> str | None:
        """Return why a model with these tensors cannot be fed so, or None."""
        count = len(self.states)
        if not 0 < count < min(len(inputs), len(outputs)):
            return "has as many states as tensors, or none"
        places = [(pair.input, pair.output) for pair in self.states]
        first = len(inputs) - count, len(outputs) - count
        if places != [(first[0] + place, first[1] + place) for place in range(count)]:
            return "has states that are not the last inputs and outputs of the model"
        for pair in self.states:
            given, left = inputs[pair.input], outputs[pair.output]
            if msgspec.structs.replace(given, name=left.name) != left:
                return f"has a state that goes in as {given.name[:80]!r} and comes out otherwise"
        return None
