"""experiments.compare: several finished runs in one table and one figure."""

from __future__ import annotations

from pathlib import Path

from vaeflow import workdir
from vaeflow.errors import UserError
from vaeflow.report import read_metrics, table


def compare(directories: list[Path], output: Path, markdown: bool = False) -> None:
    """Print one row a run, from its results.json, and draw the validation curves (training ones without validation)."""
    if output.suffix != ".png":
        raise UserError(f"--output={str(output)!r} must be a .png file")
    rows, curves = [], {}
    for name, directory in _names(directories).items():
        workdir.read_config(directory)
        path = directory / "results.json"
        if not path.is_file():
            line = f"workdir={directory} has no results.json; run: python -m experiments.evaluate --workdir={directory}"
            if len(directories) == 1:
                raise UserError(line)
            print(f"left out: {line}\n")
            continue
        results = workdir.read_json(path)
        rows.append([name, *(results.get(key, "") for key, _ in _COLUMNS)])
        curves[name] = read_metrics(directory)
    if not rows:
        raise UserError("none of these workdirs has a results.json: train first")
    from vaeflow import figures

    kept = [i for i in range(len(_COLUMNS) + 1) if any(row[i] != "" for row in rows)]
    titles = ["run", *(title for _, title in _COLUMNS)]
    print(table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows], markdown=markdown))
    print(f"\n{figures.draw_curves(curves, output)}")


def _names(directories: list[Path]) -> dict[str, Path]:
    """What tells the runs apart: the folders' names, or as much of their paths as it takes."""
    found = {directory.resolve(): directory for directory in directories}
    names: list[str] = []
    for parts in range(1, max(len(path.parts) for path in found) + 1):
        names = ["/".join(path.parts[-parts:]) for path in found]
        if len(set(names)) == len(found):
            break
    return dict(zip(names, found.values(), strict=True))


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
    ("steps", "steps"),
    ("seconds_trained", "train [s]"),
    ("seed", "seed"),
    ("note", "note"),
)
