"""`edgekit evaluate`: how good a bundle is on a labelled set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli._output import (
    BundlePath,
    Json,
    print_json,
    print_table,
    progress,
)
from edgekit.errors import InputError


def command(
    bundle: BundlePath,
    data: Annotated[
        str, typer.Option(help="Labelled set: image folder, FILE.npz[::X,Y], FILE.csv[::LABELS].")
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="Compare with the source model too.")
    ] = None,
    backend: Annotated[str | None, typer.Option(help="Inference engine.")] = None,
    json: Json = None,
) -> None:
    """Measure a bundle on a labelled set, alone or against its source model."""
    import msgspec

    from edgekit.converters.isolated import run_isolated
    from edgekit.data import load_data
    from edgekit.evaluation.evaluate import evaluate
    from edgekit.runtime.model import open_model
    from edgekit.runtime.recordings import samples_for

    if against is not None and not against.exists():
        raise InputError(f"no such model: {against}")
    with progress() as show:
        if against is None:
            with open_model(bundle, backend=backend) as model:
                result = msgspec.to_builtins(
                    evaluate(
                        model,
                        samples_for(model, load_data(data)),
                        lambda done, total: show("evaluating", done, total),
                    )
                )
        else:
            result = run_isolated(
                "edgekit.converters.against:evaluate_against",
                {
                    "bundle": str(bundle),
                    "data": data,
                    "model": str(against),
                    "backend": backend,
                },
                what=f"evaluating against {against}",
                on_progress=show,
            )
    rows = [(name, f"{value:.4f}") for name, value in result["metrics"].items()]
    print_table(f"{result['task']}, n = {result['n']}", ("", ""), rows, json)
    print_json(result, json)
