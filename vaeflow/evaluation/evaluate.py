"""The numbers of a whole split: likelihood estimates with their standard errors, the ELBO's terms, active units.

Every number is per example in nats, an average over the examples of one split, and is stored with what it is: the
estimator, k, the split, the number of examples. Standard errors are over examples unless they are called `mc`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vaeflow.data import Source, Split
from vaeflow.evaluation import density_grid
from vaeflow.evaluation.elbo import elbo_terms, gaussian, latent_terms, own_terms
from vaeflow.evaluation.information import collapse_warnings, information_terms
from vaeflow.evaluation.likelihood import average, log_likelihood, mean_se
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.evaluation.reliability import PARETO_LIMIT
from vaeflow.model import Array, Model, Params
from vaeflow.rng import eval_key
from vaeflow.runs.progress import phase
from vaeflow.training.devices import Devices
from vaeflow.training.setup import Experiment


def validator(x: Experiment) -> Callable[..., dict[str, float]]:
    """`make_validate` of a run that has a validation split."""
    assert x.source.val is not None
    return make_validate(x.model, x.source.val, x.source.levels, x.config.data.binarize, x.config.seed, x.eval.batch, x.devices)


def make_validate(
    model: Model, split: Split, levels: int, binarize: str, seed: int, batch: int, devices: Devices | None = None
) -> Callable[..., dict[str, float]]:
    """params -> {"loss", "recon", "kl"}: what `best` is selected by, as ONE compiled function over data that stay on the device. (A
    second argument takes the place of the seed's key.)

    loss = -mean log_prob (one draw at fixed keys, beta 1; absent without a density); recon and kl where there is a latent. The
    draws of loss and of recon are different ones, so loss = recon + kl only in expectation. A model's `terms` come before -log_prob.
    """
    parts: dict[str, Example] = {}
    if model.log_prob is not None:
        parts["loss"] = average(model, 1)
    if model.latent is not None:
        parts["terms"] = elbo_terms(model)

    def fn(params, key, one):
        out: dict[str, Array] = {}
        first, second = jax.random.split(key)
        if model.terms is not None:
            out |= {name: values[0] for name, values in model.terms(params, jax.random.fold_in(key, 1), one).items()}
        if "loss" in parts and "loss" not in out:
            out["loss"] = -parts["loss"](params, first, one)["log_prob"]
        if "terms" in parts:
            terms = parts["terms"](params, second, one)
            out |= {"recon": terms["recon"], "kl": terms["kl"]}
        return out

    levels = levels if binarize == "dynamic" else 0
    run = map_split(fn, split, eval_key(seed), batch=batch, levels=levels, devices=devices, resident=True)

    def validate(params: Params, key: Array | None = None) -> dict[str, float]:
        return {name: float(values.mean(dtype=np.float64)) for name, values in gather(run(params, key)).items()}

    return validate


def encode(
    model: Model, params: Params, split: Split, source: Source, config: Any, devices: Devices | None = None
) -> dict[str, np.ndarray]:
    """Per-example arrays: posterior `mean` and `std` [N, *latent] (or one draw `z` when q is no Gaussian; a flow's z), and
    `log_prob` [N], one draw of the model's estimator."""

    def fn(params, key, one):
        out: dict[str, Array] = {}
        first, second = jax.random.split(key)
        if model.log_prob is not None:
            out["log_prob"] = model.log_prob(params, first, one)[0]
        if model.latent is not None:
            q = model.latent.posterior(params, one["x"], one.get("context"))
            known = gaussian(q)
            out |= {"z": q.sample(seed=second)[0]} if known is None else {"mean": known[0][0], "std": known[1][0]}
        elif model.encode is not None:
            out["z"] = model.encode(params, second, one)[0]
        return out

    return gather(map_split(fn, split, eval_key(config.seed), **map_options(source, config, devices))(params))


def results(model: Model, params: Params, source: Source, name: str, config: Any, devices: Devices | None = None) -> dict[str, Any]:
    """`measured`, without the examples' own numbers."""
    return measured(model, params, source, name, config, devices)[0]


def measured(
    model: Model, params: Params, source: Source, name: str, config: Any, devices: Devices | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray], density_grid.GridDensity | None]:
    """(everything that results.json says about the split `name`: plain numbers, strings and lists; {log_prob: [N]} of its examples, where
    there is one: two runs compare by the differences on the same examples; the density on a grid, of two-dimensional data).

    `config` is the run's: its eval.k, eval.chunk, eval.batch, seed and data.binarize count.
    """
    started = time.perf_counter()
    split, key, k = source.split(name), eval_key(config.seed), config.eval.k
    options = map_options(source, config, devices)
    own: dict[str, np.ndarray] = {}
    out: dict[str, Any] = {"split": name, "examples": len(split.x), "units": "nats per example", "binarize": config.data.binarize}
    out |= {"density": model.density, "note": model.note}
    if model.latent is not None:
        with phase(f"ELBO and active units, {name} split"):
            out |= latent_terms(model, params, split, key, **options)
        top = max(source.levels - 1, 1) if config.data.binarize != "dynamic" else 1
        with phase("mutual information and aggregate posterior"):
            out |= information_terms(model, params, split, key, top=top, **options) | {"warnings": collapse_warnings(out)}
    if model.log_prob is not None:
        with phase(f"log-likelihood{'' if model.density == 'exact' else f', {k} draws per example'}, {name} split"):
            found = log_likelihood(model, params, split, key, k=k, chunk=config.eval.chunk, **options)
        out |= likelihood_terms(model, found, k)
        own["log_prob"] = found["log_prob"]
        if source.levels and split.x.ndim == 4 and not model.note:
            scale = math.prod(split.x.shape[1:]) * math.log(2)
            out |= {"bits_per_dim": out["nll"] / scale, "bits_per_dim_se": out["nll_se"] / scale}
        if source.density is not None and model.density == "exact":
            truth = np.asarray(source.density(split.x), np.float64)
            out["true_nll"] = -float(truth.mean())
            out["kl_to_truth"], out["kl_to_truth_se"] = mean_se(truth - found["log_prob"])
    if model.terms is not None:
        with phase("terms of the model"):
            terms = gather(map_split(own_terms(model), split, key, **options)(params))
        for term, values in terms.items():
            out[term], out[f"{term}_se"] = mean_se(values)
    plane = None
    if density_grid.applies(model, split.x):
        with phase("density on a grid"):
            plane = density_grid.density(model, params, split, key, devices=devices)
        out["integral"] = plane.integral
    device = jax.devices()[0]
    out |= {"device": device.device_kind, "platform": device.platform, "device_count": 1 if devices is None else devices.count}
    return out | {"seconds": time.perf_counter() - started}, own, plane


def map_options(source: Source, config: Any, devices: Devices | None = None) -> dict[str, Any]:
    """The options of `map_split.map_split` that a run's config gives."""
    return dict[str, Any](batch=config.eval.batch, levels=source.levels if config.data.binarize == "dynamic" else 0, devices=devices)


def likelihood_terms(model: Model, found: dict[str, np.ndarray], k: int) -> dict[str, Any]:
    """The summary of `log_likelihood`: nll, its standard errors and, for importance weights, the numbers from which `reliability`
    decides whether they support an estimate or only a bound."""
    nll, se = mean_se(-found["log_prob"])
    out: dict[str, Any] = {"nll": nll, "nll_se": se}
    if model.density == "exact":
        return out | {"estimator": "exact"}
    if model.density == "bound" and "se" not in found:  # no draw in it
        return out | {"estimator": "bound"}
    monte_carlo = np.sqrt((np.asarray(found["se"], np.float64) ** 2).sum()) / len(found["se"])
    out |= {"estimator": f"IWAE-{k}" if model.density == "weight" else f"bound, mean of {k} draws", "k": k, "nll_mc_se": float(monte_carlo)}
    if model.density == "bound":
        return out
    out["ess"] = float(found["ess"].mean(dtype=np.float64))
    out["elbo_k"], out["elbo_k_se"] = mean_se(found["elbo"])
    if np.isfinite(found["pareto_k"]).any():
        out["pareto_k_median"] = float(np.median(found["pareto_k"]))
        out["pareto_k_bad_share"] = float((found["pareto_k"] > PARETO_LIMIT).mean())
    return out
