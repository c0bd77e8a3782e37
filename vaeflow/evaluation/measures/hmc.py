"""The marginal likelihood of small latents by HMC and a fitted density (Kingma & Welling 2014, "Auto-encoding variational Bayes",
appendix D).

    C chains of HMC on p(z|x), the first draws of q(z|x); a density q^(z) is fitted to the first half of their samples, and over the
    second half

        1 / p(x) = E_(p(z|x)) [ q^(z) / (p(z) p(x|z)) ]

because q^ integrates to 1, whatever it is; the closer it is to the posterior, the smaller the variance. By Jensen's inequality the
estimate of log p(x) is too high in expectation. A Gaussian is fitted to few dimensions only: the check refuses more than `limit`.

Samples of a chain depend on each other, those of different chains do not: the Monte Carlo error is the spread of the C chains' means.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from vaeflow.build import Count, Decay, Fraction, Natural, Positive, Range
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import iwae
from vaeflow.evaluation.measures.chains import Target, log_mean, target
from vaeflow.evaluation.measures.measure import Evaluation, Finding, latent, mean, monte_carlo, over, posterior_shape
from vaeflow.hmc import LogDensity, adapt, blackjax, move_all
from vaeflow.model import Array
from vaeflow.objectives import iwae as log_mean_exp


class HMCSettings(NamedTuple):
    """Of the HMC estimator.

    chains     C, per example
    warmup     transitions that find the step size and are thrown away
    samples    transitions a chain that count: half for the fit, half for the estimate
    density    q^: full (a Gaussian with any covariance) | diagonal
    leapfrog   steps of one transition
    step_size  of the leapfrog where the warm-up begins
    jitter     of the step size, see chains.move
    accept     probability of acceptance that the warm-up aims at; gain: of its stochastic approximation, see chains.adapt
    limit      the most dimensions that the latent may have
    k          draws of IWAE-k to compare with; 0: none
    """

    chains: Annotated[int, Range(2)] = 16
    warmup: Count = 200
    samples: Annotated[int, Range(2)] = 1000
    density: Literal["full", "diagonal"] = "full"
    leapfrog: Count = 10
    step_size: Positive = 0.1
    jitter: Decay = 0.2
    accept: Fraction = 0.8
    gain: Positive = 0.1
    limit: Count = 10
    k: Natural = 1000


def sample(key: Array, aim: Target, s: HMCSettings) -> tuple[Array, Array]:
    """(z [samples, C, *event] from p(z|x), the mean probability of acceptance)."""
    start, warm, moves = jax.random.split(key, 3)

    def step(carry, key):
        z, size = carry
        z, accepted = move_all(key, z, aim.log_joint, size, s.leapfrog, s.jitter)
        return (z, adapt(size, accepted, s.accept, s.gain)), None

    def draw(z, key):
        z, accepted = move_all(key, z, aim.log_joint, size, s.leapfrog, s.jitter)
        return z, (z, accepted)

    z = jax.vmap(aim.draw_q)(jax.random.split(start, s.chains))
    (z, size), _ = jax.lax.scan(step, (z, jnp.asarray(s.step_size, z.dtype)), jax.random.split(warm, s.warmup))
    _, (z, accepted) = jax.lax.scan(draw, z, jax.random.split(moves, s.samples))
    return z, accepted.mean()


def fit(z: Array, density: str) -> LogDensity:
    """log q^ of the Gaussian with the mean and the covariance (or the variances) of z [n, D]: [..., D] -> [...]."""
    middle = z.mean(0)
    if density == "diagonal":
        spread = z.std(0)
        return lambda z: stats.norm.logpdf(z, middle, spread).sum(-1)
    cov = jnp.atleast_2d(jnp.cov(z, rowvar=False))
    return lambda z: jnp.asarray(stats.multivariate_normal.logpdf(z, middle, cov))


def estimate(key: Array, aim: Target, s: HMCSettings) -> dict[str, Array]:
    """{log_p, se, accepted, ess, rhat} of one example; ess is that of log p(x, z), rhat the largest over it and the dimensions of z
    (Gelman & Rubin 1992)."""
    z, accepted = sample(key, aim, s)
    flat, log_joint = z.reshape(s.samples, s.chains, -1), jax.vmap(jax.vmap(aim.log_joint))(z)
    half = s.samples // 2
    log_density = fit(flat[:half].reshape(half * s.chains, -1), s.density)
    value, _, se = log_mean(log_mean_exp(log_density(flat[half:]) - log_joint[half:]))
    watched = jnp.concatenate([flat, log_joint[..., None]], axis=-1)
    return {
        **{"log_p": -value, "se": se, "accepted": accepted},
        "ess": blackjax().diagnostics.effective_sample_size(log_joint, chain_axis=1, sample_axis=0),
        "rhat": blackjax().diagnostics.potential_scale_reduction(watched, chain_axis=1, sample_axis=0).max(),
    }


def estimates(run: Evaluation, s: HMCSettings) -> dict[str, np.ndarray]:
    """Per-example arrays [N] of `estimate`."""
    found, shape = latent(run), posterior_shape(run)[0]

    def fn(params, key, batch):
        return estimate(key, target(found, params, batch, shape), s)

    return over(run, "hmc", fn, draws=s.chains * (s.warmup + s.samples) * s.leapfrog)


def needs(run: Evaluation, settings: HMCSettings) -> None:
    """UserError: the latent is not continuous, or too large."""
    size = math.prod(posterior_shape(run)[0])
    if (points := settings.samples // 2 * settings.chains) <= size:
        raise UserError(
            f"hmc.samples={settings.samples}, hmc.chains={settings.chains} leave {points} points to fit a density of {size} dimensions"
        )
    if size > settings.limit:
        raise UserError(
            f"the latent has {size} dimensions, and a Gaussian fitted to samples is for few: hmc.limit={settings.limit}; take ais"
        )


def check(run: Evaluation, settings: HMCSettings) -> dict[str, Finding]:
    """log p(x) by the HMC estimator, beside IWAE-k on the same examples."""
    s, found = settings, estimates(run, settings)
    how = f"HMC, {s.chains} chains of {s.samples} samples and a Gaussian ({s.density} covariance) fitted to half of them"
    return {
        "log_p": mean(found["log_p"], f"log p(x) by {how}; too high in expectation"),
        "mc_se": monte_carlo(found["se"], "log_p"),
        **iwae.beside(run, s.k, found["log_p"]),
        "acceptance": Finding(float(found["accepted"].mean()), f"of the HMC transitions, mean; aimed at {s.accept:g}"),
        "ess": Finding(float(found["ess"].min()), f"effective number of the {s.chains * s.samples} samples, the smallest of all examples"),
        "rhat": Finding(float(found["rhat"].max()), "R-hat of the chains, the largest of all examples and dimensions; 1: they agree"),
    }
