"""The terms of the ELBO and what the latent units do, over a whole split.

Every number is per example in nats, an average over the examples of one split; standard errors are over examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.data import Split
from vaeflow.distributions import Joint
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.model import Array, Model, Params

# Burda, Grosse, Salakhutdinov (2015): a latent unit is active when the variance over x of its posterior mean exceeds this.
ACTIVE = 0.01
# Or where its KL exceeds this, in nats (the VAE guide's count).
ACTIVE_KL = 0.1
# Draws per half when a posterior's mean has no formula.
_MEAN_DRAWS = 32


def gaussian(d: Any) -> tuple[Array, Array] | None:
    """(mean, standard deviation) [*batch, *event] of a distribution that is a diagonal Gaussian, else None."""
    if isinstance(d, distrax.Independent):
        d = d.distribution
    if isinstance(d, distrax.MultivariateNormalDiag | distrax.Normal):
        mean, std = jnp.asarray(d.mean()), jnp.asarray(d.stddev())
        shape = jnp.broadcast_shapes(mean.shape, std.shape)
        return jnp.broadcast_to(mean, shape), jnp.broadcast_to(std, shape)
    return None


def gaussian_kl(q: tuple[Array, Array], p: tuple[Array, Array]) -> Array:
    """KL(N(m, s^2) || N(n, t^2)) = log t/s + (s^2 + (m - n)^2) / (2 t^2) - 1/2, per dimension."""
    (m, s), (n, t) = q, p
    return jnp.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5


def elbo_terms(model: Model) -> Example:
    """One example -> recon = -log p(x|z) with z ~ q(z|x), kl = KL(q||p): analytic between diagonal Gaussians (and then also
    `kl_per_dim` [D]), else log q(z|x) - log p(z) with the same draw (and `kl_per_level` [L] of a hierarchy)."""
    assert model.latent is not None
    latent = model.latent

    def fn(params, key, batch):
        x, context = batch["x"], batch.get("context")
        q, p = latent.posterior(params, x, context), latent.prior(params, context)
        z, log_q = q.sample_and_log_prob(seed=key)
        out = {"recon": -latent.likelihood(params, z, context).log_prob(x)[0]}
        ours, theirs = gaussian(q), gaussian(p)
        if ours is None or theirs is None:
            if isinstance(q, Joint) and isinstance(p, Joint):
                per_level = (q.level_log_prob(z) - p.level_log_prob(z))[0]
                return out | {"kl": per_level.sum(), "kl_per_level": per_level}
            return out | {"kl": (log_q - p.log_prob(z))[0]}
        per_dim = gaussian_kl(ours, theirs)[0].ravel()
        return out | {"kl": per_dim.sum(), "kl_per_dim": per_dim}

    return fn


def own_terms(model: Model) -> Example:
    """One example -> the model's `terms` but "loss", a name of training."""
    assert model.terms is not None
    terms = model.terms

    def fn(params, key, batch):
        return {name: values[0] for name, values in terms(params, jax.random.fold_in(key, 1), batch).items() if name != "loss"}

    return fn


def posterior_means(model: Model) -> Example:
    """One example -> two estimates a, b [D] of E_q[z] with independent errors, so that Cov_x(a, b) is an unbiased estimate
    of Var_x(E_q[z]); both are the mean itself where q is Gaussian."""
    assert model.latent is not None
    latent = model.latent

    def fn(params, key, batch):
        q = latent.posterior(params, batch["x"], batch.get("context"))
        known = gaussian(q)
        if known is not None:
            return {"a": known[0][0].ravel(), "b": known[0][0].ravel()}
        draws = q.sample(seed=key, sample_shape=(2, _MEAN_DRAWS))
        a, b = draws.mean(1).reshape(2, -1)
        return {"a": a, "b": b}

    return fn


def latent_terms(model: Model, params: Params, split: Split, key: Array, *, batch: int, **options: Any) -> dict[str, Any]:
    """{neg_elbo, recon, kl, each with `_se`, kl_kind, kl_per_dim or kl_per_level, active_units, latent_units, unit_variance} over a split.

    unit_variance is Var_x E_q[z] of every unit, active are those above ACTIVE; kl_active_units counts the dimensions whose KL exceeds
    ACTIVE_KL. Of a hierarchy active_units and latent_units are the sums over its levels, active_per_level and units_per_level say them one
    by one. Latents that are codes (integers) have no units.
    """
    return prepare_latent_terms(model, params, split, key, batch=batch, **options)(params)


