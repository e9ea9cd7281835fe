"""What a frame is for a bundle: latencies of different ones cannot be compared."""

from __future__ import annotations

from edgekit.bundle import Manifest


def input_of(manifest: Manifest) -> str:
    """Return it in words: a picture's size and how it is resized, or the shapes of arrays."""
    preprocess = manifest.preprocess
    if preprocess.size is not None:
        height, width = preprocess.size
        overlap = "" if preprocess.overlap is None else f" overlap {preprocess.overlap}"
        return f"a {height}x{width} picture ({preprocess.resize}{overlap})"
    shapes = " and ".join("x".join(map(str, spec.shape)) for spec in manifest.data_inputs)
    return f"{shapes}, step by step" if manifest.streaming else shapes
