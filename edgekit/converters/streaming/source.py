"""A model of one step as a source model, and the samples that it is calibrated with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.converters.feedback import Feedback
from edgekit.converters.sources import SourceModel
from edgekit.converters.sources.graph import FrozenGraph
from edgekit.converters.sources.keras import keras_source
from edgekit.converters.streaming.step import OneStep, one_step
from edgekit.errors import DataError, ModelError, require

Array = NDArray[Any]
_MOST_STEPS = 4096
STREAM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class StreamSource:
    """A model over a sequence, and the same as a model of one step.

    Attributes:
        whole: what was given.
        step: from inputs and states to outputs and next states; what becomes the bundle's model.
        every_step: whether `whole` gives an output for each step.
    """

    whole: FrozenGraph
    step: FrozenGraph
    every_step: bool

    @property
    def state_count(self) -> int:
        """How many of the last inputs and outputs of `step` are states."""
        return 0 if self.step.feedback is None else len(self.step.feedback)

    def run(self, steps: Iterable[Sequence[Array]]) -> Iterator[list[Array]]:
        """Yield the outputs of each step, batch 1, of one sequence from its start.

        Args:
            steps: the inputs of each step, batch 1.
        """
        states = self._zeros(1)
        for inputs in steps:
            outputs = self.step.predict([*inputs, *states])
            states = [*outputs[-self.state_count :]]
            yield [*outputs[: -self.state_count]]

    def calibration(self, sequences: Iterable[tuple[Array, ...]]) -> list[tuple[Array, ...]]:
        """Return single steps, with the states that lead to them, to calibrate `step` with.

        All sequences run side by side from zero states, and each goes on into another one: what
        a state can become in a stream without end is seen too. Of many steps those with the
        largest values are kept, and a random choice of the others.

        Args:
            sequences: model inputs of `whole`, batch 1.

        Raises:
            DataError: there are none.
        """
        columns = [np.concatenate(parts) for parts in zip(*sequences, strict=True)]
        if not columns:
            raise DataError("the calibration set is empty; integers need some 100 typical samples")
        count, length = columns[0].shape[:2]
        random = np.random.default_rng(0)
        kept: list[tuple[Array, ...]] = []
        quota = max(1, _MOST_STEPS // (2 * length))
        states = self._zeros(count)
        for order in (np.arange(count), np.roll(np.arange(count), 1)):
            for place in range(length):
                inputs = [column[order, place] for column in columns] + states
                outputs = [np.asarray(output) for output in self._batched(*inputs)]
                chosen = random.choice(count, min(quota, count), replace=False)
                largest = [_place_of_largest(array) for array in (*inputs, *outputs)]
                for row in sorted({*chosen.tolist(), *largest}):
                    kept.append(tuple(array[row : row + 1] for array in inputs))
                states = outputs[-self.state_count :]
        return kept

    def check(self, sequences: Iterable[tuple[Array, ...]]) -> None:
        """Raise `ModelError` if the steps do not lead to what the whole sequence gives.

        Args:
            sequences: model inputs of `whole`, batch 1.
        """
        for inputs in sequences:
            expected = self.whole.predict(inputs)
            length = inputs[0].shape[1]
            found = list(self.run([part[:, place] for part in inputs] for place in range(length)))
            for number, output in enumerate(expected):
                steps = [step[number] for step in found]
                here = np.stack(steps, axis=1) if self.every_step else steps[-1]
                difference = float(np.abs(here - output).max())
                if not difference <= STREAM_TOLERANCE * max(1.0, float(np.abs(output).max())):
                    raise ModelError(
                        f"the stream of this model does not equal its whole sequence: outputs "
                        f"differ by {difference:.3g}, at most {STREAM_TOLERANCE:g} is expected; "
                        "please report it, and convert without streaming"
                    )

    def _zeros(self, batch: int) -> list[Array]:
        specs = self.step.inputs[len(self.step.inputs) - self.state_count :]
        return [np.zeros((batch, *spec.shape[1:]), spec.dtype) for spec in specs]

    @cached_property
    def _batched(self) -> Any:
        tf: Any = require("tensorflow", "convert")
        model = self.step.model
        return tf.function(lambda *tensors: model(list(tensors), training=False), autograph=False)


def stream_source(source: SourceModel) -> StreamSource:
    """Return a model over a sequence with the same as a model of one step.

    Raises:
        ModelError: it cannot be one; see `one_step`.
    """
    if not isinstance(source, FrozenGraph):
        raise ModelError(
            f"streaming is compiled from a model that Keras 3 loads, not from {source.kind}; give "
            "the .keras file"
        )
    done = one_step(source)
    step = keras_source(done.model, None, "the model of one step")
    return StreamSource(source, replace(step, feedback=_feedback(done)), done.every_step)


def _feedback(done: OneStep) -> Feedback:
    return Feedback(
        bounds=tuple(state.bound for state in done.states),
        is_wide=tuple(state.is_wide for state in done.states),
        wide_layers=done.wide,
    )


def _place_of_largest(array: Array) -> int:
    return int(np.abs(array.reshape(len(array), -1)).max(axis=1).argmax())
