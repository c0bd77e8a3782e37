"""Couplings of a minibatch: which noise belongs to which example. A permutation of the noise, so neither marginal changes.

The noise moves and the data stay, so everything that belongs to an example (context, labels) stays with it. With `label`, noise moves
only among examples of one class: otherwise the noise would depend on the class, and sampling given a class starts from all of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vaeflow.build import Count, Positive
from vaeflow.model import Array
from vaeflow.record import recorded


class BatchCoupling(NamedTuple):
    """pair: (key, x [B, *event], noise [B, *event], label [B] or None) -> order [B]: noise[order[i]] belongs to x[i]. moves: whether that
    is ever another one than i."""

    pair: Callable[[Array, Array, Array, Array | None], Array]
    moves: bool = True
    spec: Any = None  # how it was made, see record.py


def costs(x: Array, noise: Array, label: Array | None = None) -> Array:
    """|x_i - noise_j|^2 [B, B]; pairs of different labels cost more than all pairs of one label together."""
    a, b = x.reshape(len(x), -1), noise.reshape(len(noise), -1)
    square = jnp.sum(a**2, 1)[:, None] + jnp.sum(b**2, 1) - 2 * a @ b.T
    square = square - jnp.min(square)
    if label is None:
        return square
    return square + jnp.where(label[:, None] == label, 0, (len(x) + 1) * (jnp.max(square) + 1))


@recorded
def independent() -> BatchCoupling:
    """No permutation: the independent coupling."""
    return BatchCoupling(lambda key, x, noise, label=None: jnp.arange(len(x)), moves=False)


@recorded
def exact() -> BatchCoupling:
    """The permutation of least total squared distance, by the Hungarian algorithm inside the program: O(B^3), for B up to about 64.

    References: Pooladian et al. 2023 (arXiv 2304.14772); Tong et al. 2024 (2302.00482).
    """

    def pair(key, x, noise, label=None):
        rows, columns = optax.assignment.hungarian_algorithm(costs(x, noise, label))
        return jnp.zeros(len(x), columns.dtype).at[rows].set(columns)

    return BatchCoupling(pair)


@recorded
def sinkhorn(*, eps: Positive = 0.05, iterations: Count = 50) -> BatchCoupling:
    """A permutation drawn from the entropic plan exp((f_i + g_j - c_ij) / (eps mean c)), row by row without replacement.

    Args:
        eps: the entropy's weight, relative to the mean cost of pairs of one label; small values come close to `exact`.
        iterations: alternate scalings of rows and columns.

    Rows are visited in random order, as the last ones have the least choice. Reference: Cuturi 2013 (arXiv 1306.0895).
    """

    def pair(key, x, noise, label=None):
        cost, n = costs(x, noise, label), len(x)
        allowed = jnp.ones((n, n), bool) if label is None else label[:, None] == label
        logits = -cost / (eps * jnp.sum(jnp.where(allowed, cost, 0)) / jnp.sum(allowed))
        logits = jnp.where(allowed, logits, -jnp.inf)

        def scale(_, logits):
            logits = logits - jax.nn.logsumexp(logits, 1, keepdims=True)
            return logits - jax.nn.logsumexp(logits, 0, keepdims=True)

        logits = jax.lax.fori_loop(0, iterations, scale, logits)
        order_key, draw_key = jax.random.split(key)
        noisy = logits + jax.random.gumbel(draw_key, (n, n), logits.dtype)

        def draw(free, row):
            column = jnp.argmax(jnp.where(free & allowed[row], noisy[row], -jnp.inf))
            return free.at[column].set(False), column

        rows = jax.random.permutation(order_key, n)
        _, columns = jax.lax.scan(draw, jnp.ones(n, bool), rows)
        return jnp.zeros(n, columns.dtype).at[rows].set(columns)

    return BatchCoupling(pair)


COUPLINGS: dict[str, Callable[..., BatchCoupling]] = {"independent": independent, "exact": exact, "sinkhorn": sinkhorn}
