"""The figures of a run whose data are not known: losses and samples."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from vaeflow import rng
from vaeflow.errors import UserError
from vaeflow.evaluation import sampling
from vaeflow.evaluation.store import load_data
from vaeflow.figures.canvas import captioned
from vaeflow.figures.curves import Rows, recon_kl_path, recon_kl_plane, shown_panels, training_curves
from vaeflow.figures.of_samples import draw_samples, what_samples
from vaeflow.model import Model, Params
from vaeflow.runs import workdir
from vaeflow.runs.progress import phase


def draw_without_data(directory: Path, output: Path, model: Model, params: Params, config: Any, rows: Rows) -> list[Path]:
    """Draw losses, and samples of a model that is not given examples, and return their paths.

    Args:
        directory: the run's workdir, whose name the captions have.
        output: the folder of the figures.
        rows: those of metrics.jsonl.
    """
    paths = []
    with phase("drawing losses and samples"), captioned(f"{directory.absolute().name}, seed {config.seed}"):
        if shown_panels(rows):
            paths.append(training_curves(rows, output / "curves.png"))
        if any(recon_kl_path(rows, split) is not None for split in ("train", "val")):
            paths.append(recon_kl_plane(rows, output / "recon_kl.png"))
        with contextlib.suppress(UserError):  # the model draws nothing, or is given examples, which are not known
            given = sampling.conditions(directory, config, model, config.sample.n, load=lambda: load_data(directory, config))
            label, names = given.pop("label", None), workdir.read_json(directory / "data.json")["labels"] or None
            drawn = sampling.draw(model, params, rng.figure_key(config.seed), config.sample.n, given)["x"]
            what = what_samples(model, params, given.get("context"))
            paths.append(draw_samples(drawn, model.levels, output / "samples.png", label, names, what))
    return paths
