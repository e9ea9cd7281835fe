"""Each run's times as a table, for those who want to look for themselves."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgekit.atomic import write_file
from edgekit.profiling.results import Profile


def write_samples(profile: Profile, path: Path) -> None:
    """Write a CSV file with a line a run.

    Columns are configuration, start_s (since the configuration's first run), latency_ms, and a
    column in ms for each stage.

    Raises:
        OutputError: it cannot be written.
    """
    stages = list(dict.fromkeys(name for p in profile.profiles for name in p.stage_samples_ms))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["configuration", "start_s", "latency_ms", *(f"{name}_ms" for name in stages)])
    for p in profile.profiles:
        name = f"{p.scenario} {p.backend} {p.threads}"
        columns = [p.stage_samples_ms.get(stage, ("",) * len(p.samples_ms)) for stage in stages]
        names = [name] * len(p.samples_ms)
        lines.writerows(zip(names, p.starts_s, p.samples_ms, *columns, strict=True))
    write_file(path, text.getvalue().encode())
