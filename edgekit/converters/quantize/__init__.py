"""Better int8 for Keras models: a graph pass whose result TensorFlow's converter takes.

`static.prepare_static` is the order of work; each step is one file: `fold`, `equalize`, `rounding`
and `correct`. `graph` is the private copy that they work on, `linear` what convolutions and dense
layers have in common, `explicit` and `parts` the layers that take the place of others. `aware` is
training with what int8 does.
"""

INT8_STEPS = ("equalize", "round", "correct")
"""What can be done before the conversion, in this order; the docstring of each file says how."""
