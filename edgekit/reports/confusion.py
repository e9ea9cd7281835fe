"""A confusion matrix as a table of shares, or as a heat map with its most frequent confusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.reports.svg import Drawing, Svg

MOST_CELLS = 12
_MOST_BLOCKS = 64
_MOST_CONFUSIONS = 10


class Confusion(NamedTuple):
    """Counts [n, n] and their shares of each row (0..1, 0 where a class does not occur)."""

    labels: list[str]
    counts: NDArray[np.float64]
    shares: NDArray[np.float64]

    @classmethod
    def of(cls, labels: Sequence[str], counts: Sequence[Sequence[float]]) -> Confusion:
        """Read a square matrix; what is not a positive number counts as 0, a missing label is made.

        Args:
            labels: class names.
            counts: [true class][predicted class].
        """
        n = len(counts)
        square: NDArray[np.float64] = np.asarray(counts, np.float64).reshape(n, n)
        square = np.where(np.isfinite(square), np.clip(square, 0, 1e15), 0.0)
        totals = square.sum(axis=1, keepdims=True)
        shares = np.divide(square, totals, out=np.zeros_like(square), where=totals > 0)
        names = [labels[i] if i < len(labels) else f"class {i}" for i in range(n)]
        return cls(names, square, shares)

    def most_frequent(self) -> list[tuple[str, str, int, float]]:
        """Return the confusions that occur most: (true, predicted, count, % of the true class)."""
        wrong = self.counts - np.diag(np.diag(self.counts))
        n = len(self.labels)
        order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_CONFUSIONS]
        return [
            (self.labels[i], self.labels[j], int(wrong[i, j]), float(100 * self.shares[i, j]))
            for i, j in (divmod(int(flat), n) for flat in order)
            if wrong[i, j] > 0
        ]

    def cells(self) -> list[dict[str, Any]]:
        """Return a row for each true class: name, (count, depth of colour 0..1), recall in %."""
        return [
            {
                "label": label,
                "cells": [
                    (int(count), float(share**0.5)) for count, share in zip(*pair, strict=True)
                ],
                "recall": float(100 * pair[1][i]) if pair[0].any() else None,
            }
            for i, (label, pair) in enumerate(
                zip(self.labels, zip(self.counts, self.shares, strict=True), strict=True)
            )
        ]


def heat_map(title: str, shares: NDArray[np.float64]) -> Drawing:
    """Draw shares [n, n] of 0..1 as a square of cells; beyond 64 classes, a cell holds several.

    Such a cell shows the largest of them: a single frequent confusion stays visible.
    """
    n = len(shares)
    each = -(-n // _MOST_BLOCKS)
    blocks = -(-n // each)
    padded = np.zeros((blocks * each, blocks * each))
    padded[:n, :n] = shares
    cells = padded.reshape(blocks, each, blocks, each).max(axis=(1, 3))
    svg = Svg(f"{title or 'Confusion matrix'}: {n} classes", None)
    svg.root.set("viewBox", f"0 0 {blocks} {blocks}")
    svg.root.set("class", "heat")
    svg.add("rect", class_="track", x=0, y=0, width=blocks, height=blocks)
    # By the square root: most confusions are a few per cent of their class, and shall be seen.
    for row, col in np.argwhere(cells > 0.002):
        opacity = f"{cells[row, col] ** 0.5:.2f}"
        x, y = int(col), int(row)
        svg.add("rect", class_="bar", fill_opacity=opacity, x=x, y=y, width=1, height=1)
    notes = ["Rows are true classes, columns predicted ones; a fuller colour is a larger share."]
    if each > 1:
        notes.append(f"A cell shows the largest share among {each} × {each} classes.")
    return Drawing(svg.text(), notes)
