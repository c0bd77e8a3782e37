"""Mixture-CDF transformers: x -> u = sum_k w_k F((x - m_k) / s_k) -> z = F^-1(u), elementwise and increasing.

    log dz/dx = log sum_k w_k f((x - m_k) / s_k) / s_k - log f(z),        f = F'

    F logistic   Flow++ (Ho et al. 2019) without its affine map; the deep sigmoidal unit of NAF (Huang et al. 2018)
    F normal     with z ~ N(0, 1) the density of x is exactly the mixture of Gaussians: on a MADE, a mixture-of-Gaussians MADE

Nothing is computed as a probability. F gives log F and log(1 - F), two log-sum-exps give log u and log(1 - u), and z comes from the
smaller of the two tails. The slope is a ratio of hazards f / tail, which stay moderate where f and tail underflow together:

    log dz/dx = log sum_k (w_k tail_k / tail) hazard_k / s_k - log hazard(z)

so far out (|t| of 10^3 and more) values, slopes and gradients are as precise as near zero. `forward` has no formula; since
min_k (m_k + s_k z) <= x <= max_k (m_k + s_k z) it is a bracketed solve with implicit derivatives. Components lie on the leading axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.affine import affine
from vaeflow.bijectors.core.layer import Layer
from vaeflow.bijectors.core.scalar_map import ScalarMap
from vaeflow.bijectors.core.solve import bisect, solve
from vaeflow.bijectors.coupling import Mask, coupling
from vaeflow.build import Positive, Range
from vaeflow.model import Array
from vaeflow.nets.net import Net
from vaeflow.record import recorded

Components = Annotated[int, Range(1, 1000)]
KernelName = Literal["logistic", "normal"]


class Kernel(NamedTuple):
    """A symmetric distribution, by its tails.

    tails     a >= 0 -> (log F(-a), log F(a), log hazard) with hazard = f(a) / F(-a)
    quantile  (log F(-a), log F(a)) -> (a, log hazard)
    """

    tails: Callable[[Array], tuple[Array, Array, Array]]
    quantile: Callable[[Array, Array], tuple[Array, Array]]


class Mixture(NamedTuple):
    """log_weights [K, ...] (their exponentials sum to one), means, log_scales [K, ...]."""

    log_weights: Array
    means: Array
    log_scales: Array


def _logistic_tails(a):
    big = jax.nn.log_sigmoid(a)
    return big - a, big, big


@jax.custom_jvp
def log_mills(a: Array) -> Array:
    """log of Mills' ratio (1 - F(a)) / f(a) of the standard normal, a >= 0; by its continued fraction where erfc runs into the
    smallest numbers."""
    near, far = jnp.minimum(a, 4.0), jnp.maximum(a, 4.0)
    depth = 4 if jnp.finfo(a.dtype).eps > 1e-10 else 10  # at a = 4 it is then right to 4e-8, 4e-13
    square = far * far
    fraction = square + (4 * depth + 1)
    for k in range(depth, 0, -1):
        fraction = square + (4 * k - 3) - (2 * k - 1) * (2 * k) / fraction
    by_erfc = jnp.log(jax.lax.erfc(near * math.sqrt(0.5))) + 0.5 * near * near + 0.5 * math.log(math.pi / 2)
    return jnp.where(a < 4.0, by_erfc, jnp.log(far / fraction))


@log_mills.defjvp
def _log_mills_jvp(primals, tangents):
    (a,), (da,) = primals, tangents
    ratio = log_mills(a)
    return ratio, (a - jnp.exp(-ratio)) * da


_LOG_NORMALISER = 0.5 * math.log(2 * math.pi)


def _normal_tails(a):
    ratio = log_mills(a)
    small = ratio - 0.5 * a * a - _LOG_NORMALISER
    return small, jnp.log1p(-jnp.exp(small)), -ratio


@jax.custom_jvp
def normal_quantile(small: Array) -> Array:
    """a >= 0 with log F(-a) = small <= log(1/2), F the standard normal's: two Halley steps from a guess that is within 5%."""
    y = jnp.maximum(-small - math.log(2), 0.0)
    a = y * jnp.sqrt(2 / (y + 4 / math.pi))
    for _ in range(2):
        log_tail, _, log_hazard = _normal_tails(a)
        hazard = jnp.exp(log_hazard)
        newton = (log_tail - small) / hazard
        a = a + newton / (1 + 0.5 * newton * (hazard - a))
    return jnp.maximum(a, 0.0)


@normal_quantile.defjvp
def _normal_quantile_jvp(primals, tangents):
    a = normal_quantile(primals[0])
    return a, -jnp.exp(log_mills(a)) * tangents[0]


def _normal_quantile(small, _):
    a = normal_quantile(small)
    return a, -log_mills(a)


LOGISTIC = Kernel(_logistic_tails, lambda small, big: (big - small, big))
NORMAL = Kernel(_normal_tails, _normal_quantile)
KERNELS = {"logistic": LOGISTIC, "normal": NORMAL}


def _signed(negative: Array, a: Array) -> Array:
    """-a where negative: |t| and sign by `where`, whose derivative at t = 0 is that of both sides; that of abs is 0."""
    return jnp.where(negative, -a, a)


def exchange(source: Kernel, target: Kernel, t: Array) -> tuple[Array, Array]:
    """(target's quantile of source's cdf at t, log of the slope)."""
    negative = t < 0
    small, big, log_hazard = source.tails(_signed(negative, t))
    a, target_hazard = target.quantile(small, big)
    return _signed(negative, a), log_hazard - target_hazard


