"""The modes of a mixture of Gaussians that samples reach, and the share of samples on a mode.

    a sample is at the mode whose centre is nearest, if that is within `radius` standard deviations of it
    covered   number of modes with at least `least` samples
    near      share of samples at a mode
    smallest  share of samples at the mode with the fewest

The data of a mixture score near = 1 - exp(-radius^2 / 2) in two dimensions, 0.989 at radius 3, not 1.

Reference: Srivastava et al. 2017 (VEEGAN, arXiv 1705.07761), section 5.1: 2,500 samples, radius 3, least 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2

from vaeflow.build import Count, Positive
from vaeflow.errors import UserError
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.evaluation.sampling import given_of, prepare_draw
from vaeflow.model import Array, Params


class ModeCoverageSettings(NamedTuple):
    """Settings of the measure.

    samples  draws of the model
    radius   in standard deviations of a mode, of one dimension
    least    samples of a covered mode
    """

    samples: Count = 2500
    radius: Positive = 3.0
    least: Count = 1


BETTER = {"covered": "high", "near": "high", "smallest": "high"}


def needs(run: Evaluation, settings: ModeCoverageSettings) -> None:
    """UserError: the model draws no samples, or the modes of the data are not known."""
    del settings
    if run.model.sample is None:
        raise UserError("this model draws no samples")
    if run.source.modes is None:
        raise UserError(
            f"the modes of data.kind={run.config.data['kind']!r} are not known; data.kind='density' knows those of 8gaussians, 25gaussians"
        )


def prepare(run: Evaluation, settings: ModeCoverageSettings) -> MeasureFn:
    """See the module's docstring."""
    modes, n = run.source.modes, settings.samples
    assert modes is not None
    draw = prepare_draw(run.model, n, given_of(run.split), ("x",))
    ideal = float(chi2.cdf(settings.radius**2, modes.centres.shape[1]))
    within = f"within {settings.radius:g} standard deviations of a mode"

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        x = np.asarray(draw(params, key)["x"]).reshape(n, -1)
        distance = np.linalg.norm(x[:, None] - modes.centres, axis=-1) / modes.std
        near = distance.min(1) < settings.radius  # False for samples that are not numbers
        count = np.bincount(distance.argmin(1)[near], minlength=len(modes.centres))
        p = float(near.mean())
        equal = f"{ideal / len(count):.3f} of the data's"
        return {
            "covered": Finding(int((count >= settings.least).sum()), f"modes of {len(count)} with a sample {within}, of {n:,} samples"),
            "near": Finding(p, f"share of {n:,} samples {within}; {ideal:.3f} of the data's", (p * (1 - p) / n) ** 0.5),
            "smallest": Finding(float(count.min()) / n, f"share of {n:,} samples at the mode with the fewest; {equal}"),
        }

    return measure
