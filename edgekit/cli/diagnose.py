"""`edgekit diagnose`: whether a bundle's preprocessing is what its model was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgekit.cli._output import (
    BundlePath,
    Json,
    check_written,
    note,
    print_json,
    print_table,
    progress,
)
from edgekit.errors import CheckFailed, InputError

_SHOWN = 8


def command(
    bundle: BundlePath,
    data: Annotated[str, typer.Option(help="Labelled pictures: image folder, FILE.npz[::X,Y].")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="SOURCE", help="Try on the source model, which knows all ranges of inputs."
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Try other preprocessings on a labelled set, and name what is wrong with the declared one."""
    if model is not None and not model.exists():
        raise InputError(f"no such model: {model}")
    check_written({"json": json}, {"data": data, "model": model})
    result = _diagnosis(bundle, data, model)
    found, declared = result["found"], result["declared"]
    print_table(
        f"{result['task']}, the best of {len(result['trials'])} preprocessings",
        ("preprocess", result["metric"], "score", "n"),
        [_row(trial) for trial in result["trials"][:_SHOWN]],
        json,
    )
    for sentence in result["untold"]:
        note(f"cannot be told: {sentence}")
    print_json(result, json)
    if result["faults"]:
        explained = "; ".join(fault["explanation"] for fault in result["faults"])
        remedy = (
            f"; convert again with --preprocess {found['preprocess']!r}"
            if found["preprocess"] != declared["preprocess"]
            else "; put the class names in the model's order"
        )
        raise CheckFailed(
            f"{explained} ({result['metric']} {declared['metric']:.4f} as declared, "
            f"{found['metric']:.4f} as found, on {found['n']} samples){remedy}"
        )
    note(
        f"nothing that was tried is clearly better than what the bundle declares: "
        f"{declared['preprocess']} ({result['metric']} {declared['metric']:.4f}, "
        f"n = {declared['n']})"
    )


def _diagnosis(bundle: Path, data: str, model: Path | None) -> Any:
    import msgspec

    from edgekit.data import load_data
    from edgekit.evaluation.diagnose import diagnose
    from edgekit.isolated import run_isolated
    from edgekit.runtime.model import open_model

    with progress() as show:
        if model is None:
            with open_model(bundle) as opened:
                return msgspec.to_builtins(diagnose(opened, load_data(data), on_trial=show))
        return run_isolated(
            "edgekit.converters.against:diagnose_against",
            {"bundle": str(bundle), "data": data, "model": str(model)},
            what=f"diagnosing with {model}",
            on_progress=show,
        )


def _row(trial: dict[str, Any]) -> tuple[str, ...]:
    return trial["preprocess"], f"{trial['metric']:.4f}", f"{trial['score']:.3f}", str(trial["n"])
