"""Batch normalisation as a bijector (RealNVP, Dinh et al. 2016; in the form of MAF, Papamakarios et al. 2017)."""

from __future__ import annotations

import jax.numpy as jnp

from vaeflow.bijectors.actnorm import affine_map, moments
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.scalar_map import bounded
from vaeflow.build import Decay, Positive
from vaeflow.record import recorded


@recorded
def batch_norm(*, momentum: Decay = 0.99, eps: Positive = 1e-5) -> Layer:
    """z = (x - m) / sqrt(v + eps) * exp(g) + beta, g = bounded(gamma), over the last axis D; log |dz/dx| = sum(g - log(v + eps) / 2).

    gamma, beta [D] are trained. m, v [D] are, by mode and direction:
        evaluation, both directions   the running statistics ("stats": mean, var)
        train=True, inverse           the moments of the batch given, over all axes but the last; gradients flow through them.
                                      log_det is that of the affine map with these moments, as MAF has it
                                      (RealNVP, appendix E, trains with a running average over recent batches instead)
        train=True, forward           the running statistics: sampling has no data batch to take moments from, so in training
                                      mode `forward` is not the inverse of `inverse`
    `update` moves the running statistics: new = momentum * old + (1 - momentum) * batch. They start at the first batch's.

    Args:
        momentum: of the running statistics, per training step.
        eps: added to the variances.
    """

    def init(key, x, context=None):
        del key, context
        mean, var = moments(x.astype(jnp.float32))
        zero = jnp.zeros(x.shape[-1])
        return {"gamma": zero, "beta": zero, "stats": {"mean": mean, "var": var}}

    def affine(params, mean, var):
        # x = z * exp(log_scale) + shift
        log_scale = 0.5 * jnp.log(var + eps) - bounded(params["gamma"].astype(var.dtype))
        return affine_map(mean - params["beta"].astype(var.dtype) * jnp.exp(log_scale), log_scale)

    def bijector(params, train=False, **_):
        def running(dtype):
            return affine(params, params["stats"]["mean"].astype(dtype), params["stats"]["var"].astype(dtype))

        def inverse(x):
            now = affine(params, *moments(x)) if train else running(x.dtype)
            return now.inverse_and_log_det(x)

        return Bijection(lambda z: running(z.dtype).forward_and_log_det(z), inverse, 1)

    def update(params, x, context=None):
        del context
        mean, var = moments(x.astype(jnp.float32))
        old = params["stats"]
        new = {"mean": momentum * old["mean"] + (1 - momentum) * mean, "var": momentum * old["var"] + (1 - momentum) * var}
        return {**params, "stats": new}

    return Layer(init, bijector, update)
