"""Base distributions of flows: one line in BASES each. A base is a part of the model, named by `model.base`.

    normal            N(0, I)
    logistic          independent logistics of scale 1 (NICE)
    student_t         independent Student's t, degrees of freedom given or learned; heavier tails than any Lipschitz flow makes of a normal
    uniform           on the box [low, high]^D
    gaussian_mixture  of diagonal Gaussians over events, all learned
    context_normal    a diagonal Gaussian whose mean and log-scale are affine in the context: one Gaussian a class for one-hot labels

`temperature` scales a sample about its centre (zero, the box's middle, a component's mean): z = centre + temperature * (z' - centre).

To add one: write a maker (keyword-only, annotated arguments -> Base) and add its line.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import sum_event
from vaeflow.build import Count, NonNegative, Positive, part_kind
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.record import recorded


class Base(NamedTuple):
    """A distribution over events of any shape, z [B, *shape]; context [B, C] or None.

    init      (key, shape, context=None) -> params, {} for nothing to learn
    log_prob  (params, z, context=None) -> [B]
    sample    (params, key, n, shape, temperature=1.0, context=None) -> z [n, *shape]
    """

    init: Callable[..., Params]
    log_prob: Callable[..., Array]
    sample: Callable[..., Array]
    spec: Any = None  # how it was made, see record.py


def _independent(log_p: Callable[[Array], Array], draw: Callable[..., Array], centre: float = 0.0) -> Base:
    """A base of independent, equal, fixed entries: log_p elementwise, draw(key, shape, dtype)."""

    def log_prob(params, z, context=None):
        del params, context
        return sum_event(log_p(z), z.ndim - 1)

    def sample(params, key, n, shape, temperature=1.0, context=None):
        del params, context
        return centre + temperature * (draw(key, (n, *shape)) - centre)

    return Base(lambda key, shape, context=None: {}, log_prob, sample)


def _normal_log_p(z: Array) -> Array:
    return -0.5 * (z**2 + math.log(2 * math.pi))


@recorded
def normal() -> Base:
    """log p(z) = -z^2 / 2 - log(2 pi) / 2 per entry. What a flow's base is where none is given."""
    return _independent(_normal_log_p, jax.random.normal)


@recorded
def logistic() -> Base:
    """log p(z) = log sigmoid(z) + log sigmoid(-z) per entry (Dinh et al. 2014, section 3.4)."""
    return _independent(lambda z: jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z), jax.random.logistic)


@recorded
def uniform(*, low: float = 0.0, high: float = 1.0) -> Base:
    """log p(z) = -log(high - low) per entry on the closed box, -inf outside.

    Finite support: an example that the layer maps outside has density 0 and gives no gradient, and training stops at the first one. So the
    last layer before the base must end in the box for every input: {"kind": "inverse", "of": a logit} ends in (0, 1), or a spline whose
    linear tails no data reach.

    Args:
        low, high: the ends of the box in every dimension; low < high.
    """
    if not low < high:
        raise UserError(f"low={low:g} and high={high:g} are no box; low must be below high")

    def log_p(z):
        return jnp.where((z >= low) & (z <= high), jnp.asarray(-math.log(high - low), z.dtype), -jnp.inf)

    return _independent(log_p, lambda key, shape: jax.random.uniform(key, shape, minval=low, maxval=high), 0.5 * (low + high))


