"""An autoregressive p(x|z): what is seen one pixel after the other, in the order of the array.

    log p(x|z) = sum_i log p(x_i | x_<i, z),        output o_i = decoder(z)_i + made(x_<i, z)_i

Strong enough to model the data without z, it lets the posterior collapse unless training holds the KL up (Chen et al. 2017, "Variational
lossy autoencoder"; Bowman et al. 2016). The made network (nets/made.py) sees x scaled, as the encoder does, and z as its context.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp

from vaeflow.distributions import Distribution
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.models.parts.observation import ObservationModel
from vaeflow.nets.made import Made, MadeNet


def pixels(made: Made, data: ObservationModel, event: tuple[int, ...]) -> tuple[Callable[..., Params], Callable[..., Distribution]]:
    """(init, given) of the masked network: init (key, x [B, *event], z) -> params; given (params, output [..., *out], z) -> p(x|z)."""
    if made.order != "natural":
        raise UserError(f"model.autoregressive has order={made.order!r}; pixels come in the order of the array: 'natural'")
    heads, d = data.out[: len(data.out) - len(event)], math.prod(event)
    net = MadeNet(made, math.prod(heads))

    def flat(x):
        return data.scaled(x).reshape(*jnp.shape(x)[: jnp.ndim(x) - len(event)], d)

    def init(key, x, z) -> Any:
        return net.init(key, flat(x)[:1], z[:1])["params"]

    def given(params, out, z):
        def elementwise(x):
            theta = jnp.asarray(net.apply({"params": params}, flat(x), z))
            return data.given(out + theta.reshape(*theta.shape[:-2], *data.out))

        return OneByOne(elementwise, event, out.shape[: out.ndim - len(data.out)])

    return init, given


class OneByOne(distrax.Distribution):
    """See the module's docstring. conditionals: x [..., *batch, *event] -> the distribution whose entry i is p(x_i | x_<i)."""

    def __init__(self, conditionals: Callable[[Array], Distribution], event: tuple[int, ...], batch: tuple[int, ...]):
        super().__init__()
        self._conditionals, self._event, self._batch = conditionals, event, batch

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self._event

    @property
    def batch_shape(self) -> tuple[int, ...]:
        return self._batch

    def log_prob(self, value: Array) -> Array:
        return self._conditionals(value).log_prob(value)

    def mean(self) -> Array:
        """Every pixel at its mean given the means before it: a picture without noise, not E[x|z], which would take draws."""
        return self._one_by_one(lambda p, i: p.mean(), ())

    def _sample_n(self, key: Array, n: int) -> Array:
        return self._one_by_one(lambda p, i: p.sample(seed=jax.random.fold_in(key, i)), (n,))

    def _one_by_one(self, choose: Callable[[Distribution, Array], Array], lead: tuple[int, ...]) -> Array:
        """One pass of the network a pixel."""
        shape = (*lead, *self._batch, *self._event)
        rank = len(self._event)

        def step(i, x):
            new = choose(self._conditionals(x.reshape(shape)), i).reshape(x.shape)
            return x.at[..., i].set(new[..., i])

        x = jnp.zeros((*shape[: len(shape) - rank], math.prod(self._event)))
        return jax.lax.fori_loop(0, x.shape[-1], step, x).reshape(shape)
