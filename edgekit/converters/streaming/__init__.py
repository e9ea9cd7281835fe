"""Recurrent Keras model -> a model of one step, whose state goes in and comes out.

`step` walks the graph of layers and asks `rules` what each becomes; `cells` has the recurrent ones.
`source` is the result as a source model with its calibration samples; `proof` compares a stream
with whole sequences.
"""
