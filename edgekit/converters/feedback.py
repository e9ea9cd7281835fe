"""States that come out of a model and go into its next run, as a model of one step has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from edgekit.bundle import Fallback
from edgekit.converters.quantize.ranges import Range, RangeTable


@dataclass(frozen=True)
class Feedback:
    """The last inputs of a model, which are its last outputs of the run before.

    Attributes:
        bounds: largest value of each state where its layer has one (tanh: 1), else None.
        is_wide: whether 8 bits are too few for the state.
        wide_layers: layers whose results need more than 8 bits too.
    """

    bounds: tuple[float | None, ...]
    is_wide: tuple[bool, ...]
    wide_layers: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.bounds)

    def without_planned(
        self, fallbacks: Sequence[Fallback]
    ) -> tuple[tuple[Fallback, ...], tuple[str, ...]]:
        """Return the fallbacks but for what is wide on purpose, and a note that says so."""
        wide = set(self.wide_layers)
        kept = tuple(one for one in fallbacks if one.what.split(" ")[-1] not in wide)
        if len(kept) == len(fallbacks):
            return kept, ()
        return kept, (
            f"{len(fallbacks) - len(kept)} sums and products of the recurrent layers have more "
            "than 8 bits, as in LiteRT's own LSTM: in int8 small changes of the state are lost",
        )

    def over(
        self, table: RangeTable, inputs: Sequence[str], outputs: Sequence[str], known: Sequence[str]
    ) -> RangeTable:
        """Return a range table in which each state has one range, going in and coming out.

        Args:
            table: of the model.
            inputs: names of all its inputs.
            outputs: names of all its outputs.
            known: names of all its tensors.
        """
        tensors, count = dict(table.tensors), len(self)
        precisions = dict(table.precisions)
        for given, left, bound, is_wide in zip(
            inputs[-count:], outputs[-count:], self.bounds, self.is_wide, strict=True
        ):
            seen = [tensors[name] for name in (given, left) if name in tensors]
            if bound is not None:
                seen = [Range(-bound, bound)]
            if not seen:
                continue
            found = seen[0].union(seen[-1])
            if is_wide:
                precisions[given] = "int16x8"
                if bound is None:
                    found = found.with_headroom()
            tensors[given] = tensors[left] = found
        precisions |= dict.fromkeys(set(self.wide_layers).intersection(known), "int16x8")
        return msgspec.structs.replace(table, tensors=tensors, precisions=precisions)