@recorded
def student_t(*, df: Positive = 10.0, learned: bool = True) -> Base:
    """Degrees of freedom n > 0 of every entry:

        log p(z) = lgamma((n + 1)/2) - lgamma(n/2) - log(n pi)/2 - (n + 1)/2 log(1 + z^2/n)

    Args:
        df: n, or where it is learned the n at the start, above 1.
        learned: one n per entry, n = 1 + softplus(raw) > 1, starting at df (Laszkiewicz et al. 2022: tails that differ by dimension).
            False: n = df.
    """
    if learned and df <= 1:
        raise UserError(f"df={df:g} is invalid with learned=True, where the degrees of freedom are above 1")

    def init(key, shape, context=None):
        return {"raw": jnp.full(shape, math.log(math.expm1(df - 1)) if df < 20 else df - 1)} if learned else {}

    def freedom(params, dtype):
        return 1 + jax.nn.softplus(params["raw"].astype(dtype)) if learned else jnp.asarray(df, dtype)

    def log_prob(params, z, context=None):
        n, lgamma = freedom(params, z.dtype), jax.scipy.special.gammaln
        log_p = lgamma((n + 1) / 2) - lgamma(n / 2) - 0.5 * jnp.log(n * math.pi) - (n + 1) / 2 * jnp.log1p(z**2 / n)
        return sum_event(log_p, z.ndim - 1)

    def sample(params, key, n, shape, temperature=1.0, context=None):
        return temperature * jax.random.t(key, freedom(params, jnp.result_type(float)), (n, *shape))

    return Base(init, log_prob, sample)


@recorded
def gaussian_mixture(*, components: Count = 50, spread: NonNegative = 1.0, cap: Positive = 3.0) -> Base:
    """p(z) = sum_k pi_k N(z; m_k, diag(s_k)^2), pi = softmax(w), log s = cap * tanh(raw / cap): K Gaussians over whole events.

    They start with equal weights, s = 1 and means drawn from N(0, spread^2). Temperature scales s_k, not the choice of k.

    Args:
        components: K.
        spread: standard deviation of the means at the start.
        cap: bound of the log-scales.
    """

    def init(key, shape, context=None):
        means = spread * jax.random.normal(key, (components, *shape))
        return {"weights": jnp.zeros(components), "means": means, "log_scales": jnp.zeros_like(means)}

    def log_scales(params, dtype):
        return cap * jnp.tanh(params["log_scales"].astype(dtype) / cap)

    def log_prob(params, z, context=None):
        s = log_scales(params, z.dtype)
        log_p = _normal_log_p((z[:, None] - params["means"].astype(z.dtype)) * jnp.exp(-s)) - s
        weights = jax.nn.log_softmax(params["weights"].astype(z.dtype))
        return jax.nn.logsumexp(weights + sum_event(log_p, z.ndim - 1), axis=-1)

    def sample(params, key, n, shape, temperature=1.0, context=None):
        which, noise = jax.random.split(key)
        k = jax.random.categorical(which, params["weights"], shape=(n,))
        eps = jax.random.normal(noise, (n, *shape))
        return params["means"][k] + temperature * jnp.exp(log_scales(params, eps.dtype))[k] * eps

    return Base(init, log_prob, sample)


@recorded
def context_normal(*, cap: Positive = 3.0) -> Base:
    """N(m(c), diag(s(c))^2), (m, raw) = W c + b, log s = cap * tanh(raw / cap). It starts as N(0, I).

    Args:
        cap: bound of the log-scales.
    """

    def init(key, shape, context=None):
        if context is None:
            raise UserError("model.base: a context_normal needs a context [B, C]; set data.context")
        return {"kernel": jnp.zeros((context.shape[-1], 2, *shape)), "bias": jnp.zeros((2, *shape))}

    def moments(params, context, dtype):
        theta = jnp.tensordot(context.astype(dtype), params["kernel"].astype(dtype), 1) + params["bias"].astype(dtype)
        return theta[:, 0], cap * jnp.tanh(theta[:, 1] / cap)

    def log_prob(params, z, context=None):
        m, s = moments(params, context, z.dtype)
        return sum_event(_normal_log_p((z - m) * jnp.exp(-s)) - s, z.ndim - 1)

    def sample(params, key, n, shape, temperature=1.0, context=None):
        eps = jax.random.normal(key, (n, *shape))
        m, s = moments(params, context, eps.dtype)
        return m + temperature * jnp.exp(s) * eps

    return Base(init, log_prob, sample)


BASES: dict[str, Callable[..., Base]] = {
    "normal": normal,
    "logistic": logistic,
    "student_t": student_t,
    "uniform": uniform,
    "gaussian_mixture": gaussian_mixture,
    "context_normal": context_normal,
}

part_kind(Base, "base", BASES)
