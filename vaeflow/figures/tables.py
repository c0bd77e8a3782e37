"""A table as a picture: published numbers beside ours, with the seeds; or its number against one of its columns."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import COLOURS, canvas

Row = Mapping[str, Any]
# Panels in a line beside the row names, at most: wider figures are unreadable on a page.
_PANELS = 3
_MARKERS = "osD^vPX<>*"


def published_and_ours(
    rows: Sequence[Row], path: Path, title: str, label: str, note: str, more: Sequence[str] = (), groups: Sequence[str] = ()
) -> Path:
    """One line per row: every seed, their mean, the published number.

    Args:
        rows: a table's entries, with `row`, `published` and, if they have cells, `mean`, `values`, `more` {column: values}.
        label: the table's number and its unit.
        note: text below the figure.
        more: columns with a panel each.
        groups: prefixes of row names, such as the data set; each group has axes of its own. Rows without one are a group.
    """
    named = {group: [row for row in rows if row["row"].startswith(group)] for group in groups}
    left = [row for row in rows if not row["row"].startswith(tuple(groups))] if groups else list(rows)
    parts = [own for own in (*named.values(), left) if own]
    panels = [label, *more]
    columns = -(-len(panels) // -(-len(panels) // _PANELS))  # lines of nearly equal length
    lines = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    heights = [0.7 + 0.26 * len(own) for own in parts for _ in lines]
    with canvas(path, 3.2 + 2.6 * columns, sum(heights) + 0.6 + 0.16 * len(textwrap.wrap(note, 100))) as figure:
        axes = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights)
        for i, own in enumerate(parts):
            for j, names in enumerate(lines):
                for ax, name in itertools.zip_longest(axes[i * len(lines) + j], names):
                    if name is None:
                        ax.axis("off")
                    else:
                        _panel(ax, own, name, name == label)
                axes[i * len(lines) + j][0].set_yticks(np.arange(len(own)), [row["row"] for row in own])
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper right", ncols=3)
        if note:
            figure.supxlabel("\n".join(textwrap.wrap(note, 100)), fontsize=8)
    return path


def points_of(rows: Sequence[Row], curves: Mapping[str, tuple[str, str]], against: str) -> dict[str, Row]:
    """{row: its entry} of the rows that `number_against` draws."""
    return {row["row"]: row for row in rows if "mean" in row and row["more"].get(against) and row["row"] in curves}


def number_against(
    rows: Sequence[Row],
    path: Path,
    title: str,
    label: str,
    curves: Mapping[str, tuple[str, str]],
    against: str,
    floor: str = "",
    note: str = "",
) -> Path:
    """The number against a column, both logarithmic, means over seeds: a panel for each name in `curves`, in it a line for each line.

    Args:
        rows: a table's entries, with `row` and, if they have cells, `mean` and `more` {column: values}. One of them must be in `points_of`.
        label: the table's number and its unit.
        curves: {row: (panel, line)}.
        against: the column on the x axis.
        floor: the column whose smallest value in a panel is a dashed line; "": none.
        note: text below the figure.
    """
    points = points_of(rows, curves, against)
    panels = list(dict.fromkeys(panel for row, (panel, _) in curves.items() if row in points))
    lines = list(dict.fromkeys(line for _, line in curves.values()))
    columns = min(2, len(panels))
    wrapped = textwrap.wrap(note, 100)
    with canvas(path, 4.3 * columns + 1.6, 3.4 * -(-len(panels) // columns) + 0.4 + 0.16 * len(wrapped)) as figure:
        axes = figure.subplots(-(-len(panels) // columns), columns, squeeze=False).ravel()
        for ax, panel in itertools.zip_longest(axes, panels):
            if panel is None:
                ax.axis("off")
                continue
            own = [points[row] for row, (name, _) in curves.items() if name == panel and row in points]
            for i, line in enumerate(lines):
                found = sorted((np.mean(row["more"][against]), row["mean"]) for row in own if curves[row["row"]][1] == line)
                if found:
                    style = dict(color=COLOURS[i % len(COLOURS)], ls="-" if i < len(COLOURS) else ":")
                    ax.plot(*np.array(found).T, marker=_MARKERS[i % len(_MARKERS)], ms=4, lw=1.2, label=line, **style)
            floors = [np.mean(row["more"][floor]) for row in own if row["more"].get(floor)]
            if floors:
                ax.axhline(min(floors), color="#5f6b73", lw=1, ls="--", label="floor")
            ax.set(title=panel, xlabel=against, xscale="log", yscale="log")
            _few_labels(ax.xaxis, (1.0, 2.0, 5.0))
            _few_labels(ax.yaxis)
        known = {name: handle for ax in axes for handle, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        figure.suptitle(title, fontsize=10, x=0.01, ha="left")
        figure.supylabel(label, fontsize=9)
        figure.legend(known.values(), known, loc="outside right upper")
        if wrapped:
            figure.supxlabel("\n".join(wrapped), fontsize=8)
    return path


def _panel(ax: Any, rows: Sequence[Row], name: str, ours: bool) -> None:
    """A column of rows: the table's number beside the published one, or one of `more`."""
    known = [(i, row["published"]) for i, row in enumerate(rows) if ours and row["published"] is not None]
    if known:
        ax.plot(*np.array([(value, i) for i, value in known]).T, "D", ms=6, mfc="none", color=COLOURS[1], label="published")
    points = [(i, row["values"] if ours else row.get("more", {}).get(name)) for i, row in enumerate(rows) if "mean" in row]
    _seeds(ax, [(i, values) for i, values in points if values])
    ax.set(xlabel=name, ylim=(len(rows) - 0.5, -0.5))
    ax.set_yticks(np.arange(len(rows)), [""] * len(rows))
    every = [value for _, values in points for value in values or ()]
    if not ours and every and max(every) > 20 * min(every) > 0:
        _logarithmic(ax)


def _logarithmic(ax: Any) -> None:
    """A logarithmic x axis with labels at 1, 3, 10, 30, ... alone."""
    ax.set(xscale="log")
    _few_labels(ax.xaxis)


def _few_labels(axis: Any, at: tuple[float, ...] = (1.0, 3.0)) -> None:
    """Labels of a logarithmic axis at these multiples of powers of ten: matplotlib's own run into each other in a narrow panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=at))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


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
