"""What the commands do: train (or go on, or show what is there), then evaluate, draw and print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vaeflow import workdir
from vaeflow.errors import UserError

Overrides = Sequence[tuple[str, str]]  # ("eval.k", "5000"): config keys and their text on the command line


def launch(config: ConfigDict, directory: Path, dry_run: bool = False, processes: tuple[str, int, int] | None = None) -> None:
    """experiments.train: the whole of a run, from its checked config to its table and figures."""
    if not dry_run and workdir.is_finished(directory, config):
        print(f"{directory} is finished; its results:\n")
        show(directory)
        return
    from vaeflow import dryrun, experiment, fit, parallel  # jax, Orbax and the rest take seconds to import

    if processes is not None:
        parallel.distributed(*processes)
    x = experiment.make(config)
    if dry_run:
        print(dryrun.report(x))
        return
    if x.devices.primary:
        workdir.prepare(directory, config)
    finished = fit.fit(x, directory)
    if x.devices.primary:
        print(f"{finished.reason}\n")
        conclude(directory, x.source)
    parallel.barrier("concluded")


def conclude(directory: Path, source: Any = None, split: str = "test", overrides: Overrides = ()) -> None:
    """experiments.evaluate: the table of a split from the run's checkpoint, results.json and the figures."""
    from vaeflow import data, evaluate, figures
    from vaeflow.report import read_metrics

    model, params, config = workdir.load(directory, overrides, allowed=("eval",))
    source = data.load(config.data, config.seed) if source is None else source
    chosen = getattr(source, split)
    if chosen is None:
        raise UserError(f"--split={split!r}: this run has no such split; data.{split} is empty")
    results = evaluate.results(model, params, source, split, config)
    results["workdir"] = str(directory)
    results["figures"] = [str(p) for p in figures.draw_all(model, params, source, config, read_metrics(directory), directory / "figures")]
    workdir.write_json(directory / ("results.json" if split == "test" else f"results_{split}.json"), results)
    show(directory, split)


def show(directory: Path, split: str = "test") -> None:
    """Print the table of results.json and the figures' paths."""
    from vaeflow.results import format_results

    path = directory / ("results.json" if split == "test" else f"results_{split}.json")
    results = json.loads(path.read_text())
    print(format_results(results))
    print("\nfigures:")
    for figure in results["figures"]:
        print(f"  {figure}")
