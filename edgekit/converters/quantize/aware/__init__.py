"""Quantization-aware training for Keras 3.

`rewrite.quantize_aware` makes a model that trains with what int8 will do to it, and
`read.trained_table` reads it back as a float graph and its range table. `layers` are the layers of
ours that such a model has, `placement` says which tensor has which range, `observe` finds the first
ranges, and `train` is the plain supervised case of the command line.
"""
