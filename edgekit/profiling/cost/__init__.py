"""What a model costs before any run: parameters, multiplications, memory; one file a format.

A module here is named as the format and has ``read(path) -> Cost``. A multiplication with addition
(MAC) is counted where the definition of the operator has one, padding included: convolutions,
matrix products and recurrent layers. Pooling, activations and arithmetic of elements have none.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from edgekit.bundle import Bundle
from edgekit.profiling.results import Cost


def cost_of(bundle: Bundle) -> Cost | None:
    """Return what a bundle's model costs, or None: its format cannot be read here.

    Raises:
        ModelError: the model is damaged.
        MissingPackage: the package that names a .tflite's operators is not installed.
    """
    return cost_of_file(bundle.model_path, bundle.manifest.format)


def cost_of_file(path: Path, format: str) -> Cost | None:  # noqa: A002 - as in the manifest
    """Return what a model's file costs, or None: nothing here reads its format.

    Args:
        path: of the file.
        format: ``litert`` or ``onnx``.

    Raises:
        ModelError: the file cannot be read, is damaged, or is of another format.
        MissingPackage: the package that names a .tflite's operators is not installed.

    >>> cost_of_file(Path("mobilenet_v2.tflite"), "litert").macs
    300774272
    """
    is_name = format.isidentifier() and not format.startswith("_")
    if not is_name or not Path(__file__).with_name(f"{format}.py").is_file():
        return None
    cost: Cost = import_module(f"{__name__}.{format}").read(path)
    return cost
