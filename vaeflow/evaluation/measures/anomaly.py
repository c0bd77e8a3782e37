"""Does the model tell another set from the run's data? AUROC of its scores: the share of pairs, one x of the other set and one of the
run's, where the other set's has the higher score, ties counted half.

    nll          -log p(x): exact, or -IWAE-k
    neg_elbo     the mean of the same k draws
    energy       -log p(x) but for a constant, for models with an energy and no density
    recon_mse    squared error of the reconstruction, for models with a latent

1: always the higher one; 0.5: not told apart; below: the other set is the likelier one, as happens with sets that are simpler than the
data (Nalisnick et al. 2019). Standard errors are those of DeLong et al. (1988), over the examples of both sets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaeflow.build import Count
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.information import reconstruction_error
from vaeflow.evaluation.likelihood import average, importance
from vaeflow.evaluation.measures.measure import Evaluation, Finding, mean, over
from vaeflow.evaluation.measures.others import other


class AnomalySettings(NamedTuple):
    """against: the other set, see vaeflow/evaluation/measures/others.py. k: draws of IWAE-k, for models whose log_prob is a log-weight."""

    against: str = "noise"
    k: Count = 100


def needs(run: Evaluation, settings: AnomalySettings) -> None:
    """UserError: nothing to score by, an unknown set."""
    if run.model.log_prob is None and run.model.energy is None and run.model.latent is None:
        raise UserError(f"model.kind={run.config.model['kind']!r} has no density, no energy and no reconstructions")
    other(run, settings.against)


def check(run: Evaluation, settings: AnomalySettings) -> dict[str, Finding]:
    """AUROC of every score that the model has, and the means of the first one."""
    outside = other(run, settings.against)
    inner, outer = (scores(run, split, settings.k) for split in (run.split, outside))
    titles = {"nll": f"-log p(x) ({_estimator(run, settings.k)})", "neg_elbo": "-ELBO", "energy": "the energy"}
    titles |= {"recon_mse": "reconstruction's squared error"}
    sets = f"{len(outside.x):,} examples of {settings.against} against {len(run.split.x):,} of {run.name}"
    out = {}
    for name in inner:
        value, se = auroc(inner[name], outer[name])
        out[f"auroc_{name}"] = Finding(value, f"AUROC of {titles[name]}; {sets}", se)
    first = next(iter(inner))
    return out | {
        first: mean(inner[first], f"{titles[first]} of {run.name}"),
        f"{first}_other": mean(outer[first], f"{titles[first]} of {settings.against}"),
    }


def _estimator(run: Evaluation, k: int) -> str:
    return {"weight": f"IWAE-{k}", "exact": "exact", "estimate": "an estimate"}.get(run.model.density, "a bound")


def scores(run: Evaluation, split: Split, k: int) -> dict[str, np.ndarray]:
    """{score: [N]} of a split, higher where an example fits less."""
    out = {}
    if run.model.log_prob is not None:
        weight = run.model.density == "weight"
        estimator = importance(run.model, k, run.config.eval.chunk) if weight else average(run.model, 1)
        found = over(run, "anomaly", estimator, draws=k if weight else 1, split=split)
        out["nll"] = -found["log_prob"]
        if weight:
            out["neg_elbo"] = -found["elbo"]
    elif (energy := run.model.energy) is not None:
        out["energy"] = over(run, "anomaly", lambda params, key, batch: {"energy": energy(params, key, batch)[0]}, split=split)["energy"]
    if run.model.latent is not None:
        top = 1 if run.config.data.binarize == "dynamic" else max(run.source.levels - 1, 1)
        out["recon_mse"] = over(run, "anomaly", reconstruction_error(run.model, top), split=split)["mse"]
    return out


def auroc(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float]:
    """(the share of pairs with outside > inside, ties half, its standard error) of scores [N] and [M].

    With V_j the share of the inside that outside_j exceeds and W_i the share of the outside that exceeds inside_i, their common mean is the
    AUROC, and its variance Var(V) / M + Var(W) / N.
    """
    above, below = _exceeds(outside, inside), 1 - _exceeds(inside, outside)
    variance = above.var(ddof=1) / len(above) + below.var(ddof=1) / len(below)
    return float(above.mean()), float(np.sqrt(variance))


def _exceeds(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of b that each of a exceeds, ties half."""
    ordered = np.sort(np.asarray(b, np.float64))
    a = np.asarray(a, np.float64)
    return (np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")) / (2 * len(ordered))
