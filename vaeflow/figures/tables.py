"""A table as a picture: published numbers beside ours, with the seeds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaeflow.figures.canvas import COLOURS, canvas


def published_and_ours(rows: Sequence[Mapping[str, Any]], path: Path, title: str, label: str, note: str) -> Path:
    """One line a row: every seed, their mean, the published number. note: what stands below the picture."""
    below = "\n".join([label, *textwrap.wrap(note, 80)])
    with canvas(path, 7.0, 1.4 + 0.32 * len(rows)) as figure:
        ax = figure.subplots()
        y = np.arange(len(rows))
        known = [(i, row["published"]) for i, row in enumerate(rows) if row["published"] is not None]
        ours = [(i, row) for i, row in enumerate(rows) if "mean" in row]
        if known:
            ax.plot(*np.array([(value, i) for i, value in known]).T, "D", ms=6, mfc="none", color=COLOURS[1], label="published")
        ax.plot([row["mean"] for _, row in ours], [i for i, _ in ours], "o", ms=6, color=COLOURS[0], label="ours, mean over seeds")
        seeds = np.array([(value, i) for i, row in ours for value in row["values"]])
        ax.plot(*seeds.T, "|", ms=9, color=COLOURS[0], label="seeds")
        ax.set(title=title, xlabel=below, ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(y, [row["row"] for row in rows])
        ax.legend(loc="best")
    return path
