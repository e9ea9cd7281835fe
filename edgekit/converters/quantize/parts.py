"""Layers that take the place of another one, made once however often that one is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from edgekit.converters.quantize.graph import Graph, Step, repeat


class Parts:
    """Keeps what was made for each layer of an old graph, so that shared layers stay shared."""

    def __init__(self) -> None:
        self._made: dict[tuple[int, str], Any] = {}

    def call(
        self,
        graph: Graph,
        step: Step,
        part: str,
        make: Callable[[], Any],
        *args: Any,
        weights: Sequence[NDArray[Any]] | None = None,
    ) -> Any:
        """Call a layer on tensors of `graph`; it is made, and gets `weights`, the first time.

        Args:
            graph: the new one.
            step: the old one that the layer is made for, or is a part of.
            part: which of its parts.
            make: makes the layer.
            args: tensors of `graph`.
            weights: the layer's; None: it keeps its own.
        """
        key = (id(step.layer), part)
        layer = self._made.get(key)
        if layer is not None:
            return graph.call(layer, *args)
        layer = self._made[key] = make()
        result = graph.call(layer, *args)
        if weights is not None:
            layer.set_weights([*weights])
        return result

    def repeat(
        self,
        graph: Graph,
        step: Step,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        name: str | None = None,
    ) -> Any:
        """Do a step again, with the one copy of its layer, under another `name` if given."""
        key = (id(step.layer), "")
        if key in self._made:
            return graph.call(self._made[key], *args, **kwargs)
        result = repeat(graph, step, args, kwargs, name=name)
        self._made[key] = graph.steps[-1].layer
        return result
