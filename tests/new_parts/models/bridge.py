"""Flow matching between paired data (Liu et al. 2023, arXiv:2209.03003; Albergo and Vanden-Eijnden 2023, arXiv:2209.15571).

    dx/dt = v(x, t) from x0 at t = 0 to x at t = 1;    loss = E|v((1 - t) x0 + t x, t) - (x - x0)|^2,    t ~ U(0, 1)

`sample` maps the given x0 by `steps` steps of Heun's method. There is no density.

Parameters: `velocity`.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vaeflow.build import SAMPLING, Count
from vaeflow.model import NO_PARAMS, Model
from vaeflow.nets import Net


def bridge(*, event: tuple[Count, ...], velocity: Net, steps: Annotated[Count, SAMPLING] = 10) -> Model:
    """See the module's docstring. event: the shape of one example, real numbers; steps: of sampling."""
    network = velocity.module(tuple(event), len(event), False)

    def v(params, x, t) -> Any:
        return network.apply({"params": params["velocity"]}, x, jnp.broadcast_to(t, (len(x),))[:, None])

    def init(key, batch, given=NO_PARAMS):
        del given
        x = batch["x"]
        return {"velocity": network.init(key, x, jnp.zeros((len(x), 1)))["params"]}

    def loss(params, key, batch, step):
        del step
        x0, x = batch["x0"], batch["x"]
        t = jax.random.uniform(key, (len(x),))
        at = t.reshape(-1, *(1 for _ in event))
        error = v(params, (1 - at) * x0 + at * x, t) - (x - x0)
        total = jnp.mean(jnp.sum(error.reshape(len(x), -1) ** 2, -1))
        return total, {"loss": total}

    def sample(params, key, n, context=None, x0=None):
        del key, n, context

        def step(x, i):
            now = v(params, x, i / steps)
            after = v(params, x + now / steps, (i + 1) / steps)
            return x + (now + after) / (2 * steps), None

        return {"x": jax.lax.scan(step, x0, jnp.arange(steps))[0], "x0": x0}

    return Model(init, loss, sample, None, "none", event=event, levels=0, paired=True)


EXAMPLES = (dict(event=(4,), velocity="net", steps=4),)
