"""Trained model -> bundle; needs the `convert` extra."""
