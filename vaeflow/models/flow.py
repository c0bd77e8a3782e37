"""Normalizing flow: p(x) is the image of N(0, I) under a Layer, on vectors, images or images taken as vectors.

    log p(x|c) = log N(f^-1(x)) + log |det d f^-1 / dx|,        c the context (optional), f the layer's `forward`

Grey values (`dequantize`) are made continuous by y = x + u, u uniform on (0, 1) per entry; log p(y) of one draw is then a
log-weight of P(x) (Theis et al. 2016). Scaling and logit are Layers at the data end of `layer`, so that the density is with
respect to the data as loaded. The base's shape is what `layer` maps an example to.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors import Layer
from vaeflow.bijectors.layer import at_rank
from vaeflow.build import Count, Natural, NonNegative
from vaeflow.distributions import dequantize as uniform_dequantize
from vaeflow.distributions import standard_normal
from vaeflow.errors import UserError
from vaeflow.model import Model


def flow(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    layer: Layer,
    base: Literal["normal"],
    dequantize: Literal["none", "uniform"],
    flatten: bool,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring.

    event        the shape of one example; levels: its number of grey values, 0 for continuous data
    dequantize   uniform for grey values, none for continuous data
    flatten      whether the layer sees vectors [B, D] instead of [B, *event]
    temperature  of `sample`: factor on the standard deviation of the base's noise

    `sample` gives data as loaded: of grey values the floor, clipped to 0..levels-1.
    """
    del base  # N(0, I) is the only one
    if (dequantize == "none") != (levels == 0):
        fit = "'uniform' for grey values" if levels else "'none' for continuous data (model.levels=0)"
        raise UserError(f"model.dequantize={dequantize!r} does not fit model.levels={levels}; it must be {fit}")
    shape = (math.prod(event),) if flatten else event

    def continuous(key, x):
        """(y [B, *shape], log q(y|x) [B])."""
        x = jnp.asarray(x)
        if levels:
            x, log_q = uniform_dequantize(key, x)
        else:
            log_q = jnp.zeros(x.shape[:1])
        return x.reshape(x.shape[0], *shape), log_q

    def bijector(params, context, key=None, train=False):
        return at_rank(layer.bijector(params.get("layer", {}), context=context, key=key, train=train), len(shape))

    def draw(params, key, batch, train):
        key_u, key_f = jax.random.split(key)
        context = batch.get("context")
        y, log_q = continuous(key_u, batch["x"])
        z, log_det = bijector(params, context, key_f, train).inverse_and_log_det(y)
        return standard_normal(z.shape[1:]).log_prob(z) + log_det - log_q

    def init(key, batch):
        x = jnp.asarray(batch["x"])
        if x.shape[1:] != event:
            raise UserError(f"model.event={event} does not fit the data, whose examples have the shape {x.shape[1:]}")
        key_u, key_f = jax.random.split(key)
        return {"layer": layer.init(key_f, continuous(key_u, x)[0], batch.get("context"))}

    def loss(params, key, batch, step):
        del step
        total = -jnp.mean(draw(params, key, batch, train=True))
        return total, {"loss": total}

    def log_prob(params, key, batch):
        return draw(params, key, batch, train=False)

    def encode(params, key, batch):
        y, _ = continuous(key, batch["x"])
        return jnp.asarray(bijector(params, batch.get("context")).inverse(y))

    def sample(params, key, n, context=None):
        context = None if context is None else jnp.broadcast_to(context, (n, jnp.shape(context)[-1]))
        f = bijector(params, context)
        # No example is at hand: the base's shape is that of f^-1(x), found without computing it.
        noise = jax.eval_shape(f.inverse, jnp.zeros((n, *shape)))
        x = jnp.reshape(f.forward(temperature * jax.random.normal(key, noise.shape, noise.dtype)), (n, *event))
        return jnp.clip(jnp.floor(x), 0, levels - 1) if levels else x

    def update(params, key, batch, step):
        del step
        y, _ = continuous(jax.random.split(key)[0], batch["x"])  # the loss's noise
        return params | {"layer": layer.update(params["layer"], y, batch.get("context"))}  # type: ignore[misc]

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight" if levels else "exact",
        encode=encode,
        update=update if layer.update else None,
    )


_EXAMPLE = dict(event=(4,), levels=0, layer="layer", base="normal", dequantize="none", flatten=False, temperature=1.0)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(layer="norm"),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, dequantize="uniform", flatten=True),
)
