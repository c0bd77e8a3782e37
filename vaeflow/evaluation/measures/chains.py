"""One example's latent as densities of z, and Markov chains on it: what AIS and the HMC estimator share.

z [*event] is one latent vector of ONE example: a chain is written for one z, a vmap makes many of it, and another one goes over the
examples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.model import Array, Batch, Latent, Params
from vaeflow.objectives import iwae

LogDensity = Callable[[Array], Array]


@functools.cache
def blackjax() -> Any:
    """The package, imported where it is used: it makes arrays of jax, which a file of --import that registers a check must not do before
    several processes have met. They are values and not tracers, even if a program is being traced."""
    with jax.ensure_compile_time_eval():
        import blackjax
        import blackjax.diagnostics
    return blackjax


class Target(NamedTuple):
    """p(z), p(x|z) and q(z|x) of one example, as functions of one z [*event] -> [] nats; `draw_*` take a key."""

    log_prior: LogDensity
    log_likelihood: LogDensity
    log_q: LogDensity
    draw_prior: Callable[[Array], Array]
    draw_q: Callable[[Array], Array]

    def log_joint(self, z: Array) -> Array:
        """log p(x, z)."""
        return self.log_prior(z) + self.log_likelihood(z)


def target(latent: Latent, params: Params, batch: Batch, shape: tuple[int, ...]) -> Target:
    """The target of a batch of one, with z of `shape`. The encoder runs once, however many chains there are."""
    x, context = batch["x"], batch.get("context")
    q, p = latent.posterior(params, x, context), latent.prior(params, context)
    return Target(
        log_prior=lambda z: p.log_prob(z[None])[0],
        log_likelihood=lambda z: latent.likelihood(params, z[None], context).log_prob(x)[0],
        log_q=lambda z: q.log_prob(z[None])[0],
        draw_prior=lambda key: p.sample(seed=key).reshape(shape),
        draw_q=lambda key: q.sample(seed=key)[0],
    )


def move(key: Array, z: Array, log_density: LogDensity, step_size: Array, leapfrog: int, jitter: float) -> tuple[Array, Array]:
    """One HMC transition (Neal 2011) that leaves exp(log_density) invariant: (the next z, the probability of acceptance).

    Unit masses, momenta drawn anew, `leapfrog` steps of length step_size u with ONE u ~ U(1 - jitter, 1 + jitter). Without jitter a
    trajectory of half a period maps a Gaussian coordinate to its negative, again and again: it looks well mixed and is not.
    """
    own, stretch = jax.random.split(key)
    size = step_size * jax.random.uniform(stretch, (), z.dtype, 1 - jitter, 1 + jitter)
    hmc = blackjax().hmc
    state, info = hmc.build_kernel()(own, hmc.init(z, log_density), log_density, size, jnp.ones(z.size, z.dtype), leapfrog)
    return state.position, info.acceptance_rate


def move_all(key: Array, z: Array, log_density: LogDensity, step_size: Array, leapfrog: int, jitter: float) -> tuple[Array, Array]:
    """`move` of chains z [C, *event], each with its own key: (z, the mean probability of acceptance)."""
    moved = jax.vmap(lambda key, z: move(key, z, log_density, step_size, leapfrog, jitter))
    z, accepted = moved(jax.random.split(key, len(z)), z)
    return z, accepted.mean()


def adapt(step_size: Array, accepted: Array, wanted: float, gain: float) -> Array:
    """log step size += gain (accepted - wanted): stochastic approximation of the step size whose acceptance is `wanted`."""
    return step_size * jnp.exp(gain * (accepted - wanted))


def log_mean(log_w: Array) -> tuple[Array, Array, Array]:
    """(log (1/C) sum_c w_c, effective number (sum w)^2 / sum w^2, standard error of the first) of C independent weights [C].

    The error is that of the delta method: the standard deviation of w_c / mean(w), over sqrt(C).
    """
    w = jnp.exp(log_w - log_w.max())
    return iwae(log_w), w.sum() ** 2 / (w**2).sum(), jnp.std(w / w.mean(), ddof=1) / jnp.sqrt(len(w))
