"""WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028): two players, a generator g and a critic f.

    critic      min E f(g(z)) - E f(x) + weight E (|grad f(x_mix)| - 1)^2 + drift E f(x)^2,    x_mix between x and g(z)
    generator   min - E f(g(z))

The loss is the sum, in which each player sees the other one's parameters as constants (vaeflow/objectives/turns.py). A config gives the
turns: optim.turns = ("critic:5", "generator:1"). The small drift (Karras et al. 2018, arXiv:1710.10196) keeps f near 0.

Parameters: `critic`, `generator`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.build import Count, NonNegative
from vaeflow.model import NO_PARAMS, Model
from vaeflow.nets import Net


def wgan_gp(
    *, event: tuple[Count, ...], latent: Count, critic: Net, generator: Net, weight: NonNegative = 10.0, drift: NonNegative = 1e-3
) -> Model:
    """See the module's docstring. event: the shape of one example, real numbers; latent: the dimension of z."""
    critic_net, generator_net = critic.module((1,), len(event), False), generator.module(tuple(event), 1, False)

    def f(params, x):
        value: Any = critic_net.apply({"params": params["critic"]}, x)
        return value[..., 0]

    def g(params, z) -> Any:
        return generator_net.apply({"params": params["generator"]}, z)

    def init(key, batch, given=NO_PARAMS):
        del given
        first, second = jax.random.split(key)
        return {
            "critic": critic_net.init(first, batch["x"])["params"],
            "generator": generator_net.init(second, jnp.zeros((1, latent)))["params"],
        }

    def loss(params, key, batch, step):
        del step
        key_z, key_mix = jax.random.split(key)
        x, n = batch["x"], len(batch["x"])
        fake = g(params, jax.random.normal(key_z, (n, latent)))
        held = jax.lax.stop_gradient(fake)
        mix = held + jax.random.uniform(key_mix, (n, *(1 for _ in event))) * (x - held)
        slopes = jax.vmap(jax.grad(lambda at: f(params, at)))(mix).reshape(n, -1)
        penalty = jnp.mean((jnp.sqrt(jnp.sum(slopes**2, -1) + 1e-12) - 1) ** 2)
        real = f(params, x)
        critic_loss = jnp.mean(f(params, held)) - jnp.mean(real) + weight * penalty + drift * jnp.mean(real**2)
        generator_loss = -jnp.mean(f(jax.lax.stop_gradient(params), fake))
        total = critic_loss + generator_loss
        return total, {"loss": total, "critic_loss": critic_loss, "generator_loss": generator_loss}

    def sample(params, key, n, context=None):
        del context
        z = jax.random.normal(key, (n, latent))
        return {"x": g(params, z), "z": z}

    return Model(init, loss, sample, None, "none", event=event, levels=0)


EXAMPLES = (dict(event=(4,), latent=3, critic="net", generator="net", weight=10.0, drift=1e-3),)
