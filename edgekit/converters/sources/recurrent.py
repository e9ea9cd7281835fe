"""Recurrent layers of Keras 3 without loops: LSTM as LiteRT's fused operator, others unrolled.

LiteRT has an operator for a whole LSTM. TensorFlow's converter uses it for functions that carry
the attributes which Keras 2 gave its LSTM (`PrepareCompositeFunctionsPass`); Keras 3 gives none, so
they are given here, while the model is traced. The operator keeps its state from one run to the
next: whoever runs the model must reset its variables before each sequence.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgekit.errors import ModelError, require

STEPS_LIMIT = 128
"""Longest sequence that is unrolled: each step adds its own operators to the file."""


@contextmanager
def without_loops(model: Any) -> Iterator[None]:
    """Make the recurrent layers of `model` trace without loops, until the context ends.

    Raises:
        ModelError: a layer can be neither fused nor unrolled.
    """
    refused: list[ModelError] = []
    layers = _recurrent_layers(model)
    before = [(layer, layer.unroll, getattr(layer, "use_cudnn", None)) for layer in layers]
    try:
        for layer in layers:
            if layer.stateful:
                raise ModelError(
                    f"layer {layer.name!r} is stateful, which sequences that start afresh cannot "
                    f"be; build it with stateful=False, or make the state an input and an output"
                )
            if hasattr(layer, "use_cudnn"):
                layer.use_cudnn = False
            layer.inner_loop = _inner_loop(layer, refused)
        yield
    except Exception as error:
        # Keras wraps what a layer raises into lines about its arguments.
        raise refused[0] if refused else error from error
    finally:
        for layer, unroll, use_cudnn in before:
            vars(layer).pop("inner_loop", None)
            layer.unroll = unroll
            if use_cudnn is not None:
                layer.use_cudnn = use_cudnn


def _recurrent_layers(model: Any) -> list[Any]:
    """Return all recurrent layers of `model`, nested and wrapped ones too.

    `_flatten_layers` is private: Keras has no public way into wrappers.
    """
    keras: Any = require("keras", "convert")
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]


def _inner_loop(layer: Any, refused: list[ModelError]) -> Callable[..., Any]:
    """Return what replaces `layer.inner_loop`, which Keras calls once the states are known."""

    def inner_loop(sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        obstacle = _unfusable(layer, initial_state, mask)
        if obstacle is None:
            return _fused(layer, sequences, initial_state)
        steps = sequences.shape[1]
        if steps is None or steps > STEPS_LIMIT:
            refused.append(
                ModelError(
                    f"layer {layer.name!r} cannot become one fused LSTM ({obstacle}), and its "
                    f"{steps or 'open number of'} steps are too many to unroll (at most "
                    f"{STEPS_LIMIT}); shorten the sequence, or choose fp32, fp16 or dynamic"
                )
            )
            raise refused[0]
        layer.unroll = True
        return type(layer).inner_loop(layer, sequences, initial_state, mask, training=training)

    return inner_loop


def _unfusable(layer: Any, initial_state: Sequence[Any], mask: Any) -> str | None:
    """Return why LiteRT's operator does not compute what `layer` does; None: it does."""
    keras: Any = require("keras", "convert")
    tf: Any = require("tensorflow", "convert")
    if type(layer) is not keras.layers.LSTM:
        return f"it is a {type(layer).__name__}"
    if layer.activation is not keras.activations.tanh:
        return "its activation is not tanh"
    if layer.recurrent_activation is not keras.activations.sigmoid:
        return "its recurrent activation is not sigmoid"
    if layer.compute_dtype != "float32":
        return f"it computes in {layer.compute_dtype}"
    if layer.return_state:
        return "it returns its state"
    if mask is not None:
        return "it is masked"
    values = [tf.get_static_value(tf.convert_to_tensor(state)) for state in initial_state]
    if any(value is None or value.any() for value in values):
        return "its first state is not zero"
    return None


def _fused(layer: Any, sequences: Any, initial_state: Sequence[Any]) -> Any:
    """Call the LSTM as a function in which TensorFlow's converter recognizes one."""
    tf: Any = require("tensorflow", "convert")
    cell = layer.cell
    bias = tf.zeros(4 * cell.units) if cell.bias is None else cell.bias
    weights = [tf.convert_to_tensor(w) for w in (cell.kernel, cell.recurrent_kernel, bias)]
    function = tf.function(
        lambda *tensors: _lstm(layer, *tensors),
        autograph=False,
        experimental_attributes={
            "api_implements": f"lstm_{uuid.uuid4()}",
            "api_preferred_device": "CPU",
            "time_major": False,
            "go_backwards": layer.go_backwards,
        },
    )
    last, every, hidden, carry, _ = function(sequences, *initial_state, *weights)
    return last, every, [hidden, carry]


def _lstm(
    layer: Any, sequences: Any, hidden: Any, carry: Any, kernel: Any, recurrent: Any, bias: Any
) -> tuple[Any, ...]:
    """Compute an LSTM with the arguments and the five results that the converter expects."""
    tf: Any = require("tensorflow", "convert")

    def step(states: tuple[Any, Any], inputs: Any) -> tuple[Any, Any]:
        hidden, carry = states
        gates = tf.split(inputs @ kernel + hidden @ recurrent + bias, 4, axis=1)
        let_in, forget, out = (tf.sigmoid(gates[index]) for index in (0, 1, 3))
        carry = forget * carry + let_in * tf.tanh(gates[2])
        return out * tf.tanh(carry), carry

    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
    by_time = tf.transpose(sequences, [1, 0, 2])
    hiddens, carries = tf.scan(step, by_time, (hidden, carry))
    every = tf.transpose(hiddens, [1, 0, 2])
    # Keras' own LSTM tells here which hardware computed it.
    return hiddens[-1], every, hiddens[-1], carries[-1], tf.constant(1.0)
