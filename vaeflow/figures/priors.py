"""The prior hole before and after: what a second stage changes about the prior of a model."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vaeflow.figures.canvas import COLOURS, canvas
from vaeflow.figures.points import principal


def prior_columns(x: list[np.ndarray], z: list[np.ndarray], path: Path) -> Path:
    """Three columns: data and q(z), the earlier prior, the new one. x: three arrays [N, 2], or none; z: three arrays [N, D], above two
    dimensions on the first two principal axes of all of them together."""
    names = ["$z_1$", "$z_2$"]
    if z[0].shape[1] > 2:
        together, share = principal(np.concatenate(z))
        z = np.split(together, len(z))
        names = [f"principal component {i + 1} ({s:.0%} of the variance)" for i, s in enumerate(share)]
    elif z[0].shape[1] == 1:
        noise, names = np.random.default_rng(0), ["$z_1$", "(jitter)"]
        z = [np.stack([cloud[:, 0], noise.uniform(-1, 1, len(cloud))], 1) for cloud in z]
    titles = [("data", "samples, earlier prior", "samples, new prior")] * bool(x)
    titles.append(("aggregate posterior $q(z)$", "earlier prior", "new prior"))
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
