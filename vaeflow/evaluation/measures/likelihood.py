"""The negative log-likelihood of a split: exact, by IWAE-k, or a bound, whichever the model's log_prob supports."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import mean_se, prepare_log_likelihood
from vaeflow.evaluation.measures.measure import Evaluation, Finding, MeasureFn, findings
from vaeflow.evaluation.reliability import PARETO_LIMIT
from vaeflow.model import Array, Model, Params


class LikelihoodSettings(NamedTuple):
    """k: draws per example, if log_prob is stochastic. chunk: draws at a time (memory)."""

    k: Count = 100
    chunk: Count = 10


WHAT = {
    "nll": "negative log-likelihood, nats per example",
    "estimator": "of the NLL",
    "k": "draws per example",
    "nll_mc_se": "Monte Carlo standard error of the NLL",
    "ess": "effective sample size of the importance weights, mean over examples",
    "elbo_k": "mean of the log-weights: the ELBO from k draws",
    "pareto_k_median": f"shape of the weights' tail, median over examples; above {PARETO_LIMIT:g} unreliable",
    "pareto_k_bad_share": f"share of the examples with a shape above {PARETO_LIMIT:g}",
    "bits_per_dim": "NLL / (dimensions log 2)",
    "bits_per_character": "NLL / (characters log 2)",
    "true_nll": "negative log-likelihood of the true density, nats per example",
    "kl_to_truth": "KL(true density || model), nats",
}


def needs(run: Evaluation, settings: LikelihoodSettings) -> None:
    """UserError: the model has no density."""
    del settings
    if run.model.log_prob is None:
        raise UserError(f"model.kind={run.config.model['kind']!r} has no density")


def prepare(run: Evaluation, settings: LikelihoodSettings) -> MeasureFn:
    """See the module's docstring; `arrays` has log_prob [N]."""
    model, source, split, k = run.model, run.source, run.split, settings.k
    estimate = prepare_log_likelihood(model, run.params, split, run.key, k=k, chunk=settings.chunk, **run.options)
    scale = math.prod(split.x.shape[1:]) * math.log(2)
    truth = None
    if source.density is not None and model.density == "exact":
        truth = np.asarray(source.density(split.x), np.float64)

    def measure(params: Params, key: Array) -> dict[str, Finding]:
        found = estimate(params, key)
        out = likelihood_terms(model, found, k)
        unit = "bits_per_character" if source.alphabet else "bits_per_dim" if source.levels and split.x.ndim == 4 else ""
        if unit and not model.note:
            out |= {unit: out["nll"] / scale, f"{unit}_se": out["nll_se"] / scale}
        if truth is not None:
            out["true_nll"] = -float(truth.mean())
            out["kl_to_truth"], out["kl_to_truth_se"] = mean_se(truth - found["log_prob"])
        named = findings(out, WHAT)
        return named | {"nll": named["nll"]._replace(arrays={"log_prob": found["log_prob"]})}

    return measure


def likelihood_terms(model: Model, found: dict[str, np.ndarray], k: int) -> dict[str, Any]:
    """The summary of `log_likelihood`: nll, its standard errors and, for importance weights, the numbers from which `reliability`
    decides whether they support an estimate or only a bound."""
    nll, se = mean_se(-found["log_prob"])
    out: dict[str, Any] = {"nll": nll, "nll_se": se}

    def told(estimator):
        return {"estimator": ", ".join(filter(None, (estimator, model.remark)))}

    if model.density == "exact":
        return out | told("exact")
    named = {"bound": "bound", "estimate": "unbiased estimate"}.get(model.density, "")
    if named and "se" not in found:  # no draw in it
        return out | told(named)
    monte_carlo = np.sqrt((np.asarray(found["se"], np.float64) ** 2).sum()) / len(found["se"])
    out |= told(f"{named}, mean of {k} draws" if named else f"IWAE-{k}") | {"k": k, "nll_mc_se": float(monte_carlo)}
    if named:
        return out
    out["ess"] = float(found["ess"].mean(dtype=np.float64))
    out["elbo_k"], out["elbo_k_se"] = mean_se(found["elbo"])
    if np.isfinite(found["pareto_k"]).any():
        out["pareto_k_median"] = float(np.median(found["pareto_k"]))
        out["pareto_k_bad_share"] = float((found["pareto_k"] > PARETO_LIMIT).mean())
    return out
