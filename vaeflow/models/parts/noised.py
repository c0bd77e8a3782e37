"""A density of noised data, of which samples are denoised by its own score (Zhai et al. 2024, 2412.06329, sections 2.3 and 2.4).

training   y + noise e, e ~ N(0, I), a new e in each step; with `label_drop` the context is [c (1 - d), d], d ~ Bernoulli(label_drop)
samples    y + noise^2 grad log p(y|c): Tweedie's formula, the mean of the data given y
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.models.parts.density import Density


def noised(density: Density, noise: float, label_drop: float, denoise: bool) -> Density:
    """See the module's docstring; `density` is that of noised data.

    Args:
        noise: standard deviation of the noise, in the units of y; 0: none.
        label_drop: probability with which training hides the context.
        denoise: whether samples are.

    Returns: the density itself, if noise and label_drop are 0.
    """
    if not noise and not label_drop:
        return density

    def seen(context, dropped=None):
        """The context that the layers see."""
        if not label_drop:
            return context
        if context is None:
            raise UserError(f"model.label_drop={label_drop:g} needs a context; set data.context")
        d = jnp.zeros(context.shape[:-1], context.dtype) if dropped is None else dropped
        return jnp.concatenate([context * (1 - d[..., None]), d[..., None]], -1)

    def disturbed(key, y):
        return y + noise * jax.random.normal(key, y.shape, y.dtype) if noise else y

    def init(key, y, context):
        return density.init(key, disturbed(jax.random.fold_in(key, 3), y), seen(context))

    def log_prob(params, y, context, key=None, train=False):
        if not train or key is None:
            return density.log_prob(params, y, seen(context), key, train)
        key, key_e, key_d = jax.random.split(key, 3)
        dropped = jax.random.bernoulli(key_d, label_drop, y.shape[:1]).astype(y.dtype) if label_drop else None
        return density.log_prob(params, disturbed(key_e, y), seen(context, dropped), key, train)

    def sample(params, key, n, context, temperature=1.0, train=False):
        y, log_p, found = density.sample(params, key, n, seen(context), temperature, train)
        if not denoise or not noise:
            return y, log_p, found
        score = jax.grad(lambda y: jnp.sum(density.log_prob(params, y, seen(context))))(y)
        return y + noise**2 * score, log_p, {**found, "noised": y}

    def encode(params, y, context):
        assert density.encode is not None
        return density.encode(params, y, seen(context))

    def update(params, y, context):
        assert density.update is not None
        return density.update(params, y, seen(context))

    return Density(init, log_prob, sample, encode if density.encode else None, update if density.update else None)
