"""Continuous stand-ins for discrete draws, through which a gradient passes: the concrete distribution and the straight-through estimator.

Their gradients are BIASED for the discrete model: the relaxed one is another model, which tends to the discrete one as the temperature
t goes to 0, where the variance of the gradient grows without bound. (Maddison et al. 2017; Jang et al. 2017)
"""

from __future__ import annotations

import jax

from vaeflow.model import Array
from vaeflow.objectives.score_function import silent


def gumbel_softmax(key: Array, logits: Array, temperature: Array | float, n: int) -> Array:
    """softmax((l + g) / t), g standard Gumbel: logits [..., C] -> [n, ..., C] inside the simplex. Its argmax is an exact draw of
    softmax(l), at every t > 0."""
    noise = jax.random.gumbel(key, (n, *logits.shape), logits.dtype)
    return jax.nn.softmax((logits + noise) / temperature, axis=-1)


def binary_concrete(key: Array, logits: Array, temperature: Array | float, n: int) -> Array:
    """sigmoid((l + e) / t), e standard logistic: logits [...] -> [n, ...] in (0, 1); it exceeds 1/2 with probability sigmoid(l). The
    Gumbel-softmax of two categories, of which only the logits' difference counts."""
    noise = jax.random.logistic(key, (n, *logits.shape), logits.dtype)
    return jax.nn.sigmoid((logits + noise) / temperature)


def straight_through(soft: Array, hard: Array) -> Array:
    """`hard` exactly, with the gradient of `soft` (Bengio et al. 2013): what follows is differentiated at the hard value and the draw at
    the soft one, so it is biased at every temperature, and but for functions of degree two also in the limit."""
    return hard + silent(soft)
