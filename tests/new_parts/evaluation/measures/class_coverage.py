"""How many of the data's modes the samples reach: a mode is a class of the data, of which the labels tell.

A sample belongs to the mode whose centre is nearest, where that is within `radius` standard deviations of the mode. A mode is covered if
its share of the samples is at least `least` times its share of the data. (The count of Srivastava et al. 2017, arXiv:1705.07761.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaeflow.build import Count, Fraction, Positive
from vaeflow.errors import UserError
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.evaluation.sampling import given_of, prepare_draw
from vaeflow.model import Array, Params


class ClassCoverageSettings(NamedTuple):
    """Settings of the measure.

    samples  draws of the model
    radius   in standard deviations of a mode, of one dimension
    least    of a mode's share of the data
    """

    samples: Count = 2000
    radius: Positive = 3.0
    least: Fraction = 0.25


BETTER = {"covered": "high", "near": "high"}


def needs(run: Evaluation, settings: ClassCoverageSettings) -> None:
    """UserError: the model draws no samples, or the data have no labels or are not real numbers."""
    del settings
    if run.model.sample is None:
        raise UserError("this model draws no samples")
    if run.split.label is None or run.source.levels:
        raise UserError("modes are the classes of real-valued data with labels")


def prepare(run: Evaluation, settings: ClassCoverageSettings) -> MeasureFn:
    """The modes of the split, and the function that counts samples around them."""
    x, label = np.asarray(run.split.x).reshape(len(run.split.x), -1), np.asarray(run.split.label)
    modes, count = np.unique(label, return_counts=True)
    centres = np.stack([x[label == mode].mean(0) for mode in modes])
    scale = np.array([x[label == mode].std(0).mean() for mode in modes])
    draw = prepare_draw(run.model, settings.samples, given_of(run.split), ("x",))

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        drawn = draw(params, key)["x"].reshape(settings.samples, -1)
        distance = np.linalg.norm(drawn[:, None] - centres, axis=-1) / scale
        near = distance.min(1) < settings.radius
        share = np.bincount(distance.argmin(1)[near], minlength=len(modes)) / settings.samples
        covered = share >= settings.least * count / len(x)
        p = float(near.mean())
        return {
            "covered": Finding(int(covered.sum()), f"modes of {len(modes)} with samples, of {settings.samples:,}"),
            "near": Finding(p, f"share of samples within {settings.radius:g} standard deviations", (p * (1 - p) / settings.samples) ** 0.5),
            "smallest": Finding(float(share.min()), "share of samples at the mode with the fewest"),
        }

    return measure
