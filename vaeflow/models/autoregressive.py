"""Autoregressive model of integers: the entries one after the other, each given those before it, by a causal network.

    log p(x | c) = sum_j log p(x_j | x_<j, c),    p(x_j | x_<j, c) = softmax(l_j(x_<j, c)),    entries in raster order

The exact density that a discrete diffusion is compared with.
"""

from __future__ import annotations

import math
from typing import Annotated

import jax.numpy as jnp

from vaeflow.build import SAMPLING, Count, Natural, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Model, overlay
from vaeflow.models.parts.code_prior import conditionals, draw
from vaeflow.models.parts.density import fits
from vaeflow.nets import Causal
from vaeflow.record import recorded


@recorded
def autoregressive(
    *, event: tuple[Count, ...], levels: Natural = 0, net: Causal, temperature: Annotated[NonNegative, SAMPLING] = 1.0
) -> Model:
    """See the module's docstring. Parameters: net.

    Args:
        event, levels: the shape of one example; number of its categories.
        net: causal network of the D entries of an example, as causal_transformer.
        temperature: of `sample`: the logits are divided by it; 0: the likeliest category. The whole network runs once per entry.

    Returns: `sample` gives integers {x}. The density is exact.

    Raises:
        UserError: continuous data.

    Example:
        model = autoregressive(event=(64,), levels=27, net=causal_transformer(width=64, depth=2))
    """
    event, length = tuple(event), math.prod(event)
    if levels < 2:
        raise UserError(f"model.levels={levels} is invalid; an autoregressive model needs integers below a number of levels >= 2")
    network = net.module(length, levels, levels)

    def codes(batch):
        x = jnp.asarray(batch["x"])
        return x.reshape(len(x), length).astype(jnp.int32)

    def logits_of(params, context):
        return lambda x: jnp.asarray(network.apply({"params": params["net"]}, x, context))

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        return overlay({"net": network.init(key, codes(batch), batch.get("context"))["params"]}, given)

    def log_prob(params, key, batch):
        del key
        return jnp.sum(conditionals(logits_of(params, batch.get("context")), codes(batch)), -1)

    def loss(params, key, batch, step):
        del step
        total = -jnp.mean(log_prob(params, key, batch))
        return total, {"loss": total}

    def sample(params, key, n, context=None):
        x = draw(logits_of(params, context), key, (n, length), temperature)
        return {"x": x.reshape(n, *event)}

    return Model(init=init, loss=loss, sample=sample, log_prob=log_prob, density="exact", event=event, levels=levels)


EXAMPLES = (
    dict(event=(5,), levels=6, net="causal"),
    dict(event=(2, 2, 1), levels=17, net="causal", temperature=0.5),
)
