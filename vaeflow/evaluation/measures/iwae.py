"""IWAE-k on the same examples as the other checks, which compare themselves with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import importance, pareto_k
from vaeflow.evaluation.measures.measure import Evaluation, Finding, mean, over
from vaeflow.evaluation.reliability import PARETO_LIMIT, evidence, only_bound


class IWAESettings(NamedTuple):
    """k: draws of q(z|x) per example."""

    k: Count = 1000


def needs(run: Evaluation, settings: IWAESettings) -> None:
    """UserError: log_prob is not a log-weight."""
    del settings
    if run.model.density != "weight":
        raise UserError(f"the model's log_prob is no log-weight (density {run.model.density!r}): there is nothing to average")


def weights(run: Evaluation, k: int) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of `likelihood.importance`: log_prob, elbo, ess, se, tail. The same ones for every check that asks."""
    return over(run, "iwae", importance(run.model, k, run.config.eval.chunk), draws=k)


class Quality(NamedTuple):
    """Of the weights of all examples: mean ESS, share of the examples with Pareto-k above the limit and median (NaN if k is too small)."""

    ess: float
    bad_share: float
    median: float

    @property
    def weak(self) -> str:
        """ "ESS 2.1, Pareto-k > 0.7 in 40%" if the weights support a bound only, else ""."""
        return evidence(self.ess, None if np.isnan(self.bad_share) else self.bad_share) if only_bound(self.ess, self.bad_share) else ""


def quality(ess: np.ndarray, tail: np.ndarray) -> Quality:
    """From the effective sample sizes [N] and the largest log-weights [N, M + 1]."""
    shape = pareto_k(np.asarray(tail))
    known = bool(np.isfinite(shape).any())  # else the draws are too few to fit a tail
    share, median = ((shape > PARETO_LIMIT).mean(), np.median(shape)) if known else (np.nan, np.nan)
    return Quality(float(np.asarray(ess, np.float64).mean()), float(share), float(median))


def bounded(weak: str) -> str:
    """What IWAE-k is: a lower bound in expectation; not an estimate, where the weights are weak."""
    return "a lower bound in expectation" + (f" and no estimate: {weak}" if weak else "")


def check(run: Evaluation, settings: IWAESettings) -> dict[str, Finding]:
    """log p(x) by importance weighting (Burda, Grosse, Salakhutdinov 2015)."""
    k, found = settings.k, weights(run, settings.k)
    own = quality(found["ess"], found["tail"])
    out = {
        "elbo": mean(found["elbo"], f"ELBO, mean of {k} log-weights"),
        "log_p": mean(found["log_prob"], f"log p(x) by IWAE-{k}, {bounded(own.weak)}"),
        "ess": Finding(own.ess, f"effective number of the {k} draws, mean"),
    }
    if np.isfinite(own.median):
        out["pareto_k"] = Finding(own.median, f"shape of the weights' tail, median; above {PARETO_LIMIT:g} unreliable")
    if not np.isnan(own.bad_share):
        out["pareto_k_bad_share"] = Finding(own.bad_share, f"share of the examples with a shape above {PARETO_LIMIT:g}")
    return out


def compares(run: Evaluation, k: int) -> bool:
    """Whether there is an IWAE-k to compare with."""
    return k > 0 and run.model.density == "weight"


def compared(known: Mapping[str, np.ndarray], k: int, log_p: np.ndarray, name: str) -> dict[str, Finding]:
    """IWAE-k, from {log_prob, ess, tail} of `weights`, and how far another estimate `name` of log p(x) [N] lies above it on the same
    examples."""
    weak, values = quality(known["ess"], known["tail"]).weak, known["log_prob"]
    return {
        f"iwae_{k}": mean(values, f"IWAE-{k} of the same examples, {bounded(weak)}"),
        "difference": mean(np.asarray(log_p, np.float64) - values, f"{name} - iwae_{k}, example by example"),
    }


def beside(run: Evaluation, k: int, log_p: np.ndarray) -> dict[str, Finding]:
    """`compared` of a check's log_p with the run's IWAE-k; nothing where there is none."""
    return compared(weights(run, k), k, log_p, "log_p") if compares(run, k) else {}