def to_latent(kernel: Kernel, mixture: Mixture, x: Array) -> tuple[Array, Array]:
    """(z, log dz/dx) of x [...]; the mixture's arrays are [K, ...] or broadcast to that."""
    t = (x - mixture.means) * jnp.exp(-mixture.log_scales)
    negative = t < 0
    small, big, log_hazard = kernel.tails(_signed(negative, t))
    lower, log_u, top_u = _log_sum(mixture.log_weights + jnp.where(negative, small, big))
    upper, log_v, top_v = _log_sum(mixture.log_weights + jnp.where(negative, big, small))
    left = log_u + top_u < log_v + top_v  # below the median, where log u is the smaller tail
    a, latent_hazard = kernel.quantile(jnp.where(left, log_u + top_u, log_v + top_v), jnp.where(left, log_v + top_v, log_u + top_u))
    # On its own far side a component's hazard is f / F(a).
    log_hazard = jnp.where(negative == left, log_hazard, small + log_hazard - big) - mixture.log_scales
    _, log_density, top = _log_sum(jnp.where(left, lower, upper) + log_hazard)
    return _signed(left, a), log_density + top - jnp.where(left, log_u, log_v) - latent_hazard


def _log_sum(terms: Array) -> tuple[Array, Array, Array]:
    """(terms - top, log sum exp(terms - top), top) over the leading axis, top the largest: kept apart, since a difference of two
    such sums is precise only when their common part never was added."""
    top = jax.lax.stop_gradient(jnp.max(terms, axis=0))
    return terms - top, jnp.log(jnp.sum(jnp.exp(terms - top), axis=0)), top


def _bracket(mixture: Mixture, z: Array) -> tuple[Array, Array]:
    ends = mixture.means + jnp.exp(mixture.log_scales) * z
    return jnp.min(ends, axis=0), jnp.max(ends, axis=0)


def to_data(kernel: Kernel, mixture: Mixture, z: Array) -> tuple[Array, Array]:
    """(x, log dx/dz) of z [...], by a bracketed solve to the precision of z's type."""
    f = functools.partial(to_latent, kernel)
    x, log_slope = solve(f, bisect(f, _bracket, 0.0), 0.0, 20, mixture, z)
    return x, -log_slope


def mixture_of(logits: Array, means: Array, raw: Array, cap: float) -> Mixture:
    """The mixture of unbounded numbers [K, ...]: log-scales cap * tanh(raw / cap), so that no scale vanishes or overflows."""
    return Mixture(jax.nn.log_softmax(logits, axis=0), means, cap * jnp.tanh(raw / cap))


def starting_means(components: int) -> list[float]:
    """Evenly spaced in [-1, 1]; 0 for one component."""
    return [2 * k / (components - 1) - 1 for k in range(components)] if components > 1 else [0.0]


def mixture_cdf(components: int, kernel: KernelName, cap: float) -> ScalarMap:
    """theta [3 K, ...]: logits, means, raw log-scales.

    At theta = 0 the weights are equal, the scales one and the means evenly spaced in [-1, 1]. That is near the identity and not the
    identity itself (|z - x| <= 1, slopes in (0, 1] and 1 in the tails), on purpose: equal components have equal gradients, so a network
    whose head starts at zero could never tell them apart. (Flow++ breaks the tie by a head that starts at random.) One
    component starts as the identity.
    """
    spread = starting_means(components)

    def mixture(theta):
        k = components
        start = jnp.asarray(spread, theta.dtype).reshape(k, *[1] * (theta.ndim - 1))
        return mixture_of(theta[:k], theta[k : 2 * k] + start, theta[2 * k :], cap)

    return ScalarMap(
        3 * components,
        lambda theta, z: to_data(KERNELS[kernel], mixture(theta), z),
        lambda theta, x: to_latent(KERNELS[kernel], mixture(theta), x),
    )


def in_turn(data_end: ScalarMap, latent_end: ScalarMap) -> ScalarMap:
    """Two transformers, one after the other; theta has the first one's numbers first."""
    n = data_end.size

    def forward(theta, z):
        h, latent_log_det = latent_end.forward(theta[n:], z)
        x, log_det = data_end.forward(theta[:n], h)
        return x, log_det + latent_log_det

    def inverse(theta, x):
        h, log_det = data_end.inverse(theta[:n], x)
        z, latent_log_det = latent_end.inverse(theta[n:], h)
        return z, log_det + latent_log_det

    return ScalarMap(n + latent_end.size, forward, inverse)


@recorded
def mixture_coupling(*, net: Net, mask: Mask, flip: bool = False, components: Components = 8, cap: Positive = 3.0) -> Layer:
    """Flow++ (Ho et al. 2019): z_moved = (logit(sum_k w_k sigmoid((x_moved - m_k) / s_k)) - b) * exp(-a), all of net(x_kept, context);
    |a| < cap and |log s_k| < cap. See `mixture_cdf` for how it starts.

    Args:
        net: the network that gives w, m, s, a, b; a network on images for checkerboard and channel.
        mask: how the event is split, see coupling.py.
        flip: whether the two parts are exchanged.
        components: K, the number of logistics.
        cap: bound of all log-scales.
    """
    return coupling(in_turn(mixture_cdf(components, "logistic", cap), affine(cap)), net, mask, flip)
