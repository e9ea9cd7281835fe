"""One step of each recurrent layer, in plain layers: what they do is in Keras' cells.

Sums of products that are carried from step to step are named to `Builder.wide`: in int8 a small
change of a large number is lost, and lost again at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.converters.quantize.graph import Graph
from edgekit.errors import require

_BOUNDED = ("tanh", "sigmoid", "hard_sigmoid", "softsign")
"""Activations within ±1."""


@dataclass
class State:
    """One state: `given` goes into a step, `left` comes out.

    Attributes:
        given: symbolic tensor [1, …].
        left: likewise, of the same shape; None until it is known.
        bound: largest value that it can have; None: not known.
        is_wide: whether integers of 8 bits are too few for it.
    """

    given: Any
    left: Any = None
    bound: float | None = None
    is_wide: bool = False


@dataclass
class Builder:
    """The graph of one step, as far as it is built.

    Attributes:
        graph: its inputs are those of the model; those of the states come behind them.
        states: in the order of the layers that keep them.
        wide: names of layers that compute with more than 8 bits in an int8 model.
    """

    graph: Graph
    states: list[State] = field(default_factory=list)
    wide: list[str] = field(default_factory=list)

    def call(self, kind: str, name: str, *tensors: Any, **settings: Any) -> Any:
        """Call a new Keras layer of a kind and return its output."""
        layer = getattr(_keras().layers, kind)(name=name, **settings)
        return self.graph.call(layer, list(tensors) if len(tensors) > 1 else tensors[0])

    def wide_call(self, kind: str, name: str, *tensors: Any, **settings: Any) -> Any:
        """Do the same, in more than 8 bits where the model is int8."""
        self.wide.append(name)
        return self.call(kind, name, *tensors, **settings)

    def state(self, name: str, shape: Sequence[int], bound: float | None = None) -> State:
        """Add a state, zero at first; `shape` without batch."""
        given = _keras().Input(shape=tuple(shape), name=name, dtype="float32")
        self.graph.inputs.append(given)
        self.states.append(State(given, bound=bound))
        return self.states[-1]

    def dense(self, name: str, tensor: Any, kernel: Any, bias: Any = None) -> Any:
        """Call a Dense layer with these weights, as numpy arrays."""
        layer = _keras().layers.Dense(kernel.shape[1], use_bias=bias is not None, name=name)
        result = self.graph.call(layer, tensor)
        layer.set_weights([kernel] if bias is None else [kernel, bias])
        return result


def step_cell(build: Builder, layer: Any, x: Any) -> Any:
    """Add one step of a SimpleRNN, GRU or LSTM on `x` [1, features]; return its output [1, units].

    Args:
        build: gets the layers and states.
        layer: the trained layer.
        x: symbolic tensor.
    """
    return _CELLS[type(layer).__name__](build, layer, x)


def _lstm(build: Builder, layer: Any, x: Any) -> Any:
    """Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the forget gate of 2000."""
    cell, name = layer.cell, layer.name
    hidden = _hidden_state(build, layer)
    carry = build.state(f"{name}_c", (layer.units,))
    carry.is_wide = True
    i, f, o = (_gate(build, layer, x, hidden.given, index, key) for index, key in _LSTM_GATES)
    candidate = _sum(build, layer, x, hidden.given, 2, "g")
    candidate = _activated(build, f"{name}_g", candidate, cell.activation)
    kept = build.wide_call("Multiply", f"{name}_c_kept", f, carry.given)
    added = build.wide_call("Multiply", f"{name}_c_added", i, candidate)
    carry.left = build.wide_call("Add", f"{name}_c_next", kept, added)
    shown = _activated(build, f"{name}_c_shown", carry.left, cell.activation)
    hidden.left = build.wide_call("Multiply", f"{name}_h_next", o, shown)
    return hidden.left


def _gru(build: Builder, layer: Any, x: Any) -> Any:
    """Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014."""
    cell, name = layer.cell, layer.name
    hidden = _hidden_state(build, layer)
    hidden.is_wide = True
    z = _gate(build, layer, x, hidden.given, 0, "z")
    r = _gate(build, layer, x, hidden.given, 1, "r")
    if layer.reset_after:
        past = build.dense(f"{name}_n_h", hidden.given, *_weights(cell, 2, 1))
        past = build.wide_call("Multiply", f"{name}_n_reset", r, past)
    else:
        past = build.wide_call("Multiply", f"{name}_n_reset", r, hidden.given)
        past = build.dense(f"{name}_n_h", past, _weights(cell, 2, 1)[0])
    new = build.dense(f"{name}_n_x", x, *_weights(cell, 2, 0))
    new = build.wide_call("Add", f"{name}_n_sum", new, past)
    new = _activated(build, f"{name}_n", new, cell.activation)
    # z h + (1 - z) n, with one product less.
    change = build.wide_call("Subtract", f"{name}_h_change", hidden.given, new)
    change = build.wide_call("Multiply", f"{name}_h_kept", z, change)
    hidden.left = build.wide_call("Add", f"{name}_h_next", new, change)
    return hidden.left


def _simple(build: Builder, layer: Any, x: Any) -> Any:
    """Elman, "Finding Structure in Time", 1990."""
    hidden = _hidden_state(build, layer)
    total = _sum(build, layer, x, hidden.given, 0, "h")
    hidden.left = _activated(build, f"{layer.name}_h_next", total, layer.cell.activation)
    return hidden.left


_LSTM_GATES = ((0, "i"), (1, "f"), (3, "o"))
_CELLS: dict[str, Callable[[Builder, Any, Any], Any]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "SimpleRNN": _simple,
}
CELLS = tuple(_CELLS)


def _hidden_state(build: Builder, layer: Any) -> State:
    bounded = layer.cell.activation.__name__ in _BOUNDED
    if isinstance(layer, _keras().layers.LSTM):
        bounded = bounded and layer.cell.recurrent_activation.__name__ in _BOUNDED
    return build.state(f"{layer.name}_h", (layer.units,), 1.0 if bounded else None)


def _gate(build: Builder, layer: Any, x: Any, hidden: Any, index: int, key: str) -> Any:
    total = _sum(build, layer, x, hidden, index, key)
    return _activated(build, f"{layer.name}_{key}", total, layer.cell.recurrent_activation)


def _sum(build: Builder, layer: Any, x: Any, hidden: Any, index: int, key: str) -> Any:
    """Return x W + h U + b of the gate at a place among the weights."""
    name = f"{layer.name}_{key}"
    kernel, bias = _weights(layer.cell, index, 0)
    recurrent, second = _weights(layer.cell, index, 1)
    if second is not None:
        bias = bias + second
    from_x = build.dense(f"{name}_x", x, kernel, bias)
    from_h = build.dense(f"{name}_h", hidden, recurrent)
    return build.wide_call("Add", f"{name}_sum", from_x, from_h)


def _weights(cell: Any, index: int, place: int) -> tuple[Any, Any]:
    """Return a gate's weights and bias on the input (`place` 0) or on the hidden state (1)."""
    columns = slice(index * cell.units, (index + 1) * cell.units)
    kernel = np.asarray((cell.kernel, cell.recurrent_kernel)[place])[:, columns]
    if cell.bias is None:
        return kernel, None
    bias = np.asarray(cell.bias)
    if bias.ndim == 2:  # a GRU with reset_after has one for each
        return kernel, bias[place, columns]
    return kernel, bias[columns] if place == 0 else None


def _activated(build: Builder, name: str, tensor: Any, activation: Any) -> Any:
    return build.wide_call("Activation", name, tensor, activation=activation)


def _keras() -> Any:
    return require("keras", "convert")
