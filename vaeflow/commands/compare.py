"""experiments.compare: several finished runs in one table and one figure; the densities of two-dimensional runs in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaeflow.config import data_name, plain
from vaeflow.errors import UserError
from vaeflow.evaluation.reliability import EXPLAINED, nll_is_bound, upper_bound
from vaeflow.evaluation.results import SUMMARISED, flat, rounded
from vaeflow.runs import workdir
from vaeflow.runs.files import text_of
from vaeflow.runs.metrics import aligned_table, read_metrics

if TYPE_CHECKING:  # jax and the rest take seconds to import
    from vaeflow.figures.points import Panel


def compare(directories: list[Path], output: Path, markdown: bool = False) -> None:
    """Print one row per run, from its results.json, and draw the validation curves (training ones without validation), a panel per data
    set. A NLL whose importance weights support only a bound is marked.

    Runs in the plane: the table has the true density's NLL, the gap to it and the integral of the model's density, and all samples and
    densities are drawn in densities.png beside `output`. Runs with a latent variable: their paths of reconstruction against KL, in
    recon_kl.png.
    """
    densities, plane = output.with_name("densities.png"), output.with_name("recon_kl.png")
    if output.suffix != ".png" or output in (densities, plane):
        raise UserError(
            f"--output={str(output)!r} must be a .png file, and not {densities.name} or {plane.name}, which are drawn beside it"
        )
    found, curves, planes, others, data, sampled = {}, {}, {}, {}, {}, {}
    for name, directory in names(directories).items():
        config: Any = workdir.read_config(directory)
        path = directory / "results.json"
        if not path.is_file():
            line = f"workdir={directory} has no results.json; run: python -m experiments.evaluate --workdir={directory}"
            if len(directories) == 1:
                raise UserError(line)
            print(f"left out: {line}\n")
            continue
        results = flat(workdir.read_json(path))
        if commit := results.get("trained_commit"):
            results["trained_by"] = commit[:7] + "+changes" * bool(results.get("trained_changed"))
        results["nll_is"] = upper_bound(results)
        results["data"] = data[name] = data_name(config.data)
        own = plain(config.get("sample", {}))
        found[name], sampled[name] = results, (results.get("sample", own), own)
        curves[name] = read_metrics(directory)
        if more := sorted(one.name for one in directory.glob("results*.json") if one != path):
            others[name] = more
        if _ON_GRID & results.keys() or (directory / "figures" / "samples.npz").is_file():
            planes[name] = directory, results
    if not found:
        raise UserError("none of these workdirs has a results.json: train first")
    for name, text in _sampling(sampled).items():
        found[name]["sampling"] = text
    rows = [[name, *(results.get(key, "") for key, _ in _COLUMNS)] for name, results in found.items()]
    measured = {
        name: {key: value for key, value in results.items() if key.partition(".")[0] not in SUMMARISED} for name, results in found.items()
    }
    from vaeflow.figures.curves import recon_kl_runs, run_curves
    from vaeflow.figures.points import density_table

    titles = ["run", *(title for _, title in _COLUMNS)]
    kept = [i for i in range(len(titles)) if any(row[i] != "" for row in rows)]
    kept = [i for i in kept if titles[i] != "data" or len(set(data.values())) > 1]
    print(aligned_table([titles[i] for i in kept], [[row[i] for i in kept] for row in rows], markdown=markdown))
    if numbers := _numbers(measured):
        print(f"\n{aligned_table(['measure.number', *measured], numbers, markdown=markdown)}")
    if any(row[titles.index("the NLL is")] for row in rows):
        print(f"\n{EXPLAINED}")
    print("\nnumbers from results.json of each run" + "".join(f"; not read, {name}: {', '.join(more)}" for name, more in others.items()))
    print(f"\n{run_curves(curves, output, data)}")
    if recon_kl_runs(curves, plane):
        print(plane)
    if cells := _cells(planes):
        print(density_table(cells, densities))


def _numbers(measured: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row per finding, a number or a text, that no column of the table shows: its name, then its value with its error for each run."""
    keys = dict.fromkeys(key for found in measured.values() for key in found if "." in key and not key.endswith("_se"))
    rows = []
    for key in keys:
        values = [found.get(key) for found in measured.values()]
        if any(isinstance(value, int | float | str) for value in values):
            errors = [found.get(f"{key}_se") for found in measured.values()]
            texts = [rounded(value, se) for value, se in zip(values, errors, strict=True)]
            rows.append([key, *(f"{value} ± {se}" if se else value for value, se in texts)])
    return rows


