"""How good a model is on labelled data, and how close to the model it was converted from."""
