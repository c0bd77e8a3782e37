"""The kernel layer of Gaussianization flows (Meng, Song, Song, Ermon 2020): every number by a mixture cdf of its own.

    z = Phi^-1(sum_k w_k F((x - m_k) / s_k)),        Phi the cdf of N(0, 1), F logistic or normal

The parameters are trained and belong to the layer: no network, no context. With rotations (householder.py) in turn this is
rotation-based iterative Gaussianization, trained: repeat(chain(gaussianize, householder), n). Each layer's start is fitted to
the first batch as it arrives there, so the latent of that batch is about N(0, 1) in every dimension before the first step.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Bijection, Layer, sum_event
from vaeflow.bijectors.mixture import KERNELS, LOGISTIC, NORMAL, Components, KernelName, Mixture, exchange, mixture_of, to_data, to_latent
from vaeflow.build import Positive
from vaeflow.model import Array
from vaeflow.record import recorded

LEVELS = 8  # quantiles that describe the share of one component
WIDEN = 1.5  # a kernel's standard deviation, in those of its share: neighbours then overlap to a smooth density
UNIT = {"logistic": math.sqrt(3) / math.pi, "normal": 1.0}  # the scale at which a kernel has unit variance


@recorded
def gaussianize(
    *, components: Components = 8, kernel: KernelName = "logistic", cap: Positive = 3.0, start: Literal["data", "normal"] = "data"
) -> Layer:
    """z_i = Phi^-1(sum_k w_ki F((x_i - m_ki) / s_ki)) for each number of an event of any shape; |log s_ki| < cap, so data is to be of about
    unit scale (`actnorm` before it). Params logits, means, raw [K, *event].

    Args:
        components: K.
        kernel: F, the components' distribution function: logistic or normal.
        cap: bound of the log-scales.
        start: data: each component takes an equal share of the first batch, in order (see `fitted`); normal: as if that batch were
            N(0, 1), which is near the identity.
    """

    def init(key, x, context=None):
        del key, context
        levels = (jnp.arange(components * LEVELS) + 0.5) / (components * LEVELS)
        if start == "data":
            quantiles = jnp.quantile(x.astype(jnp.float32), levels, axis=0)
        else:
            each = jax.scipy.special.ndtri(levels).reshape(-1, *[1] * (x.ndim - 1))
            quantiles = jnp.broadcast_to(each, (levels.size, *x.shape[1:]))
        means, deviations = fitted(quantiles.reshape(components, LEVELS, *x.shape[1:]))
        inside = jnp.clip(jnp.log(UNIT[kernel] * deviations) / cap, -0.95, 0.95)
        return {"logits": jnp.zeros_like(means), "means": means, "raw": cap * jnp.arctanh(inside)}

    def bijector(params, **_):
        rank = params["means"].ndim - 1

        def mixture(h) -> Mixture:
            lead = [1] * (h.ndim - rank)
            arrays = (params[name].astype(h.dtype) for name in ("logits", "means", "raw"))
            logits, means, raw = (a.reshape(components, *lead, *a.shape[1:]) for a in arrays)
            return mixture_of(logits, means, raw, cap)

        def inverse(x):
            z, log_det = to_latent(KERNELS[kernel], mixture(x), x)
            if kernel == "logistic":
                z, more = exchange(LOGISTIC, NORMAL, z)
                log_det += more
            return z, sum_event(log_det, rank)

        def forward(z):
            more = jnp.zeros_like(z)
            if kernel == "logistic":
                z, more = exchange(NORMAL, LOGISTIC, z)
            x, log_det = to_data(KERNELS[kernel], mixture(z), z)
            return x, sum_event(log_det + more, rank)

        return Bijection(forward, inverse, rank)

    return Layer(init, bijector)


def fitted(shares: Array) -> tuple[Array, Array]:
    """(means, standard deviations) [K, ...] of the components from quantiles [K, LEVELS, ...], an equal share for each.

    A component has the mean of its share and WIDEN times its deviation, at least 1 / (4 K) of the total one (ties); then all means
    and deviations are drawn towards the centre by one factor, which gives the mixture the data's variance. This is a kernel
    estimate whose bandwidth follows the local density. Numbers that are constant in the batch keep their scale, as in `actnorm`.
    """
    means, variances = jnp.mean(shares, axis=1), jnp.var(shares, axis=1)
    centre = jnp.mean(means, axis=0)
    total = jnp.var(means, axis=0) + jnp.mean(variances, axis=0)
    varies = total > 1e-12 + 1e-10 * centre**2  # below that the variance is rounding
    total = jnp.where(varies, total, 1)
    widths = jnp.maximum(WIDEN**2 * variances, total / (4 * shares.shape[0]) ** 2)
    factor = jnp.sqrt(total / (jnp.var(means, axis=0) + jnp.mean(widths, axis=0)))
    return centre + factor * (means - centre), jnp.where(varies, factor * jnp.sqrt(widths), 1)