def _sampling(runs: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, str]:
    """The sampling options that a reader must know to compare {name: (section sample of the results, the run's own)}, as KEY=VALUE: those
    that are not the run's own, and those in which the runs differ."""
    values: dict[str, set[str]] = {}
    for made, _ in runs.values():
        for key, value in made.items():
            values.setdefault(key, set()).add(text_of(value))
    out = {}
    for name, (made, own) in runs.items():
        shown = [key for key in sorted(made) if key != "n" and (made[key] != own.get(key) or len(values[key]) > 1)]
        out[name] = ", ".join(f"{key}={text_of(made[key])}" for key in shown)
    return out


def _cells(planes: Mapping[str, tuple[Path, Mapping[str, Any]]]) -> list[Panel]:
    """What the runs {name: (workdir, results)} in the plane have saved of their densities."""
    from vaeflow.evaluation import density_grid
    from vaeflow.figures.points import Panel

    cells: dict[tuple[str, str], Panel] = {}
    for name, (directory, results) in planes.items():
        path = directory / "figures" / ("density.npz" if _ON_GRID & results.keys() else "samples.npz")
        if not path.is_file():
            print(f"not among the densities: {path} is missing; run: python -m experiments.evaluate --workdir={directory}")
            continue
        data: Any = workdir.read_config(directory).data
        row = data.name or data.kind
        # Of configs/densities.py:rings_maf on the density rings, maf.
        column = results.get("config", "").partition(":")[2].removeprefix(row).strip("_")
        column = name if not column or (row, column) in cells else column
        truth = f"true NLL {results['true_nll']:.3f}" if "true_nll" in results else ""
        called = "NLL, upper bound" if nll_is_bound(results) else "NLL"
        told = f"{called} {results['nll']:.3f}" if "nll" in results else "no density"
        told = f"NLL on the grid {results['nll_grid']:.3f}" if "nll_grid" in results else told
        cells[row, column] = Panel(row, column, density_grid.load(path), told, truth)
    truths = {row: cell.data_caption for (row, _), cell in cells.items() if cell.data_caption}
    return [cell._replace(data_caption=truths.get(row, "")) for (row, _), cell in cells.items()]


def names(directories: Sequence[Path]) -> dict[str, Path]:
    """What tells the runs apart: the folders' names, or as much of their paths as it takes."""
    found = {directory.resolve(): directory for directory in directories}
    names: list[str] = []
    for parts in range(1, max(len(path.parts) for path in found) + 1):
        names = ["/".join(path.parts[-parts:]) for path in found]
        if len(set(names)) == len(found):
            break
    return dict(zip(names, found.values(), strict=True))


_ON_GRID = {"integral", "nll_grid"}  # numbers of runs that have figures/density.npz
_COLUMNS = (
    ("data", "data"),
    ("density", "density"),
    ("remark", "density of"),
    ("neg_elbo", "-ELBO [nats]"),
    ("nll", "NLL [nats]"),
    ("nll_se", "s.e."),
    ("nll_is", "the NLL is"),
    ("true_nll", "true density [nats]"),
    ("kl_to_truth", "gap [nats]"),
    ("integral", "integral"),
    ("nll_grid", "NLL on the grid [nats]"),
    ("kl_grid", "gap on the grid [nats]"),
    ("k", "k"),
    ("bits_per_dim", "bits/dim"),
    ("bits_per_character", "bits/character"),
    ("active_units", "active units"),
    ("sampling", "samples drawn with"),
    ("split", "split"),
    ("examples", "examples"),
    ("steps", "steps"),
    ("seconds_trained", "train [s]"),
    ("device", "on"),
    ("trained_by", "commit"),
    ("seed", "seed"),
    ("note", "note"),
)
