"""A generator without a density, trained by the energy distance (Szekely and Rizzo 2013; Bellemare et al. 2017, arXiv:1705.10743).

    x = g(z), z ~ N(0, I);    loss = 2 E|x - y| - E|x - x'|,    y of the data, x and x' two samples

The energy distance is this loss minus E|y - y'|, which does not depend on g. Both means are over pairs of a batch, so the gradient has no
bias. `best` is selected by a measure of samples: eval.select = "sample_quality.energy".

Parameters: `generator`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.build import Count
from vaeflow.model import NO_PARAMS, Model
from vaeflow.nets import Net


def energy_generator(*, event: tuple[Count, ...], latent: Count, generator: Net) -> Model:
    """See the module's docstring. event: the shape of one example, real numbers; latent: the dimension of z."""
    network = generator.module(tuple(event), 1, False)

    def init(key, batch, given=NO_PARAMS):
        del batch, given
        return {"generator": network.init(key, jnp.zeros((1, latent)))["params"]}

    def sample(params, key, n, context=None):
        del context
        z = jax.random.normal(key, (n, latent))
        x: Any = network.apply({"params": params["generator"]}, z)
        return {"x": x, "z": z}

    def loss(params, key, batch, step):
        del step
        n = len(batch["x"])
        x, y = sample(params, key, n)["x"].reshape(n, -1), batch["x"].reshape(n, -1)
        total = 2 * jnp.mean(_distances(x, y)) - jnp.sum(_distances(x, x)) / (n * (n - 1))
        return total, {"loss": total}

    return Model(init, loss, sample, None, "none", event=event, levels=0)


def _distances(a, b):
    """|a_i - b_j| [N, M] of rows [N, D] and [M, D]; differentiable where they are equal."""
    return jnp.sqrt(jnp.sum((a[:, None] - b) ** 2, -1) + 1e-12)


EXAMPLES = (dict(event=(4,), latent=3, generator="net"),)
