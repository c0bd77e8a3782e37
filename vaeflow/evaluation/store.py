"""The numbers of a run on one split, stored in its results file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from vaeflow import data
from vaeflow.config import Overrides, plain
from vaeflow.data import kept, named_split
from vaeflow.errors import UserError
from vaeflow.evaluation import evaluate
from vaeflow.evaluation.density_grid import GridDensity
from vaeflow.run import load_run
from vaeflow.runs import guard, progress, workdir
from vaeflow.runs.files import write_npz
from vaeflow.runs.overrides import SECTIONS, file_name
from vaeflow.training import devices


class Measured(NamedTuple):
    """What `measure` returns: a run, its numbers on one split, and where they are stored."""

    model: Any
    params: Any
    config: Any
    source: Any
    path: Path
    grid: Any  # the density of two-dimensional data, see vaeflow/evaluation/density_grid.py, or None


def measure(directory: Path, source: Any = None, split: str = "", overrides: Overrides = ()) -> Measured:
    """The numbers of a split, without figures.

    The split that `named_split` gives for "" is the run's own: its numbers are stored in results.json, those of others in
    results_SPLIT.json, those of other values than the run's in results+eval.k=1000.json or results+sample.temperature=0.7.json; the
    log-densities of the examples beside them as npz.
    """
    guard.check_links(directory, guard.EVALUATED)
    run = restore(directory, source, overrides)
    name, own = named_split(run.source, split), named_split(run.source)
    results, arrays = evaluate.measured(
        run.model, run.params, run.source, name, run.config, devices.for_evaluation(run.config.devices.mapping)
    )
    stem = "results" if name == own else f"results_{name}"
    path = directory / f"{file_name(stem, workdir.read_config(directory), run.config)}.json"
    write_npz(path.with_suffix(".npz"), arrays)
    # The numbers are stored before the figures are drawn.
    workdir.write_json(path, results | {name: plain(run.config[name]) for name in SECTIONS} | workdir.provenance(directory, run.config))
    grid = None
    if name == own and "grid_log_p" in arrays:  # the figures are of the run's own split
        grid = GridDensity(*(arrays[f"grid_{field}"] for field in GridDensity._fields))
    return run._replace(path=path, grid=grid)


def check_data(directory: Path, source: data.Source) -> None:
    """UserError: `source` has other data than the run in the directory was trained on, as far as data.json has them."""
    path = directory / "data.json"
    found = workdir.read_json(path) if path.is_file() else None
    kept = found.get("moments") if isinstance(found, dict) else None
    if kept is not None and (name := data.differs(kept, source)):
        raise UserError(
            f"workdir={directory} was trained on other data: the mean and standard deviation of the split {name!r} were {kept.get(name)}, "
            f"are now {data.moments(source).get(name)}; set data.path or data.dir to the run's data, or use another workdir"
        )


def load_data(directory: Path, config: Any) -> data.Source:
    """The data of a run. UserError: they are not those that it was trained on, see `check_data`."""
    section = plain(config.data)
    if section.get("kind") == "arrays" and not section.get("path"):
        section["path"] = kept.place(directory)
    with workdir.import_hint(directory):
        source = data.load(section, config.seed)
    check_data(directory, source)
    return source


def restore(directory: Path, source: Any = None, overrides: Overrides = ()) -> Measured:
    """A run with its parameters and its data, before it is measured. UserError: the data are not the run's, see `check_data`.

    source: the data, where they are loaded already.
    """
    with progress.phase("loading the run and its data"):
        loaded: tuple[Any, Any, Any] = load_run(directory, overrides)
        model, params, config = loaded
        if source is None:
            source = load_data(directory, config)
        else:
            check_data(directory, source)
    return Measured(model, params, config, source, Path(), None)
