"""Two-dimensional densities on a grid: their integral, and what the density figures show."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import log_likelihood
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.model import Model, Params
from vaeflow.runs.files import write_npz
from vaeflow.training.devices import Devices

# Grid points per side and draws per point: exact densities are cheap, estimated ones (E[w] = p at any k) are not.
_SIDE = {"exact": 256, "weight": 96}
_DRAWS = 64
# Contexts with more distinct values than this are not classes.
_MOST_CONTEXTS = 16


class GridDensity(NamedTuple):
    """log p on a grid: `xs`, `ys` [n] are the cells' centres, `log_p` [n, n] has y as its first axis."""

    xs: np.ndarray
    ys: np.ndarray
    log_p: np.ndarray

    @property
    def integral(self) -> float:
        """The probability mass inside the box, by the midpoint rule in float64."""
        return float(np.exp(self.log_p).sum() * (self.xs[1] - self.xs[0]) * (self.ys[1] - self.ys[0]))


def applies(model: Model, x: np.ndarray) -> bool:
    """True if the model has a density or an energy on events of shape (2,) that a grid can show: not one given x0."""
    return x.shape[1:] == (2,) and (model.density in _SIDE or on_grid(model)) and not model.paired


def on_grid(model: Model) -> bool:
    """True if the model has an energy and no density: it is normalised on the grid, and its integral is 1 by construction."""
    return model.log_prob is None and model.energy is not None


def density(
    model: Model, params: Params, split: Split, key: jax.Array, *, margin: float = 0.5, devices: Devices | None = None
) -> GridDensity:
    """The model's density over the bounding box of split.x, widened by `margin` of its sides on each side.

    With context: the mixture sum_c freq(c) p(x | c) over the split's distinct contexts. An estimated density ("weight") is
    exp of IWAE-64, unbiased for p(x). An energy is normalised on the grid: mass outside of the box counts as none.
    """
    if not applies(model, split.x):
        raise UserError(f"a grid shows densities of two-dimensional data; here {split.x.shape[1:]} with density={model.density!r}")
    side = _SIDE["exact" if on_grid(model) else model.density]
    low, high = np.asarray(split.x, np.float64).min(0), np.asarray(split.x, np.float64).max(0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    xs, ys = (low[i] + (np.arange(side) + 0.5) * (high[i] - low[i]) / side for i in (0, 1))
    points = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(np.asarray(split.x).dtype)
    total = np.full(len(points), -np.inf)
    for context, share in contexts_of(split.context):
        grid = Split(points, None if context is None else np.broadcast_to(context, (len(points), *context.shape)))
        if on_grid(model):
            found = -energies(model, params, grid, key, batch=4096, devices=devices)
            found -= np.logaddexp.reduce(found) + math.log((xs[1] - xs[0]) * (ys[1] - ys[0]))
        else:
            found = log_likelihood(model, params, grid, key, k=_DRAWS, chunk=16, batch=4096, devices=devices)["log_prob"]
        total = np.logaddexp(total, np.asarray(found, np.float64) + np.log(share))
    return GridDensity(xs, ys, total.reshape(side, side))


def energies(model: Model, params: Params, split: Split, key: jax.Array, **options: Any) -> np.ndarray:
    """The energy of each example of a split, [N] float64; options: of `map_split`."""
    energy = model.energy
    assert energy is not None
    run = map_split(lambda params, key, batch: {"energy": energy(params, key, batch)[0]}, split, key, **options)
    return gather(run(params))["energy"].astype(np.float64)


class Plane(NamedTuple):
    """What figures of several runs show of one in the plane: points [N, 2] of the data, samples [M, 2] and a density, where there are."""

    points: np.ndarray
    samples: np.ndarray | None = None
    density: GridDensity | None = None


def save(path: Path, plane: Plane) -> None:
    """OSError, with the name: the disk refuses."""
    arrays = {"points": plane.points} | ({} if plane.samples is None else {"samples": plane.samples})
    if plane.density is not None:
        arrays |= {"xs": plane.density.xs, "ys": plane.density.ys, "log_p": plane.density.log_p.astype(np.float32)}
    write_npz(path, arrays)


def load(path: Path) -> Plane:
    """What `save` wrote. UserError: it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            density = GridDensity(file["xs"], file["ys"], file["log_p"]) if "log_p" in file else None
            return Plane(file["points"], file.get("samples", None), density)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def contexts_of(context: np.ndarray | None) -> list[tuple[np.ndarray | None, float]]:
    """(a distinct context [C], its share) of contexts [N, C]; UserError: there are too many to be classes."""
    if context is None:
        return [(None, 1.0)]
    values, counts = np.unique(np.asarray(context), axis=0, return_counts=True)
    if len(values) > _MOST_CONTEXTS:
        raise UserError(f"a density over {len(values)} distinct contexts is no mixture of classes; at most {_MOST_CONTEXTS} are drawn")
    return list(zip(values, counts / counts.sum(), strict=True))
