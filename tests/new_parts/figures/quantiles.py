"""Quantiles of samples against those of the data, a panel per dimension: on the diagonal where the marginals agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.figures.canvas import COLOURS, canvas
from vaeflow.figures.draws import conditions, draw_x
from vaeflow.figures.figure import POINTS, Subject, needs_samples

_MOST = 4  # dimensions


def needs(subject: Subject) -> None:
    """UserError: there are no samples, or the examples are not vectors."""
    needs_samples(subject)
    if len(subject.event) != 1:
        raise UserError(f"needs vectors, and these examples have the shape {subject.event}")


def draw(subject: Subject) -> list[Path]:
    """quantiles.png: percentiles 1 to 99 of the first dimensions."""
    path, data = subject.path("quantiles"), evenly(subject.run.split, POINTS)
    drawn = draw_x(subject, conditions(subject, len(data.x)), len(data.x))
    at = np.linspace(0.01, 0.99, 99)
    one, other = np.quantile(data.x, at, axis=0), np.quantile(drawn, at, axis=0)
    count = min(one.shape[1], _MOST)
    with canvas(path, 3.0 * count, 3.0) as figure:
        for i, ax in enumerate(figure.subplots(1, count, squeeze=False)[0]):
            ax.axline((one[0, i], one[0, i]), slope=1, color=COLOURS[5], linewidth=0.8)
            ax.plot(one[:, i], other[:, i], ".", markersize=3)
            ax.set(xlabel=f"data $x_{i + 1}$", ylabel="samples" if i == 0 else "")
    return [path]
