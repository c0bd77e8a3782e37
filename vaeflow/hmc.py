"""Hamiltonian Monte Carlo on a log-density of one event; a vmap makes many chains of it (Neal 2011)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.model import Array

LogDensity = Callable[[Array], Array]


@functools.cache
def blackjax() -> Any:
    """The package, imported where it is used: it makes arrays of jax, which a file of --import that registers a check must not do before
    several processes have met. They are values and not tracers, even if a program is being traced."""
    with jax.ensure_compile_time_eval():
        import blackjax
        import blackjax.diagnostics
    return blackjax


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
