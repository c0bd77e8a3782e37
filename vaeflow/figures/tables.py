"""A table as a picture: published numbers beside ours, with the seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import COLOURS, canvas


def published_and_ours(rows: Sequence[Mapping[str, Any]], path: Path, title: str, label: str, note: str, more: Sequence[str] = ()) -> Path:
    """One line a row: every seed, their mean, the published number; a panel for each of a row's `more`. note: what stands below."""
    below = "\n".join([label, *textwrap.wrap(note, 80)])
    with canvas(path, 7.0 + 2.2 * len(more), 1.4 + 0.32 * len(rows)) as figure:
        axes = figure.subplots(1, 1 + len(more), sharey=True, squeeze=False, width_ratios=[2.0, *[1.0] * len(more)])[0]
        y = np.arange(len(rows))
        known = [(i, row["published"]) for i, row in enumerate(rows) if row["published"] is not None]
        if known:
            axes[0].plot(*np.array([(value, i) for i, value in known]).T, "D", ms=6, mfc="none", color=COLOURS[1], label="published")
        _seeds(axes[0], [(i, row["values"]) for i, row in enumerate(rows) if "mean" in row])
        axes[0].set(title=title, xlabel=below, ylim=(len(rows) - 0.5, -0.5))
        axes[0].set_yticks(y, [row["row"] for row in rows])
        axes[0].legend(loc="best")
        for ax, name in zip(axes[1:], more, strict=True):
            points = [(i, values) for i, row in enumerate(rows) if (values := row.get("more", {}).get(name))]
            _seeds(ax, points)
            ax.set(xlabel=name)
            every = [value for _, values in points for value in values]
            if every and max(every) > 20 * min(every) > 0:
                _logarithmic(ax)
    return path


def _logarithmic(ax: Any) -> None:
    """A logarithmic x axis with labels at 1, 3, 10, 30, ... alone: matplotlib's own run into each other in a narrow panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.set(xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """0.1, 30, 300k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _seeds(ax: Any, points: Sequence[tuple[int, Sequence[float]]]) -> None:
    """(line, the values of its seeds): the seeds and their mean."""
    if points:
        means, lines = [sum(values) / len(values) for _, values in points], [i for i, _ in points]
        ax.plot(means, lines, "o", ms=6, color=COLOURS[0], label="ours, mean over seeds")
        ax.plot(*np.array([(value, i) for i, values in points for value in values]).T, "|", ms=9, color=COLOURS[0], label="seeds")
