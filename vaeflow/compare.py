"""experiments.compare: several finished runs in one table and one figure."""

from __future__ import annotations

import json
from pathlib import Path

from vaeflow.errors import UserError
from vaeflow.report import read_metrics, table


def compare(directories: list[Path], output: Path, markdown: bool = False) -> None:
    """Print one row a run, from its results.json, and draw the validation curves (training ones without validation)."""
    from vaeflow import figures

    rows, curves = [], {}
    for directory in directories:
        path = directory / "results.json"
        if not path.is_file():
            raise UserError(f"{directory} has no results.json; run: python -m experiments.evaluate --workdir={directory}")
        results = json.loads(path.read_text())
        rows.append([directory.name, *(results.get(key, "") for key, _ in _COLUMNS)])
        curves[directory.name] = read_metrics(directory)
    kept = [i for i in range(len(_COLUMNS) + 1) if any(row[i] != "" for row in rows)]
    titles = ["run", *(title for _, title in _COLUMNS)]
    print(table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows], markdown=markdown))
    print(f"\n{figures.draw_curves(curves, output)}")


_COLUMNS = (
    ("density", "density"),
    ("neg_elbo", "-ELBO [nats]"),
    ("nll", "NLL [nats]"),
    ("nll_se", "s.e."),
    ("k", "k"),
    ("bits_per_dim", "bits/dim"),
    ("active_units", "active units"),
    ("split", "split"),
    ("examples", "examples"),
    ("note", "note"),
)
