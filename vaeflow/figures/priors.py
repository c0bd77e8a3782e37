"""The prior hole before and after: what a second stage does to the prior of the model that it keeps fixed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.data import Split
from vaeflow.figures.canvas import COLOURS, canvas
from vaeflow.figures.points import principal
from vaeflow.model import Array, Model, Params


def draw_stage(model: Model, params: Params, split: Split, config: Any, key: Array, path: Path) -> Path:
    """prior_hole.png of a model that changed another one's prior: as many draws as there are examples of q(z) = E_x[q(z|x)], of the frozen
    prior and of this model's, and above them the data and the samples of both, where these lie in the plane."""
    latent = model.latent
    assert latent is not None and latent.before is not None
    before = latent.before
    n, x = len(split.x), jnp.asarray(split.x)
    context = None if split.context is None else jnp.asarray(split.context)

    def draws(params, key):
        key_z, key_x = jax.random.split(key)
        prior = before(params, context)
        z = prior.sample(seed=key_z, sample_shape=() if prior.batch_shape else (n,))
        return z, latent.show(key_x, latent.likelihood(params, z, context))

    @jax.jit
    def everything(params, x):
        keys = jax.random.split(key, 3)
        encoded = latent.posterior(params, x, context).sample(seed=keys[0])
        new = model.sample(params, keys[2], n, context)  # type: ignore[misc]
        return (encoded, x), draws(params, keys[1]), (new["z"], new["x"])

    columns = [(np.asarray(z), np.asarray(x)) for z, x in everything(params, x)]
    return prior_hole([x for _, x in columns] if x.shape[1:] == (2,) else [], [z for z, _ in columns], path)


def prior_hole(x: list[np.ndarray], z: list[np.ndarray], path: Path) -> Path:
    """Three columns: data and q(z), the frozen prior, the new one. x: three arrays [N, 2], or none; z: three arrays [N, D], above two
    dimensions on the first two principal axes of all of them together."""
    names = ["$z_1$", "$z_2$"]
    if z[0].shape[1] > 2:
        together, share = principal(np.concatenate(z))
        z = np.split(together, len(z))
        names = [f"principal component {i + 1} ({s:.0%} of the variance)" for i, s in enumerate(share)]
    elif z[0].shape[1] == 1:
        noise, names = np.random.default_rng(0), ["$z_1$", "(jitter)"]
        z = [np.stack([cloud[:, 0], noise.uniform(-1, 1, len(cloud))], 1) for cloud in z]
    titles = [("data", "samples, frozen prior", "samples, new prior")] * bool(x)
    titles.append(("aggregate posterior $q(z)$", "frozen prior $p(z)$", "new prior"))
    with canvas(path, 9.9, 3.8 * len(titles)) as figure:
        rows = figure.subplots(len(titles), 3, squeeze=False, sharex="row", sharey="row")
        shown = [(x, ["$x_1$", "$x_2$"])] * bool(x) + [(z, names)]
        for line, words, (points, axis_names) in zip(rows, titles, shown, strict=True):
            low, high = _box(points)
            for ax, title, cloud, colour in zip(line, words, points, COLOURS, strict=False):
                ax.scatter(*cloud.T, s=float(np.clip(90 / math.sqrt(len(cloud)), 1.2, 10)), alpha=0.6, linewidths=0, color=colour)
                ax.set(title=f"{title} ({len(cloud):,})", xlabel=axis_names[0], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
                ax.set_box_aspect(1)
            line[0].set_ylabel(axis_names[1])
    return path


def _box(points: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The corners that hold the first array and 99.8% of the others in each direction."""
    low = np.min([points[0].min(0), *(np.quantile(p, 0.001, axis=0) for p in points[1:])], axis=0)
    high = np.max([points[0].max(0), *(np.quantile(p, 0.999, axis=0) for p in points[1:])], axis=0)
    return low - 0.03 * (high - low), high + 0.03 * (high - low)
