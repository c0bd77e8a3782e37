"""What a latent says about x: mutual information, the aggregate posterior's KL to the prior and its parts, reconstruction error.

ELBO surgery (Hoffman & Johnson 2016) over N examples, with the aggregate posterior q(z) = 1/N sum_n q(z|x_n) and z_n ~ q(z|x_n):

    R = E KL(q(z|x) || p(z)) = I + KL(q(z) || p(z)),      I = E_n [log q(z_n|x_n) - log q(z_n)]

The rate R and the distortion D = -E log p(x|z) are `kl` and `recon` of elbo.py. Since q(z) >= q(z|x_n) / N, I is at most log N: where
posteriors do not overlap it is log N, whatever a larger set would give. How near an estimate is to that is the share of an
example's own posterior in q(z_n), q(z_n|x_n) / (N q(z_n)): 1 there, 1/N where z says nothing of x. In expectation I is a lower bound
of the information about a fresh x (its contrastive bound with the true density: Poole et al. 2019), so KL(q(z) || p(z)) = R - I is an
upper one.

Where q(z|x) is a diagonal Gaussian, the decomposition of Chen et al. (2018) too; its TC is large where the latents depend on each other:

    KL(q(z) || p(z)) = TC + sum_d KL(q(z_d) || p(z_d)),      TC = KL(q(z) || prod_d q(z_d))       (for a prior that factorises)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.data import Split
from vaeflow.evaluation.elbo import gaussian, gaussian_kl
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.evaluation.map_split import Example, gather, map_split
from vaeflow.model import Array, Model, Params
from vaeflow.training.flops import flops

# Examples at the most: of diagonal Gaussians, whose N^2 densities are matrix products; of their marginals, N^2 D exponentials; of any other
# q(z|x), whose N^2 densities may take PAIR_FLOPS. Each is about a second of two CPU cores.
EXAMPLES, MARGINAL_EXAMPLES, OTHER_EXAMPLES = 10_000, 2_000, 1_000
PAIR_FLOPS = 2e10
# With fewer, I would be its bound log N and nothing else.
FEWEST = 100
# The share of the own posterior from which on the estimate is called saturated: q(z) is then mostly one example.
SATURATED = 0.5
# Posterior collapse: a rate (or a level's) in nats below this, or a share of active units below that.
COLLAPSED_KL, FEW_UNITS = 0.1, 1 / 3
# Densities at once: of Gaussians as many as fit into a CPU's cache; where networks run for each of them, what they need of memory counts.
_BLOCK, _NETWORK_BLOCK = 1 << 20, 1 << 15


def information_terms(model: Model, params: Params, split: Split, key: Array, *, top: float, **options: Any) -> dict[str, Any]:
    """What stands in results.json beside R and D, each with `_se` over its examples, which are evenly spaced ones of the split.

    information, aggregate_kl          I and KL(q(z) || p(z)) over `information_examples`; own_share, saturated: see above
    total_correlation, dimension_kl    TC and sum_d KL(q(z_d) || p(z_d)) over `marginal_examples`; dimension_kl_per_dim [D]
    recon_mse                          see `reconstruction_error`, over `recon_mse_examples`
    information_note                   why some of these are left out

    top: what the model's x are divided by to give intensities in [0, 1]; options: those of `map_split.map_split`.
    """
    assert model.latent is not None
    some = evenly(split, MARGINAL_EXAMPLES)
    error = gather(map_split(reconstruction_error(model, top), some, key, **options)(params))["mse"]
    out: dict[str, Any] = {"recon_mse_examples": len(error)}
    out["recon_mse"], out["recon_mse_se"] = mean_se(error)
    shapes = jax.eval_shape(drawn_latents(model), params, key, _batch(split, slice(1)))
    known = "mean" in shapes
    size = EXAMPLES if known else affordable(model, params, split, shapes["z"])
    if size < FEWEST:
        return out | {
            "information_note": f"I and KL(q(z) || p(z)) are left out: {FEWEST}^2 densities of q(z|x) take more than {PAIR_FLOPS:g} FLOPs"
        }
    some = evenly(split, size)
    drawn = gather(map_split(drawn_latents(model), some, key, **options)(params))
    log_q = aggregate(**_only(drawn, "z", "mean", "std", "log_q")) if known else aggregate_of(model, params, drawn)
    information = drawn["log_q"] - log_q
    share = float(np.exp(information).mean(dtype=np.float64) / len(log_q))
    out |= {"information_examples": len(log_q), "own_share": share, "saturated": share > SATURATED}
    out["information"], out["information_se"] = mean_se(information)
    if is_one_prior(model, params, split):
        out["aggregate_kl"], out["aggregate_kl_se"] = mean_se(drawn["kl"] - information)
    else:
        out["information_note"] = "KL(q(z) || p(z)) is left out: p depends on the context"
    return out | (marginal_terms(drawn, "aggregate_kl" in out) if known else {})


def evenly(split: Split, most: int) -> Split:
    """`most` evenly spaced examples of a split, or all of one that is not larger."""
    n = len(split.x)
    if n <= most:
        return split
    rows = np.arange(most) * n // most
    return Split(*(None if a is None else np.asarray(a[rows]) for a in split))  # type: ignore[arg-type]


def _batch(split: Split, rows: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(a[rows]) for name, a in zip(("x", "context"), split, strict=False) if a is not None}


def _only(arrays: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: arrays[name] for name in names}


def drawn_latents(model: Model) -> Example:
    """One example -> z ~ q(z|x), log_q = log q(z|x), kl (as in elbo.py), and what makes q at another z: mean and std [D] of a diagonal
    Gaussian (and those of such a prior), else the x and the context that it was given (x binarized where that is dynamic)."""
    assert model.latent is not None
    latent = model.latent

    def fn(params, key, batch):
        x, context = batch["x"], batch.get("context")
        q, p = latent.posterior(params, x, context), latent.prior(params, context)
        z, log_q = q.sample_and_log_prob(seed=key)
        ours, theirs = gaussian(q), gaussian(p)
        out = {"log_q": log_q[0]}
        if ours is None:
            return out | {"z": z[0], "kl": (log_q - p.log_prob(z))[0]} | {name: a[0] for name, a in batch.items()}
        out |= {"z": z[0].ravel(), "mean": ours[0][0].ravel(), "std": ours[1][0].ravel()}
        if theirs is None:
            return out | {"kl": (log_q - p.log_prob(z))[0]}
        mean, std = (jnp.broadcast_to(a, z.shape).ravel() for a in theirs)
        return out | {"kl": gaussian_kl(ours, theirs).sum(), "prior_mean": mean, "prior_std": std}

    return fn


def is_one_prior(model: Model, params: Params, split: Split) -> bool:
    """Whether p(z) is the same for all examples."""
    assert model.latent is not None
    prior = model.latent.prior
    return split.context is None or not jax.eval_shape(lambda p, c: jnp.zeros(prior(p, c).batch_shape), params, split.context[:1]).shape


def reconstruction_error(model: Model, top: float) -> Example:
    """One example -> mse: the mean over its elements of (x - E[x|z])^2 / top^2 at the posterior's mean, or at one draw where the mean has
    no formula."""
    assert model.latent is not None
    latent = model.latent

    def fn(params, key, batch):
        x, context = batch["x"], batch.get("context")
        q = latent.posterior(params, x, context)
        known = gaussian(q)
        z = q.sample(seed=key) if known is None else known[0]
        return {"mse": jnp.mean(((latent.likelihood(params, z, context).mean() - x) / top) ** 2)}

    return fn


def aggregate(z: np.ndarray, mean: np.ndarray, std: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """log q(z_n) = log 1/N sum_m N(z_n; mean_m, diag(std_m)^2): z, mean, std [N, D], log_q [N] = log q(z_n|x_n) -> [N].

    sum_d (z - m)^2 / s^2 = z^2 . s^-2 - 2 z . (m s^-2) + m^2 . s^-2 is three products over pairs. In float32 it is exact to 1e-7 (z/s)^2:
    the own term, by which a narrow posterior counts, is taken from log_q.
    """
    center = mean.mean(0)
    return np.asarray(_aggregate(z - center, mean - center, std, log_q))


@jax.jit
def _aggregate(z, mean, std, log_q):
    n, d = z.shape
    weight = std**-2
    linear, constant = mean * weight, -0.5 * jnp.sum(mean**2 * weight, -1) - jnp.sum(jnp.log(std), -1) - 0.5 * d * math.log(2 * math.pi)

    def row(one):
        z, own, i = one
        products = jnp.matmul(linear, z, precision="highest") - 0.5 * jnp.matmul(weight, z**2, precision="highest")
        return _mix(products + constant, own, i)

    return jax.lax.map(row, (z, log_q, jnp.arange(n)), batch_size=max(_BLOCK // n, 1))


def _mix(log_q: Array, own: Array, i: Array) -> Array:
    """log 1/N sum_m exp(log_q [N]), with `own` in the place i."""
    return jax.nn.logsumexp(jnp.where(jnp.arange(len(log_q)) == i, own, log_q)) - math.log(len(log_q))


def aggregate_of(model: Model, params: Params, drawn: Mapping[str, np.ndarray]) -> np.ndarray:
    """log q(z_n) [N] by the log_prob of any posterior, from `drawn_latents`."""
    assert model.latent is not None
    latent, n = model.latent, len(drawn["z"])

    @jax.jit
    def fn(params, drawn):
        q = latent.posterior(params, drawn["x"], drawn.get("context"))

        def row(one):
            z, own, i = one
            return _mix(q.log_prob(jnp.broadcast_to(z, (n, *z.shape))), own, i)

        return jax.lax.map(row, (drawn["z"], drawn["log_q"], jnp.arange(n)), batch_size=max(_NETWORK_BLOCK // n, 1))

    return np.asarray(fn(params, dict(drawn)))


def affordable(model: Model, params: Params, split: Split, z: Any) -> int:
    """N such that N^2 densities of the posterior at given x take PAIR_FLOPS, at the most OTHER_EXAMPLES; z: the shape of one latent."""
    assert model.latent is not None
    posterior = model.latent.posterior

    def density(params, batch, z):
        q = posterior(params, batch["x"], batch.get("context"))
        return jax.vmap(q.log_prob)(z)

    one, two = (flops(density, params, _batch(split, slice(1)), jax.ShapeDtypeStruct((k, 1, *z.shape), z.dtype)) for k in (1, 2))
    return min(OTHER_EXAMPLES, math.isqrt(int(PAIR_FLOPS / max(two - one, 1))))


def marginal_terms(drawn: Mapping[str, np.ndarray], one_prior: bool) -> dict[str, Any]:
    """TC and the KL of the one-dimensional marginals, from `drawn_latents` of diagonal Gaussians: all of one q(z), of MARGINAL_EXAMPLES at
    the most. The KL only to `one_prior` that is a diagonal Gaussian."""
    rows = np.arange(size := min(len(drawn["z"]), MARGINAL_EXAMPLES)) * len(drawn["z"]) // size
    some = {name: a[rows] for name, a in drawn.items()}
    log_q = aggregate(**_only(some, "z", "mean", "std", "log_q"))
    marginals = np.asarray(_marginals(some["z"], some["mean"], some["std"]), np.float64)
    out: dict[str, Any] = {"marginal_examples": size}
    out["total_correlation"], out["total_correlation_se"] = mean_se(log_q - marginals.sum(-1))
    if one_prior and "prior_mean" in some:
        gap = marginals - np.asarray(_log_normal(some["z"], some["prior_mean"], some["prior_std"]))
        out["dimension_kl"], out["dimension_kl_se"] = mean_se(gap.sum(-1))
        out["dimension_kl_per_dim"] = gap.mean(0).tolist()
    return out


def _log_normal(z, mean, std):
    return -0.5 * ((z - mean) / std) ** 2 - jnp.log(std) - 0.5 * math.log(2 * math.pi)


@jax.jit
def _marginals(z, mean, std):
    """log q(z_nd) = log 1/N sum_m N(z_nd; mean_md, std_md^2): [N, D] -> [N, D]."""

    def row(one):
        return jax.nn.logsumexp(_log_normal(one, mean, std), axis=0) - math.log(len(mean))

    return jax.lax.map(row, z, batch_size=max(_BLOCK // mean.size, 1))


def collapse_warnings(found: Mapping[str, Any]) -> list[str]:
    """Lines about a latent that is not used, from `elbo.latent_terms`: all of it, most of its units, or levels of a hierarchy."""
    kl = f"KL {found['kl']:.2f} nats"
    units, active = found.get("latent_units", 0), found.get("active_units", 0)
    words = f"{active} of {units} units are active, {kl}" if units else kl
    if (units and not active) or found["kl"] < COLLAPSED_KL:
        return [f"posterior collapse: {words}"]
    lines = [f"most units are not used: {words}"] if active < FEW_UNITS * units else []
    levels = found.get("kl_per_level", ())
    dead = [f"level {i} of {len(levels)} (KL {rate:.2f} nats)" for i, rate in enumerate(levels, 1) if rate < COLLAPSED_KL]
    return lines + ([f"posterior collapse: {', '.join(dead)}"] if dead else [])