def prepare_latent_terms(
    model: Model, shapes: Params, split: Split, key: Array, *, batch: int, **options: Any
) -> Callable[..., dict[str, Any]]:
    """(params, another key or None) -> `latent_terms`; a second call compiles nothing. shapes: the parameters or their shapes."""
    assert model.latent is not None
    posterior = model.latent.posterior
    one = {name: np.asarray(a[:1]) for name, a in (("x", split.x), ("context", split.context)) if a is not None}
    q = jax.eval_shape(lambda p, one: posterior(p, one["x"], one.get("context")).sample(seed=key), shapes, one)
    elbos = map_split(elbo_terms(model), split, key, batch=batch, **options)
    variances = prepare_posterior_mean_variance(model, split, key, batch=batch, **options)

    def run(params: Params, key: Array | None = None) -> dict[str, Any]:
        out, vectors = _mean_terms(elbos(params, key))
        if not jnp.issubdtype(q.dtype, jnp.inexact):
            return out
        variance = variances(params, key)
        active = variance > ACTIVE
        out |= {"active_units": int(active.sum()), "latent_units": active.size, "unit_variance": variance.tolist()}
        if "kl_per_level" in vectors and (sizes := level_sizes(model, params, one)):
            out["active_per_level"] = [int(level.sum()) for level in np.split(active, np.cumsum(sizes)[:-1])]
            out["units_per_level"] = list(sizes)
        return out

    return run


def _mean_terms(parts: Iterator[dict[str, np.ndarray]]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """(the means over a split with their standard errors, the sums of the vectors) of what `elbo_terms` gives, dispatch by dispatch."""
    totals, vectors = [], {}
    for part in parts:
        for name in ("kl_per_dim", "kl_per_level"):
            if name in part:
                vectors[name] = vectors.get(name, 0.0) + part.pop(name).sum(0, dtype=np.float64)
        totals.append(part)
    terms = gather(iter(totals))
    terms["neg_elbo"] = terms["recon"] + terms["kl"]
    out: dict[str, Any] = {}
    for name in ("neg_elbo", "recon", "kl"):
        out[name], out[f"{name}_se"] = mean_se(terms[name])
    out["kl_kind"] = "analytic" if "kl_per_dim" in vectors else "Monte Carlo"
    out |= {name: (total / len(terms["kl"])).tolist() for name, total in vectors.items()}
    if "kl_per_dim" in out:
        out["kl_active_units"] = sum(kl > ACTIVE_KL for kl in out["kl_per_dim"])
    return out, vectors


def level_sizes(model: Model, params: Params, one: dict[str, Any]) -> tuple[int, ...]:
    """The sizes of a hierarchy's levels in its latent vector; `one` is a batch of one example."""
    assert model.latent is not None
    posterior = model.latent.posterior
    levels = jax.eval_shape(lambda p, one: [jnp.zeros(n) for n in posterior(p, one["x"], one.get("context")).sizes], params, one)
    return tuple(level.size for level in levels)


def posterior_mean_variance(model: Model, params: Params, split: Split, key: Array, *, batch: int, **options: Any) -> np.ndarray:
    """Var over the split's x of E_q[z|x], [D]: streamed sums in float64."""
    return prepare_posterior_mean_variance(model, split, key, batch=batch, **options)(params)


def prepare_posterior_mean_variance(model: Model, split: Split, key: Array, *, batch: int, **options: Any) -> Callable[..., np.ndarray]:
    """(params, another key or None) -> `posterior_mean_variance`; a second call compiles nothing."""
    means = map_split(posterior_means(model), split, key, batch=batch, draws=2 * _MEAN_DRAWS, **options)

    def run(params: Params, key: Array | None = None) -> np.ndarray:
        count, a, b, ab = 0, 0.0, 0.0, 0.0
        for part in means(params, key):
            one, two = np.asarray(part["a"], np.float64), np.asarray(part["b"], np.float64)
            count += len(one)
            a, b, ab = a + one.sum(0), b + two.sum(0), ab + (one * two).sum(0)
        return np.asarray(ab - a * b / count) / max(count - 1, 1)

    return run
