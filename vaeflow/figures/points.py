"""Points in the plane: latents by label, two-dimensional densities beside the data, marginals of vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaeflow.evaluation.density_grid import GridDensity, Plane
from vaeflow.figures.canvas import COLOURS, canvas


def principal(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(z [N, D] on its first two principal axes [N, 2], their shares of the variance [2])."""
    centred = np.asarray(z, np.float64) - z.mean(0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T, s[:2] ** 2 / max((s**2).sum(), 1e-300)


def latent_scatter(z: np.ndarray, label: np.ndarray | None, names: Sequence[str] | None, path: Path, what: str = "posterior means") -> Path:
    """Latents [N, D >= 1] coloured by label; above two dimensions their first two principal components."""
    z = np.asarray(z).reshape(len(z), -1)
    titles = ["$z_1$", "$z_2$"]
    if z.shape[1] > 2:
        z, share = principal(z)
        titles = [f"principal component {i + 1} ({s:.0%} of the variance)" for i, s in enumerate(share)]
    elif z.shape[1] == 1:
        z = np.stack([z[:, 0], np.random.default_rng(0).uniform(-1, 1, len(z))], 1)
        titles[1] = "(jitter)"
    size = float(np.clip(250 / math.sqrt(len(z)), 4, 20))
    with canvas(path, 6.0, 4.8) as figure:
        ax = figure.subplots()
        if label is None:
            ax.scatter(*z.T, s=size, alpha=0.7, linewidths=0, color=COLOURS[0])
        else:
            _by_label(figure, ax, z, np.asarray(label), names, size)
        ax.set(xlabel=titles[0], ylabel=titles[1], title=f"{what} of {len(z):,} examples")
        ax.set_aspect("equal", adjustable="datalim")
    return path


def _by_label(figure: Any, ax: Any, z: np.ndarray, label: np.ndarray, names: Sequence[str] | None, size: float) -> None:
    values = np.unique(label)
    if len(values) > 20:
        points = ax.scatter(*z.T, c=label, s=size, alpha=0.8, linewidths=0, cmap="viridis")
        figure.colorbar(points, ax=ax, label="label")
        return
    import matplotlib

    palette = matplotlib.colormaps["tab10" if len(values) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
    for i, value in enumerate(values):
        name = names[int(value)] if names is not None and 0 <= int(value) < len(names) else value
        pick = label == value
        ax.scatter(*z[pick].T, s=size, alpha=0.8, linewidths=0, color=palette[i], label=str(name))
    ax.legend(title="label", loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=max(20 / size, 1) ** 0.5)


def density_panels(data: np.ndarray, samples: np.ndarray | None, density: GridDensity | None, path: Path, what: str = "density") -> Path:
    """Data, samples and the density of a two-dimensional model, those that there are, on the same axes."""
    low, high = data.min(0).astype(float), data.max(0).astype(float)
    if density is not None:
        # Closer than the grid, which also serves the integral.
        low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    clouds = {"data": data} | ({} if samples is None else {"samples": samples})
    count = len(clouds) + (density is not None)
    with canvas(path, 3.7 * count + (0.4 if density is not None else 0), 3.7) as figure:
        axes = figure.subplots(1, count, sharex=True, sharey=True, squeeze=False)[0]
        for ax, (title, points), colour in zip(axes, clouds.items(), COLOURS, strict=False):
            ax.scatter(*points.T, s=float(np.clip(110 / math.sqrt(len(points)), 1.5, 10)), alpha=0.6, linewidths=0, color=colour)
            ax.set_title(f"{title} ({len(points):,})")
        if density is not None:
            p = np.exp(density.log_p)
            image = axes[-1].imshow(
                p, origin="lower", extent=_box(density), cmap="magma", vmin=0, vmax=np.quantile(p, 0.9995), aspect="auto"
            )
            axes[-1].set_title(f"{what} (integral {density.integral:.3f})")
            axes[-1].grid(False)
            figure.colorbar(image, ax=axes[-1], label="p(x) per unit area", extend="max")
        for ax in axes:
            ax.set(xlabel="$x_1$", xlim=(low[0], high[0]), ylim=(low[1], high[1]))
            ax.set_box_aspect(1)
        axes[0].set_ylabel("$x_2$")
    return path


def _box(density: GridDensity) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the grid's cells."""
    xs, ys = density.xs, density.ys
    half = (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2
    return (xs[0] - half[0], xs[-1] + half[0], ys[0] - half[1], ys[-1] + half[1])


class Panel(NamedTuple):
    """One model in a table of densities: `row` names its data, `column` the model; `plane` has points of the data, and the model's samples
    and density as far as there are such. Captions stand below the model and below the row's data."""

    row: str
    column: str
    plane: Plane
    caption: str
    data_caption: str


def density_table(cells: Sequence[Panel], path: Path) -> Path:
    """Rows: data, which stand first; columns: models, their samples above their densities. A row has one box and one colour scale, so that
    its colours compare."""
    names = list(dict.fromkeys(cell.row for cell in cells))
    columns = list(dict.fromkeys(cell.column for cell in cells))
    lines = [(name, leaf) for name in names for leaf in ("samples", "density") if _shown(cells, name, leaf)]
    with canvas(path, 1.55 * (len(columns) + 1) + 0.4, 1.75 * len(lines) + 0.3) as figure:
        axes = figure.subplots(len(lines), len(columns) + 1, squeeze=False)
        for ax in axes.flat:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.set_box_aspect(1)
            ax.axis("off")
        for i, (line, (name, leaf)) in enumerate(zip(axes, lines, strict=True)):
            found = _shown(cells, name, leaf)
            data = found[0].plane.points
            low, high = data.min(0).astype(float), data.max(0).astype(float)
            low, high = low - 0.08 * (high - low), high + 0.08 * (high - low)
            last = i + 1 == len(lines) or lines[i + 1][0] != name
            shown = []
            if lines.index(next(one for one in lines if one[0] == name)) == i:
                _points(line[0], data, COLOURS[0])
                line[0].set(ylabel=name, xlabel=found[0].data_caption)
                shown.append(line[0])
            top = _top(found)
            for cell in found:
                ax = line[1 + columns.index(cell.column)]
                if leaf == "samples":
                    assert cell.plane.samples is not None
                    _points(ax, cell.plane.samples[: len(data)], COLOURS[1])
                elif cell.plane.density is not None:
                    p = np.exp(cell.plane.density.log_p)
                    ax.imshow(p, origin="lower", extent=_box(cell.plane.density), cmap="magma", vmin=0, vmax=top, aspect="auto")
                if last or cell.plane.density is None:
                    ax.set(xlabel=cell.caption)
                shown.append(ax)
            for ax in shown:
                ax.axis("on")
                ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        for ax, title in zip(axes[0], ("data", *columns), strict=True):
            ax.set_title(title)
    return path


def _shown(cells: Sequence[Panel], row: str, leaf: str) -> list[Panel]:
    """The cells of a row that have samples, or a density."""
    return [cell for cell in cells if cell.row == row and getattr(cell.plane, leaf) is not None]


def _top(cells: Sequence[Panel]) -> float:
    """The brightest density of a row: the median of the models' largest ones, so that one model's peak does not darken the others."""
    found = [np.quantile(np.exp(cell.plane.density.log_p), 0.999) for cell in cells if cell.plane.density is not None]
    return float(np.median(found)) if found else 1.0


def _points(ax: Any, points: np.ndarray, colour: str) -> None:
    ax.scatter(*points.T, s=float(np.clip(40 / math.sqrt(len(points)), 0.4, 4)), alpha=0.6, linewidths=0, color=colour)


def plane(x: np.ndarray, path: Path, title: str) -> Path:
    """Points [N, 2] of the data's plane."""
    with canvas(path, 4.4, 4.4) as figure:
        ax = figure.subplots()
        ax.scatter(*x.T, s=float(np.clip(110 / math.sqrt(len(x)), 1.5, 14)), alpha=0.7, linewidths=0, color=COLOURS[1])
        ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
        ax.set_aspect("equal", adjustable="datalim")
    return path


def marginals(data: np.ndarray | None, samples: np.ndarray, path: Path, most: int = 12) -> Path:
    """Histograms of the first `most` dimensions of vectors [N, D]: samples, beside the data where they are given."""
    samples = samples.reshape(len(samples), -1)
    data = None if data is None else data.reshape(len(data), -1)
    count = min(samples.shape[1], most)
    columns = min(count, 4)
    rows = math.ceil(count / columns)
    with canvas(path, 2.4 * columns + 0.6, 1.9 * rows + 0.5) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= count:
                ax.set_visible(False)
                continue
            low, high = np.quantile((samples if data is None else data)[:, i], (0.002, 0.998))
            bins = np.linspace(low, high, 40) if high > low else np.linspace(low - 0.5, low + 0.5, 40)
            if data is not None:
                ax.hist(data[:, i], bins, density=True, color="#c3ccd3", label="data")
            ax.hist(samples[:, i], bins, density=True, histtype="step", color=COLOURS[1], lw=1.2, label="samples")
            ax.set(xlabel=f"$x_{{{i + 1}}}$", yticks=[])
        axes[0, 0].legend()
        figure.suptitle(f"marginal densities of {count} of {samples.shape[1]} dimensions", fontsize=10)
    return path
