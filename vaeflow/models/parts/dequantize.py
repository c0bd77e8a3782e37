"""From grey values to real numbers and back: what a model of continuous y does with data of `levels` grey values.

    auto         uniform for grey values, none for continuous data
    none         y = x, for continuous data
    uniform      y = x + u, u ~ U(0, 1) per entry, log q(y|x) = 0                                        (Theis et al. 2016)
    variational  y = x + sigmoid(v), v = f(eps; x), eps ~ N(0, I), f a Layer                              (Ho et al. 2019, Flow++)
                 log q(y|x) = log N(eps) - log_det_f - sum log sigmoid'(v)

log p(y) - log q(y|x) is a log-weight of P(x), the integral of p over x's unit cell: its exp has mean P(x). f sees x scaled to [-1, 1] as
its context, in the shape of y: vectors [B, D], or images (then for couplings of the same height and width: checkerboard or channel
masks, convolutional networks). It does not see the model's own context: q may be any density.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Layer, at_rank
from vaeflow.distributions import dequantize as uniform
from vaeflow.distributions import standard_normal
from vaeflow.errors import UserError
from vaeflow.model import Array, Params

Dequantize = Literal["auto", "none", "uniform", "variational"]


class Dequantizer(NamedTuple):
    """x [B, *event] as loaded; y [B, *shape], the same numbers in the shape that the model's layer sees.

    init   (key, x) -> params, {} for nothing to learn
    draw   (params, key, x, train=False) -> (y, log q(y|x) [B])
    round  y [n, *shape] -> x [n, *event]: of grey values the floor, clipped to 0..levels-1
    """

    init: Callable[..., Params]
    draw: Callable[..., tuple[Array, Array]]
    round: Callable[[Array], Array]


def make_dequantizer(
    kind: Dequantize, levels: int, event: tuple[int, ...], shape: tuple[int, ...], layer: Layer | None = None
) -> Dequantizer:
    """See the module's docstring; `layer` is f. UserError: the three do not fit together."""
    chosen = ("uniform" if levels else "none") if kind == "auto" else kind
    if (chosen == "none") != (levels == 0):
        fit = "'uniform' or 'variational' for grey values" if levels else "'none' for continuous data (model.levels=0)"
        raise UserError(f"model.dequantize={kind!r} does not fit model.levels={levels}; it must be {fit}")
    if (chosen == "variational") != (layer is not None):
        needs = "needs a layer" if layer is None else "has no use for one"
        raise UserError(f"model.dequantize={kind!r} {needs}: model.dequantizer must be the name of a layer for 'variational', else ''")

    if layer is not None and layer.update is not None:
        raise UserError("model.dequantizer is a layer that keeps statistics (batch_norm), which a dequantizer's noise would not set")

    def shaped(x):
        return jnp.reshape(x, (jnp.shape(x)[0], *shape))

    def rounded(y):
        x = jnp.reshape(y, (y.shape[0], *event))
        return jnp.clip(jnp.floor(x), 0, levels - 1) if levels else x

    def fixed(params, key, x, train=False):
        del params, train
        x = jnp.asarray(x)
        y, log_q = uniform(key, x) if levels else (x, jnp.zeros(x.shape[:1]))
        return shaped(y), log_q

    if layer is None:
        return Dequantizer(lambda key, x: {}, fixed, rounded)

    def scaled(x):
        x = shaped(jnp.asarray(x, jnp.result_type(float)))
        return x, x / (0.5 * max(levels - 1, 1)) - 1

    def init(key, x):
        x, context = scaled(x)
        key, noise = jax.random.split(key)
        # The v of uniform noise: a layer that normalises what it sees first then starts near the uniform dequantiser.
        return layer.init(key, jax.random.logistic(noise, x.shape, x.dtype), context)

    def variational(params, key, x, train=False):
        key_eps, key_f = jax.random.split(key)
        x, context = scaled(x)
        f = at_rank(layer.bijector(params, context=context, key=key_f, train=train), len(shape))
        start = jax.eval_shape(f.inverse, x)
        eps = jax.random.normal(key_eps, start.shape, x.dtype)
        v, log_det = (jnp.asarray(a) for a in f.forward_and_log_det(eps))
        slope = jnp.sum(jax.nn.log_sigmoid(v) + jax.nn.log_sigmoid(-v), axis=tuple(range(1, x.ndim)))
        # Strictly inside the cell also in floating point, so that a logit behind it is finite.
        y = jnp.clip(x + jax.nn.sigmoid(v), x + 2.0**-24, jnp.nextafter(x + 1, x))
        return y, standard_normal(eps.shape[1:]).log_prob(eps) - log_det - slope

    return Dequantizer(init, variational, rounded)
