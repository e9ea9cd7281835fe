"""A finished bundle beside the trained model that it came from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edgekit import plugins
from edgekit.converters.sources import open_source
from edgekit.data import load_data
from edgekit.evaluation.diagnose import diagnose
from edgekit.evaluation.evaluate import Reference, ReferenceModel
from edgekit.evaluation.report import run_evaluation
from edgekit.isolated import Progress
from edgekit.runtime.model import Model, open_model


def evaluate_against(
    bundle: str,
    data: str,
    model: str,
    on_progress: Progress,
    backend: str | None = None,
    report: str | None = None,
    reproduce: str = "",
) -> Any:
    """Return an `Evaluation` as JSON values, with the source's figures and the parity in it.

    Raises:
        DataError: no labels, or a set that cannot be used.
        ModelError: the source cannot be read, or is not what the bundle was made from.
    """
    labelled = load_data(data)
    labelled.labelled()
    with _beside(bundle, model, backend) as (opened, source):
        found = run_evaluation(
            opened,
            labelled,
            ReferenceModel(source, opened),
            None if report is None else Path(report),
            reproduce,
            on_progress,
        )
    return msgspec.to_builtins(found)


def diagnose_against(bundle: str, data: str, model: str, on_progress: Progress) -> Any:
    """Return a `Diagnosis` as JSON values, of preprocessings tried on the source.

    Raises:
        DataError: no labels, or a set that cannot be used.
        ModelError: the source cannot be read, or is not what the bundle was made from.
    """
    labelled = load_data(data)
    with _beside(bundle, model, None) as (opened, source):
        return msgspec.to_builtins(diagnose(opened, labelled, source, on_progress))


@contextmanager
def _beside(bundle: str, model: str, backend: str | None) -> Iterator[tuple[Model, Reference]]:
    """Open a bundle, and its source as the bundle's format has it."""
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as scratch,
        open_model(bundle, backend=backend) as opened,
    ):
        format_ = plugins.load("format", opened.bundle.manifest.format)
        inputs, suffix = opened.backend.inputs, Path(model).suffix.lower()
        shape = None if len(inputs) > 1 else format_.source_shape(inputs[0].shape, suffix)
        if opened.bundle.manifest.streaming is not None:  # its inputs are those of one step
            given = opened.bundle.manifest.recipe.get("input_shape")
            shape = None if given is None else tuple(given)
        source = open_source(Path(model), scratch=Path(scratch), input_shape=shape)
        yield opened, format_.fitted(source)
