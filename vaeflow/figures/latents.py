"""Latent spaces: pictures along paths through them, what each dimension carries, the aggregate posterior beside the prior."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import COLOURS, INK, canvas
from vaeflow.figures.images import mosaic, show, unit_range

_CELL = 0.5  # inches a picture
_IDLE = "#c3ccd3"
_NO_MARKUP = str.maketrans("", "", "$_{}")
# Above this many bars their names do not fit.
_NAMED_BARS = 40


def picture_table(
    x: np.ndarray,
    path: Path,
    top: float,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    xlabel: str,
    ylabel: str = "",
    framed: Sequence[tuple[int, int]] = (),
) -> Path:
    """Pictures [R, C, H, W, channels], named by row and column; those at `framed` (row, column) stand out."""
    return picture_blocks([x], path, top, rows=[rows], columns=columns, titles=[title], xlabel=xlabel, ylabel=ylabel, framed=framed)


def picture_blocks(
    blocks: Sequence[np.ndarray],
    path: Path,
    top: float,
    *,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str],
    titles: Sequence[str],
    xlabel: str,
    ylabel: str = "",
    framed: Sequence[tuple[int, int]] = (),
) -> Path:
    """Tables of pictures [R, C, H, W, channels] below each other, with the same columns and the same frames."""
    scaled = np.split(unit_range(np.concatenate(blocks), top), np.cumsum([len(block) for block in blocks])[:-1])
    height, width = scaled[0].shape[2:4]
    cell = max(_CELL, 4.0 / len(columns))
    letters = max(len(name.translate(_NO_MARKUP)) for block in rows for name in block)
    lines = max(len(name.splitlines()) for name in columns)
    inches = sum(len(block) * cell * height / width + 0.12 for block in scaled) + 0.25 + 0.17 * lines
    inches += 0.18 * sum(len(title.splitlines()) for title in titles)
    heads = [*itertools.chain.from_iterable(title.splitlines() for title in titles), xlabel]
    wide = max(len(columns) * cell, 0.08 * max(len(head) for head in heads)) + 0.07 * letters + (0.4 if ylabel else 0.2)
    with canvas(path, wide, inches) as figure:
        axes = figure.subplots(len(scaled), 1, squeeze=False, height_ratios=[len(block) for block in scaled])[:, 0]
        for ax, block, labels, title in zip(axes, scaled, rows, titles, strict=True):
            show(ax, mosaic(block.reshape(-1, *block.shape[2:]), len(columns)))
            ax.set_yticks(np.arange(len(labels)) * (height + 1) + (height - 1) / 2, labels)
            ax.tick_params(length=0)
            ax.set_title(title)
            for row, column in framed:
                _frame(ax, row * (height + 1), column * (width + 1), height, width)
        axes[-1].set_xticks(np.arange(len(columns)) * (width + 1) + (width - 1) / 2, columns)
        axes[-1].set_xlabel(xlabel)
        if ylabel:
            figure.supylabel(ylabel, fontsize=9)
    return path


def _frame(ax: Any, row: int, column: int, height: int, width: int) -> None:
    """Around the picture whose first pixel is at (row, column)."""
    from matplotlib.patches import Rectangle

    ax.add_patch(Rectangle((column - 0.5, row - 0.5), width, height, fill=False, edgecolor=COLOURS[1], linewidth=1.6, clip_on=False))


def dimension_bars(
    kl: np.ndarray | None,
    variance: np.ndarray | None,
    path: Path,
    *,
    names: Sequence[str],
    sizes: Sequence[int],
    threshold: float,
    title: str,
) -> Path:
    """KL(q||p) and Var_x E_q[z] of every dimension [D] (where there are such), in each level from the largest to the smallest; a unit whose
    variance exceeds the threshold is active and coloured. names [D], sizes of the levels in D."""
    known = [(v, label) for v, label in ((kl, "KL(q(z|x) || p(z)) [nats]"), (variance, "Var$_x$ E[z|x]")) if v is not None]
    starts = np.cumsum((0, *sizes))
    first = known[0][0]
    order = np.concatenate([s + np.argsort(-first[s:e], kind="stable") for s, e in itertools.pairwise(starts)])
    active = (variance > threshold) if variance is not None else np.ones(len(first), bool)
    named = len(order) <= _NAMED_BARS
    with canvas(path, float(np.clip(0.3 * len(order) + 1.2, 4.6, 11)), 0.6 + 2.0 * len(known)) as figure:
        axes = figure.subplots(len(known), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (values, label) in zip(axes, known, strict=True):
            colours = np.where(active, COLOURS[0], _IDLE)[order]
            ax.bar(np.arange(len(order)), values[order], width=0.8 if named else 1.0, color=colours, linewidth=0)
            for end in starts[1:-1]:
                ax.axvline(end - 0.5, color=INK, lw=0.7)
            ax.grid(visible=False, axis="x")
            ax.set_ylabel(label)
        if variance is not None:
            ax = axes[-1]
            ax.set_yscale("log")
            ax.set_ylim(min(threshold, max(float(variance.min()), threshold / 100)) / 2, 2 * max(float(variance.max()), threshold))
            ax.axhline(threshold, color=COLOURS[1], lw=1.2, ls="--", label=f"active above {threshold:g}")
            ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
        axes[-1].set_xlim(-0.6, len(order) - 0.4)
        axes[-1].set_xticks(np.arange(len(order)) if named else [], [names[i] for i in order] if named else [])
        axes[-1].set_xlabel("latent dimension" if named else f"the {len(order):,} latent dimensions")
        axes[0].set_title(title)
    return path


def level_bars(kl: np.ndarray, path: Path, *, title: str) -> Path:
    """KL [L] of each level of a hierarchy, from the first to the last."""
    with canvas(path, float(np.clip(0.3 * len(kl) + 1.2, 4.6, 11)), 2.8) as figure:
        ax = figure.subplots()
        ax.bar(np.arange(1, len(kl) + 1), kl, color=COLOURS[0], linewidth=0)
        ax.axhline(0, color=INK, lw=0.7)
        ax.grid(visible=False, axis="x")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set(xlabel="level", ylabel="KL(q(z|x) || p(z)) [nats]", title=title)
    return path


def prior_histograms(
    prior: np.ndarray,
    aggregate: np.ndarray,
    path: Path,
    *,
    names: Sequence[str],
    notes: Sequence[str],
    density: Sequence[tuple[float, float] | None],
    title: str,
) -> Path:
    """Draws [M, P] of the prior and of the aggregate posterior: one panel for each of P quantities, called `names`, with a note above.

    density: (mean, standard deviation) of a quantity that is Gaussian under the prior, else None. Whole numbers are counted one by one.
    """
    count = len(names)
    columns = min(math.ceil(math.sqrt(count)), 4)
    height = math.ceil(count / columns)
    whole = all(np.array_equal(draws, np.round(draws)) for draws in (prior, aggregate))
    width = 2.5 * columns + 0.3
    lines = 1 if columns > 1 else 3  # of the legend, which has a part of its own: outside the panels it would cover the caption
    with canvas(path, width, 2.0 * height + 0.7) as figure:
        panels, foot = figure.subfigures(2, 1, height_ratios=[2.0 * height + 0.7, 0.1 + 0.15 * lines])
        axes = panels.subplots(height, columns, squeeze=False).flat
        for i, ax in enumerate(axes):
            if i >= count:
                ax.set_visible(False)
                continue
            bins = _bins(np.concatenate([prior[:, i], aggregate[:, i]]), whole)
            ax.hist(prior[:, i], bins, density=True, color=_IDLE, label="prior, draws")
            ax.hist(aggregate[:, i], bins, density=True, histtype="step", color=COLOURS[1], lw=1.3, label="aggregate posterior, draws")
            if (known := density[i]) is not None:
                x = np.linspace(bins[0], bins[-1], 200)
                p = np.exp(-0.5 * ((x - known[0]) / known[1]) ** 2) / (known[1] * math.sqrt(2 * math.pi))
                ax.plot(x, p, color=INK, lw=1, ls="--", label="prior, density")
            ax.set(xlabel=names[i], yticks=[], xlim=(bins[0], bins[-1]))
            ax.xaxis.get_major_locator().set_params(integer=whole)
            ax.set_title(notes[i], fontsize=8)
        handles, labels = panels.axes[0].get_legend_handles_labels()
        foot.legend(handles, labels, loc="center", ncols=3 if lines == 1 else 1)
        panels.suptitle(textwrap.fill(title, int(width * 13)), fontsize=10)
        panels.supylabel("probability" if whole else "probability density", fontsize=9)
    return path


def _bins(values: np.ndarray, whole: bool) -> np.ndarray:
    """Edges between whole numbers, or 40 bins over all but the farthest thousandth of the values."""
    if whole:
        low, high = values.min(), values.max()
        return np.arange(low, high + 2) - 0.5
    low, high = np.quantile(values, (0.0005, 0.9995))
    return np.linspace(low, high, 41) if high > low else np.linspace(low - 0.5, low + 0.5, 41)


def prior_plane(prior: np.ndarray, aggregate: np.ndarray, path: Path) -> Path:
    """Draws [M, 2] of the prior and of the aggregate posterior side by side, on the same axes."""
    both = np.concatenate([prior, aggregate])
    reach = 1.05 * float(np.quantile(np.abs(both), 0.9995))
    box = (-reach, reach, -reach, reach)
    titles = (f"prior ({len(prior):,} draws)", f"aggregate posterior ({len(aggregate):,} draws)")
    return point_panels([prior, aggregate], path, titles=titles, axes=("$z_1$", "$z_2$"), box=box, colours=(COLOURS[5], COLOURS[1]))


def point_panels(
    clouds: Sequence[np.ndarray],
    path: Path,
    *,
    titles: Sequence[str],
    axes: tuple[str, str],
    box: tuple[float, float, float, float],
    colours: Sequence[str] = (),
    columns: int = 4,
) -> Path:
    """Points [M, 2] in equal square panels, called `titles`, over one box (left, right, bottom, top)."""
    columns = min(columns, len(clouds))
    height = math.ceil(len(clouds) / columns)
    side = 3.6 if columns < 3 else 2.4
    with canvas(path, side * columns + 0.5, (side + 0.6) * height + 0.3) as figure:
        panels = figure.subplots(height, columns, squeeze=False, sharex=True, sharey=True)
        for i, ax in enumerate(panels.flat):
            if i >= len(clouds):
                ax.set_visible(False)
                continue
            size = float(np.clip(110 / math.sqrt(len(clouds[i])), 1.5, 10))
            ax.scatter(*clouds[i].T, s=size, alpha=0.6, linewidths=0, color=colours[i] if colours else COLOURS[0])
            ax.set(title=titles[i], xlim=box[:2], ylim=box[2:])
            ax.set_box_aspect(1)
            if i + columns >= len(clouds):  # nothing below
                ax.tick_params(labelbottom=True)
                ax.set_xlabel(axes[0])
        for ax in panels[:, 0]:
            ax.set_ylabel(axes[1])
    return path
