"""Figures of edited examples (`Model.edits`): what is known of them, and several draws of the rest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.density_grid import GridDensity
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.sampling import EDITED, given_of, prepare_draw
from vaeflow.figures import latents
from vaeflow.figures.canvas import COLOURS, INK, canvas
from vaeflow.figures.figure import Subject, needs_plane_or_pictures, needs_samples
from vaeflow.figures.images import is_image

_EXAMPLES = 8  # pictures
_KNOWN = 4  # known values of a coordinate, one a panel
_CLOUD = 1000  # draws at each


def needs_edits(subject: Subject) -> None:
    """UserError: the model edits nothing, or its examples cannot be shown."""
    needs_samples(subject)
    if not subject.run.model.edits:
        raise UserError("needs sampling options with which samples are edited examples")
    needs_plane_or_pictures(subject)


def edits(subject: Subject) -> list[Path]:
    """edits.png: of pictures the data, what is known and draws; of points of the plane the draws of one coordinate given the other."""
    path = subject.path("edits")
    if is_image(subject.event):
        x, known, drawn = _draw(subject, _spread(subject), EDITED)
        return [edit_table(x, known, drawn, path, subject.top)]
    rows = _spread(subject)
    x, _, drawn = _draw(subject, rows, 1)
    coordinate = int(np.abs(drawn[:, 0] - x).max(0).argmin())  # the known one
    rows = rows[np.argsort(x[:, coordinate], kind="stable")]
    x, _, drawn = _draw(subject, rows[(np.arange(_KNOWN) * 2 + 1) * len(rows) // (2 * _KNOWN)], _CLOUD)
    model, split = subject.run.model, evenly(subject.run.split, _CLOUD)
    density = subject.density() if density_grid.applies(model, split.x) and split.context is None else None
    return [conditionals(np.asarray(split.x), x, drawn, coordinate, density, path)]


def _spread(subject: Subject) -> np.ndarray:
    """Rows of the split: the examples that were asked for, or evenly spaced ones: few pictures, all points that a figure has."""
    n = len(subject.run.split.x)
    count = min(n, _EXAMPLES if is_image(subject.event) else _CLOUD)
    return np.asarray(subject.examples) if subject.examples else np.arange(count) * n // count


def _draw(subject: Subject, rows: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the examples [R, *event], what is known of them [R, *event], draws [R, each, *event])."""
    run = subject.run
    given = {name: np.repeat(np.asarray(value)[rows], each, 0) for name, value in given_of(run.split).items()}
    n = len(rows) * each
    found = prepare_draw(run.model, n, given, ("x", "known"))(run.params, subject.key)
    x, known = (found[name].reshape(len(rows), each, *found[name].shape[1:]) for name in ("x", "known"))
    return np.asarray(run.split.x)[rows], known[:, 0], x


def edit_table(x: np.ndarray, known: np.ndarray, drawn: np.ndarray, path: Path, top: float) -> Path:
    """Pictures x, what is known of them [R, H, W, C], and draws [R, K, H, W, C]: an example a row."""
    pictures = np.concatenate([np.asarray(x)[:, None], known[:, None], drawn], 1)
    columns = ["data", "known", *(f"{i + 1}" for i in range(drawn.shape[1]))]
    rows, title = [""] * len(pictures), "examples, what is known of them, and draws of the rest"
    return latents.picture_table(pictures, path, top, rows=rows, columns=columns, title=title, xlabel="draw")


def conditionals(data: np.ndarray, x: np.ndarray, drawn: np.ndarray, coordinate: int, density: GridDensity | None, path: Path) -> Path:
    """Draws [R, K, 2] of points x [R, 2] given their `coordinate`, beside the data [N, 2]: where they lie, and a histogram for each
    known value with the model's own conditional density, from its density on a grid."""
    names, other = ("$x_1$", "$x_2$"), 1 - coordinate
    with canvas(path, 8.4, 4.2) as figure:
        grid = figure.add_gridspec(len(x), 2, width_ratios=[1.15, 1])
        ax = figure.add_subplot(grid[:, 0])
        ax.scatter(*data.T, s=float(np.clip(110 / math.sqrt(len(data)), 1.5, 10)), alpha=0.5, linewidths=0, color="#c3ccd3", label="data")
        low, high = np.quantile(np.concatenate([data[:, other], drawn[..., other].ravel()]), (0.001, 0.999))
        bins, shared = np.linspace(low, high, 51), None
        for i, (point, points) in enumerate(zip(x, drawn, strict=True)):
            value, colour = point[coordinate], COLOURS[i % len(COLOURS)]
            ax.scatter(*points[:200].T, s=5, alpha=0.5, linewidths=0, color=colour)
            panel = figure.add_subplot(grid[i, 1], sharex=shared)
            shared = shared or panel
            panel.hist(points[:, other], bins, density=True, color=colour, alpha=0.5)
            if density is not None:
                at, p = _conditional(density, coordinate, float(value))
                panel.plot(at, p, color=INK, lw=1.1)
            panel.set_title(f"given {names[coordinate]} = {value:.2f}", fontsize=8, color=colour)
            panel.set(yticks=[], xlim=(low, high))
            panel.tick_params(labelbottom=i == len(x) - 1)
        panel.set_xlabel(f"{names[other]}, {drawn.shape[1]:,} draws" + ("; line: the model's density" if density is not None else ""))
        room = 0.3 * (high - low)  # a few draws may lie far away
        ax.set(**{f"{'yx'[coordinate]}lim": (low - room, high + room)})
        ax.set(xlabel=names[0], ylabel=names[1], title=f"draws of {names[other]} given {names[coordinate]}, on the data")
        ax.set_box_aspect(1)
    return path


def _conditional(density: GridDensity, coordinate: int, value: float) -> tuple[np.ndarray, np.ndarray]:
    """(values of the other coordinate, their density given this one), from the grid's two nearest lines."""
    axes = density.xs, density.ys
    p = np.exp(density.log_p if coordinate == 1 else density.log_p.T)  # first axis: the known coordinate
    known, other = axes[coordinate], axes[1 - coordinate]
    place = np.clip((value - known[0]) / (known[1] - known[0]), 0, len(known) - 1)
    first = min(int(place), len(known) - 2)
    line = p[first] + (place - first) * (p[first + 1] - p[first])
    return other, line / (line.sum() * (other[1] - other[0]))
