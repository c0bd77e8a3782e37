"""Times: a monotone coordinate c(t) of the path, in which training times are uniform at random and a sampler's grid is equidistant.

    c(t) = c(low) + u (c(high) - c(low)),   u ~ U(0, 1) in training,   u = i / N on a grid

If c is a distribution function, t has that distribution truncated to [low, high], without atoms at the ends. t is found by bisection.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from vaeflow.build import Positive
from vaeflow.diffusion.path import ProbabilityPath, logsnr
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded

_HALVINGS = 64  # more than the bits of a float64's fraction


class TimeCoordinate(NamedTuple):
    """of: (path, t [...]) -> c [...], increasing in t."""

    of: Callable[[ProbabilityPath, Array], Array]
    spec: Any = None  # how it was made, see record.py


def invert(function: Callable[[Array], Array], value: Array, low: Array | float, high: Array | float) -> Array:
    """t in [low, high] with function(t) = value, of value's shape; function increases and is elementwise. No gradient passes."""

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        above = function(middle) < value
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = (jnp.broadcast_to(jnp.asarray(low, value.dtype), value.shape), jnp.broadcast_to(jnp.asarray(high, value.dtype), value.shape))
    first, last = jax.lax.fori_loop(0, _HALVINGS, halve, ends)
    return jax.lax.stop_gradient(first + (last - first) / 2)


def located(coordinate: TimeCoordinate, path: ProbabilityPath, u: Array, low: float, high: float) -> Array:
    """The times [...] at the shares u [...] of the coordinate's way from low to high."""
    first, last = _ends(coordinate, path, u.dtype, low, high)
    return invert(lambda t: coordinate.of(path, t), first + u * (last - first), low, high)


def position(coordinate: TimeCoordinate, path: ProbabilityPath, t: Array, low: float, high: float) -> Array:
    """The inverse of `located`: u [...] of times t [...] in [low, high]."""
    first, last = _ends(coordinate, path, t.dtype, low, high)
    return (coordinate.of(path, t) - first) / (last - first)


def _ends(coordinate: TimeCoordinate, path: ProbabilityPath, dtype: Any, low: float, high: float) -> list[Array]:
    """[c(low), c(high)]. UserError: one is not finite, where no time between has a place. Not checked for a path that is being learned."""
    with jax.ensure_compile_time_eval():
        ends = [coordinate.of(path, jnp.asarray(end, dtype)) for end in (low, high)]
    for t, value in zip((low, high), ends, strict=True):
        if not isinstance(value, Tracer) and not math.isfinite(float(value)):
            raise UserError(
                f"the time coordinate is {float(value)} at t={t:g}: rho and logsnr need a path with alpha > 0 at the largest time, or one "
                "below 1, and logsnr also sigma > 0 at the smallest"
            )
    return ends


def strata(key: Array, n: int) -> Array:
    """u_i = (u + i / n) mod 1 [n] of one u ~ U(0, 1): each alone is uniform in [0, 1), and there is one in each of n strata."""
    return jnp.mod(jax.random.uniform(key) + jnp.arange(n) / n, 1.0)


def stratified(
    key: Array, coordinate: TimeCoordinate, path: ProbabilityPath, n: int, low: float = 1e-3, high: float | None = None
) -> Array:
    """n times in [low, high] [n], one in each of n `strata` of the coordinate (Kingma et al. 2021).

    high: None is 1 - low. Each time alone has the coordinate's density, so a mean over the batch is unbiased and varies less.
    """
    return located(coordinate, path, strata(key, n), low, 1 - low if high is None else high)


def density(coordinate: TimeCoordinate, path: ProbabilityPath, t: Array, low: float = 1e-3, high: float | None = None) -> Array:
    """p(t) = c'(t) / (c(high) - c(low)) []: a loss of weight w(t) at uniform times has the weight w / p at these."""
    first, last = (coordinate.of(path, jnp.asarray(end, t.dtype)) for end in (low, 1 - low if high is None else high))
    return jax.jvp(lambda t: coordinate.of(path, t), (t,), (jnp.ones_like(t),))[1] / (last - first)


def grid(coordinate: TimeCoordinate, path: ProbabilityPath, steps: int, low: float = 1e-3, high: float = 1.0) -> Array:
    """steps + 1 times from high down to low [steps + 1], the order in which samplers visit them; [high] for 0 steps.

    Example: grid(rho(), edm(sigma_max=80.0), 18, low=0.002 / 80) are the sigmas of Karras et al. 2022, divided by 80.
    """
    if steps == 0:
        return jnp.array([high])
    inner = located(coordinate, path, jnp.arange(steps - 1, 0, -1) / steps, low, high)
    return jnp.concatenate([jnp.array([high], inner.dtype), inner, jnp.array([low], inner.dtype)])


@recorded
def uniform() -> TimeCoordinate:
    """c = t."""
    return TimeCoordinate(lambda path, t: t)


@recorded
def quadratic() -> TimeCoordinate:
    """c = sqrt(t): a grid of times proportional to i^2 (Song et al. 2021, DDIM, arXiv 2010.02502, appendix D.2)."""
    return TimeCoordinate(lambda path, t: jnp.sqrt(t))


@recorded
def logsnr_uniform() -> TimeCoordinate:
    """c = -logsnr(t). Its density is proportional to g^2 / sigma^2: the importance sampling of likelihood training, at which the weight
    `likelihood` of the noise's squared error is constant (Song et al. 2021b, arXiv 2101.09258). `high` must have alpha > 0."""
    return TimeCoordinate(lambda path, t: -logsnr(path, t))


@recorded
def rho(*, rho: Positive = 7.0) -> TimeCoordinate:
    """c = (sigma / alpha)^(1 / rho): the grid of Karras et al. 2022 (arXiv 2206.00364), eq. 5. `high` must have alpha > 0."""
    return TimeCoordinate(lambda path, t: (path.sigma(t) / path.alpha(t)) ** (1 / rho))


@recorded
def logit_normal(*, mean: float = 0.0, std: Positive = 1.0) -> TimeCoordinate:
    """logit t ~ N(mean, std^2) (Esser et al. 2024, arXiv 2403.03206)."""
    return TimeCoordinate(lambda path, t: jax.scipy.stats.norm.cdf(jnp.log(t) - jnp.log1p(-t), mean, std))


@recorded
def beta(*, a: Positive = 1.0, b: Positive = 1.0) -> TimeCoordinate:
    """t ~ Beta(a, b)."""
    return TimeCoordinate(lambda path, t: jax.scipy.special.betainc(a, b, t))


@recorded
def log_normal(*, mean: float = -1.2, std: Positive = 1.2) -> TimeCoordinate:
    """ln(sigma / alpha) ~ N(mean, std^2) (Karras et al. 2022, arXiv 2206.00364, table 1, where alpha = 1)."""
    return TimeCoordinate(lambda path, t: jax.scipy.stats.norm.cdf(-logsnr(path, t) / 2, mean, std))


TIMES: dict[str, Callable[..., TimeCoordinate]] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "logsnr": logsnr_uniform,
    "rho": rho,
    "logit_normal": logit_normal,
    "beta": beta,
    "log_normal": log_normal,
}
