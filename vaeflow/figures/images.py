"""Pictures: grids of samples, reconstructions beside originals, the latent manifold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import canvas

_CELL = 0.5  # inches a picture


def is_image(event: tuple[int, ...]) -> bool:
    """Whether an example of this shape, [H, W, C] with 1 or 3 channels, can be shown as a picture."""
    return len(event) == 3 and event[-1] in (1, 3)


def unit_range(x: np.ndarray, top: float) -> np.ndarray:
    """Grey values 0..top, or with top 0 continuous data by their own range, as float32 in [0, 1]."""
    x = np.asarray(x, np.float32)
    if top:
        return np.clip(x / top, 0, 1)
    low, high = np.quantile(x, (0.005, 0.995))
    return np.clip((x - low) / max(float(high - low), 1e-12), 0, 1)


def mosaic(x: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """Pictures [N, H, W, C] in [0, 1], row by row, separated by `gap` white pixels -> [rows, columns, C]."""
    n, h, w, c = x.shape
    rows = math.ceil(n / columns)
    out = np.ones((rows * (h + gap) - gap, columns * (w + gap) - gap, c), np.float32)
    for i, picture in enumerate(x):
        r, s = divmod(i, columns)
        out[r * (h + gap) : r * (h + gap) + h, s * (w + gap) : s * (w + gap) + w] = picture
    return out


def show(ax: Any, picture: np.ndarray) -> None:
    """One mosaic in an axis without ticks: white on black for one channel."""
    ax.imshow(picture[..., 0] if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=1)
    ax.grid(False)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)


def image_grid(x: np.ndarray, path: Path, title: str, top: float, columns: int = 0) -> Path:
    """Pictures [N, H, W, C] in a grid that is about as wide as it is high."""
    x = unit_range(x, top)
    columns = columns or math.ceil(math.sqrt(len(x)))
    rows, aspect = math.ceil(len(x) / columns), x.shape[1] / x.shape[2]
    cell = max(_CELL, 2.4 / columns)
    with canvas(path, columns * cell + 0.2, rows * cell * aspect + 0.4) as figure:
        ax = figure.subplots()
        show(ax, mosaic(x, columns))
        ax.set_title(title)
    return path


def class_grid(x: np.ndarray, label: np.ndarray, names: Sequence[str], path: Path, title: str, top: float) -> Path:
    """Pictures [N, H, W, C] in one row a class that occurs, named at the axis; `names` of all classes, label [N]."""
    x, classes = unit_range(x, top), np.unique(label)
    columns = int(max((label == c).sum() for c in classes))
    aspect, height = x.shape[1] / x.shape[2], x.shape[1]
    cell = max(_CELL, 2.4 / columns)
    with canvas(path, columns * cell + 0.7, len(classes) * cell * aspect + 0.4) as figure:
        ax = figure.subplots()
        show(ax, mosaic(np.concatenate([_fill(x[label == c], columns) for c in classes]), columns))
        ax.set_yticks(np.arange(len(classes)) * (height + 1) + (height - 1) / 2, [names[c] for c in classes])
        ax.tick_params(length=0)
        ax.set(title=title, ylabel="class")
    return path


def reconstructions(x: np.ndarray, mean: np.ndarray, path: Path, top: float, columns: int = 12) -> Path:
    """Originals above the mean of p(x|z), z the posterior's mean (or a draw where it has no formula); both [N, H, W, C]."""
    originals, means = unit_range(x, top), unit_range(mean, top)
    columns = min(columns, len(x))
    blocks = math.ceil(len(x) / columns)
    aspect = x.shape[1] / x.shape[2]
    cell = max(_CELL, 4.0 / columns)
    with canvas(path, columns * cell + 1.1, blocks * (2 * cell * aspect + 0.15) + 0.4) as figure:
        for i, ax in enumerate(figure.subplots(blocks, 1, squeeze=False)[:, 0]):
            pick = slice(i * columns, (i + 1) * columns)
            pair = np.concatenate([_fill(originals[pick], columns), _fill(means[pick], columns)])
            show(ax, mosaic(pair, columns))
            height = x.shape[1]
            ax.set_yticks([height / 2, height * 1.5 + 1], ["data", "reconstruction"])
            ax.tick_params(length=0)
        figure.suptitle("data and their reconstructions", fontsize=10)
    return path


def manifold(mean: np.ndarray, quantiles: np.ndarray, path: Path, top: float) -> Path:
    """Means of p(x|z) [S * S, H, W, C] at the Gaussian quantiles [S] of the prior in both latents: z1 to the right, z2 upwards."""
    side = len(quantiles)
    x = unit_range(mean, top).reshape(side, side, *mean.shape[1:])[::-1]  # the largest z2 at the top
    h, w = mean.shape[1:3]
    unit = "(standard deviations of the prior about its mean)"
    gap = 1 if h < 16 else 0  # pictures of a few pixels run into each other
    with canvas(path, 6.0, 6.0 * h / w) as figure:
        ax = figure.subplots()
        show(ax, mosaic(x.reshape(mean.shape), side, gap))
        ticks = np.linspace(0, side - 1, 5).round().astype(int)
        ax.set_xticks(ticks * (w + gap) + (w - 1) / 2, [f"{quantiles[i]:.1f}" for i in ticks])
        ax.set_yticks((side - 1 - ticks) * (h + gap) + (h - 1) / 2, [f"{quantiles[i]:.1f}" for i in ticks])
        ax.set(xlabel=f"$z_1$ {unit}", ylabel=f"$z_2$ {unit}", title="the decoder's mean over the latent plane")
    return path


def _fill(x: np.ndarray, columns: int) -> np.ndarray:
    """White pictures up to a whole row."""
    return np.concatenate([x, np.ones((columns - len(x), *x.shape[1:]), x.dtype)])
