"""IWAE-k on the same examples as the other checks, which compare themselves with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaeflow.build import Count
from vaeflow.diagnose.check import Finding, Run, mean, over
from vaeflow.errors import UserError
from vaeflow.likelihood import importance, pareto_k


class Settings(NamedTuple):
    """k: draws of q(z|x) per example."""

    k: Count = 1000


def needs(run: Run, settings: Settings) -> None:
    """UserError: log_prob is not a log-weight."""
    del settings
    if run.model.density != "weight":
        raise UserError(f"the model's log_prob is no log-weight (density {run.model.density!r}): there is nothing to average")


def log_p(run: Run, k: int) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of `likelihood.importance`: log_prob, elbo, ess, se, tail. The same ones for every check that asks."""
    return over(run, "iwae", importance(run.model, k, run.config.eval.chunk), draws=k)


def check(run: Run, settings: Settings) -> dict[str, Finding]:
    """log p(x) by importance weighting (Burda, Grosse, Salakhutdinov 2015)."""
    k, found = settings.k, log_p(run, settings.k)
    return {
        "elbo": mean(found["elbo"], f"ELBO, mean of {k} log-weights"),
        "log_p": mean(found["log_prob"], f"IWAE-{k}, a lower bound of log p(x)"),
        "ess": Finding(float(found["ess"].mean()), f"effective number of the {k} draws, mean"),
        "pareto_k": Finding(float(np.median(pareto_k(found["tail"]))), "shape of the weights' tail, median; above 0.7 unreliable"),
    }
