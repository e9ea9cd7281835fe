"""What every training here has in common, whatever it trains for.

`case` tells from a labelled set and a model's output which loss and metric belong to it, `fit`
holds the settings, the loop that keeps the best state, and what is written at the end.
"""
