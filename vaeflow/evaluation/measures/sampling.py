"""What draws cost: evaluations of the network of one draw, where the model counts them, and seconds."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn
from vaeflow.evaluation.sampling import given_of, prepare_draw
from vaeflow.model import Array, Params

_COUNT = "nfe"  # the leaf of a draw with its number of evaluations


class SamplingSettings(NamedTuple):
    """Settings of the measure.

    samples   draws that are timed
    """

    samples: Count = 1000


def needs(run: Evaluation, settings: SamplingSettings) -> None:
    """UserError: the model draws nothing."""
    del settings
    if run.model.sample is None:
        raise UserError("this model draws no samples")


def prepare(run: Evaluation, settings: SamplingSettings) -> MeasureFn:
    """seconds: of `samples` draws, by a program that has run once before; nfe, nfe_max: mean and largest number of evaluations a draw."""
    n = settings.samples
    draw = prepare_draw(run.model, n, given_of(run.split))

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        draw(params, key)
        began = time.perf_counter()
        found = draw(params, key)
        seconds = time.perf_counter() - began
        out = {"seconds": Finding(seconds, f"of {n:,} draws, compilation left out")}
        if _COUNT in found:
            count = np.asarray(found[_COUNT])
            out["nfe"] = Finding(float(count.mean()), "evaluations of the network of a draw, mean")
            out["nfe_max"] = Finding(float(count.max()), "evaluations of the network of a draw, the most")
        return out

    return measure
