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


def weights(run: Run, k: int) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of `likelihood.importance`: log_prob, elbo, ess, se, tail. The same ones for every check that asks."""
    return over(run, "iwae", importance(run.model, k, run.config.eval.chunk), draws=k)


def check(run: Run, settings: Settings) -> dict[str, Finding]:
    """log p(x) by importance weighting (Burda, Grosse, Salakhutdinov 2015)."""
    k, found = settings.k, weights(run, settings.k)
    tail = np.median(pareto_k(found["tail"]))
    out = {
        "elbo": mean(found["elbo"], f"ELBO, mean of {k} log-weights"),
        "log_p": mean(found["log_prob"], f"log p(x) by IWAE-{k}, a lower bound in expectation"),
        "ess": Finding(float(found["ess"].mean()), f"effective number of the {k} draws, mean"),
    }
    if np.isfinite(tail):  # else the draws are too few to tell
        out["pareto_k"] = Finding(float(tail), "shape of the weights' tail, median; above 0.7 unreliable")
    return out


def compares(run: Run, k: int) -> bool:
    """Whether there is an IWAE-k to compare with."""
    return k > 0 and run.model.density == "weight"


def compared(known: np.ndarray, k: int, log_p: np.ndarray, name: str) -> dict[str, Finding]:
    """IWAE-k [N], and how far another estimate `name` of log p(x) lies above it on the same examples."""
    return {
        f"iwae_{k}": mean(known, f"IWAE-{k} of the same examples, a lower bound in expectation"),
        "difference": mean(np.asarray(log_p, np.float64) - known, f"{name} - iwae_{k}, example by example"),
    }


def beside(run: Run, k: int, log_p: np.ndarray) -> dict[str, Finding]:
    """`compared` of a check's log_p with the run's IWAE-k; nothing where there is none."""
    return compared(weights(run, k)["log_prob"], k, log_p, "log_p") if compares(run, k) else {}
