"""Autoregressive model of integer sequences: a categorical distribution of each symbol given the `order` symbols before it.

    log p(x) = sum_t log p(x_t | x_(t-order) ... x_(t-1))

exact, in nats. Before the start of a sequence there are zeros in place of one-hot symbols, so that the network knows how far it is from
the start. (A neural n-gram model: Bengio et al. 2003.)

Parameters: `network`.
"""

from __future__ import annotations

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vaeflow.build import SAMPLING, Count, Positive, Range
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Model
from vaeflow.nets import Net


def markov(
    *,
    event: tuple[Count, ...],
    levels: Annotated[int, Range(2)],
    order: Count,
    net: Net,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event        (T,), the length of a sequence
    levels       size of the vocabulary, symbols are 0 .. levels - 1
    temperature  of `sample`: logits are divided by it
    """
    if len(event) != 1:
        raise UserError(f"model.event={tuple(event)} is invalid: sequences have the shape (T,)")
    network = net.module((levels,), 2, False)

    def logits(params, window) -> Any:
        """window [..., order], -1 before the start -> [..., levels]."""
        return network.apply({"params": params["network"]}, jax.nn.one_hot(window, levels))

    def windows(x):
        """x [B, T] -> the symbols before each one [B, T, order]."""
        padded = jnp.pad(x.astype(jnp.int32), ((0, 0), (order, 0)), constant_values=-1)
        return jnp.stack([padded[:, i : i + x.shape[1]] for i in range(order)], -1)

    def init(key, batch, given=NO_PARAMS):
        del given
        return {"network": network.init(key, jax.nn.one_hot(windows(batch["x"][:1]), levels))["params"]}

    def log_prob(params, key, batch):
        del key
        x = batch["x"].astype(jnp.int32)
        each = jax.nn.log_softmax(logits(params, windows(x)))
        return jnp.sum(jnp.take_along_axis(each, x[..., None], -1)[..., 0], -1)

    def loss(params, key, batch, step):
        del step
        total = -jnp.mean(log_prob(params, key, batch))
        return total, {"loss": total}

    def sample(params, key, n, context=None):
        del context

        def step(window, key):
            x = jax.random.categorical(key, logits(params, window) / temperature)
            return jnp.concatenate([window[:, 1:], x[:, None]], -1), x

        _, x = jax.lax.scan(step, jnp.full((n, order), -1), jax.random.split(key, *event))
        return {"x": x.T}

    return Model(init, loss, sample, log_prob, "exact", event=event, levels=levels)


EXAMPLES = (dict(event=(6,), levels=5, order=2, net="net", temperature=1.0),)
