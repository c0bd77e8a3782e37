"""The integral of a density over the plane, and the density on a grid that figures show."""

from __future__ import annotations

from typing import NamedTuple

from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.measures.measure import Finding, Run


class DensityGridSettings(NamedTuple):
    """No settings."""


def needs(run: Run, settings: DensityGridSettings) -> None:
    """UserError: the data are not two-dimensional, or the model has no density."""
    del settings
    if not density_grid.applies(run.model, run.split.x):
        raise UserError(f"the data have the shape {run.split.x.shape[1:]} and the model the density {run.model.density!r}")
    density_grid.contexts_of(run.split.context)


def check(run: Run, settings: DensityGridSettings) -> dict[str, Finding]:
    """`arrays` has the GridDensity's fields as grid_xs, grid_ys, grid_log_p."""
    del settings
    plane = density_grid.density(run.model, run.params, run.split, run.key, devices=run.options["devices"])
    arrays = {f"grid_{name}": value for name, value in plane._asdict().items()}
    return {"integral": Finding(plane.integral, "probability mass in the box of the data, by the midpoint rule", arrays=arrays)}
