"""The integral of a density over the plane, and the density on a grid that figures show; the likelihood of an energy that the grid
normalises."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.measures.measure import Evaluation, Finding, mean


class DensityGridSettings(NamedTuple):
    """No settings."""


def needs(run: Evaluation, settings: DensityGridSettings) -> None:
    """UserError: the data are not two-dimensional, or the model has no density."""
    del settings
    if not density_grid.applies(run.model, run.split.x):
        raise UserError(f"the data have the shape {run.split.x.shape[1:]} and the model the density {run.model.density!r}")
    density_grid.contexts_of(run.split.context)


def check(run: Evaluation, settings: DensityGridSettings) -> dict[str, Finding]:
    """`arrays` has the GridDensity's fields as grid_xs, grid_ys, grid_log_p."""
    del settings
    plane = density_grid.density(run.model, run.params, run.split, run.key, devices=run.options["devices"])
    arrays = {f"grid_{name}": value for name, value in plane._asdict().items()}
    if density_grid.on_grid(run.model):
        return energy_on_grid(run, plane, arrays)
    return {"integral": Finding(plane.integral, "probability mass in the box of the data, by the midpoint rule", arrays=arrays)}


def energy_on_grid(run: Evaluation, plane: density_grid.GridDensity, arrays: dict[str, np.ndarray]) -> dict[str, Finding]:
    """The NLL of an energy with log Z = log sum_i exp(-E(g_i)) |cell| over the grid's centres g_i, and KL(truth || model).

    Only the figure's arrays for a model with a context, whose classes have a constant each."""
    row, column = np.unravel_index(plane.log_p.argmax(), plane.log_p.shape)
    mode = np.array([[plane.xs[column], plane.ys[row]]], run.split.x.dtype)
    if run.split.context is not None:
        return {"mode": Finding(mode[0].tolist(), "the grid's densest point", arrays=arrays)}
    # E(x) + log Z = E(x) - E(mode) - log p(mode)
    options = dict(batch=run.options["batch"], devices=run.options["devices"])
    own, at_mode = (density_grid.energies(run.model, run.params, split, run.key, **options) for split in (run.split, Split(mode)))
    nll = own - at_mode - plane.log_p.max()
    out = {"nll_grid": mean(nll, "NLL of the energy, normalised on the grid")._replace(arrays=arrays)}
    if run.source.density is not None:
        truth = np.asarray(run.source.density(run.split.x), np.float64)
        out["kl_grid"] = mean(truth + nll, "KL(true density || model), normalised on the grid")
    return out
