"""Sylvester flow (van den Berg et al. 2018), for posteriors: forward and its log_det are closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.bijectors import amortised
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.solve import newton, solve
from vaeflow.build import Count, Natural
from vaeflow.errors import UserError
from vaeflow.record import recorded


def _times(matrix, v):
    return jnp.sum(matrix * v[..., None, :], -1)


def _core(theta, v):
    """v + R tanh(R~ v + b) [..., M] and the log-diagonal of its triangular Jacobian."""
    upper, upper2, b = theta
    t = jnp.tanh(_times(upper2, v) + b)
    diagonal = jnp.diagonal(upper, axis1=-2, axis2=-1) * jnp.diagonal(upper2, axis1=-2, axis2=-1)
    return v + _times(upper, t), jnp.log1p(diagonal * (1 - t**2))


def _reflect(vectors, h, transposed=False):
    """The product of the reflections I - 2 v v^T / |v|^2, v in vectors [H, ..., D], times h [..., D]; transposed: the other order."""

    def step(h, v):
        square = jnp.sum(v**2, -1, keepdims=True)
        return h - 2 * v * jnp.sum(v * h, -1, keepdims=True) / jnp.where(square > 0, square, 1), None

    return jax.lax.scan(step, h, vectors, reverse=not transposed)[0]


@recorded
def sylvester(*, columns: Count = 8, reflections: Natural = 8) -> Layer:
    """x = z + Q R tanh(R~ Q^T z + b); log |det dx/dz| = sum_i log(1 + R_ii R~_ii (1 - tanh_i^2)). Vectors [D], D >= 1.

    Q [D, M] has orthonormal columns, M = `columns` <= D; R and R~ [M, M] are upper triangular. |R_ii R~_ii| < 1 (a tanh on both) makes
    it invertible. All come from the context (amortised.py). Q is the first M columns of a product of `reflections` Householder
    reflections, orthogonal without an iteration:

        M reflections       any Q up to signs: the paper's orthogonal flow
        more, columns = D   its Householder flow
        0, columns = D      its triangular flow (Q = I): put a permutation between two of them

    The inverse: v = Q^T z solves the triangular system v + R tanh(R~ v + b) = Q^T x in M dimensions; then z = x - Q R tanh(R~ v + b).

    Args:
        columns: M, at most D.
        reflections: whose product has Q as its first columns.
    """
    max_steps = 20 * (columns + 2)  # Newton's steps settle one coordinate after another, each in a few

    def shapes(d: int) -> amortised.Shapes:
        return {"both": (columns, columns), "diagonal": (columns,), "diagonal2": (columns,), "b": (columns,), "v": (reflections, d)}

    def init(key, x, context=None):
        amortised.needs_vectors("sylvester", x)
        d = x.shape[-1]
        if columns > d:
            raise UserError(f"sylvester: columns={columns} is invalid for vectors of dimension {d}; it must be <= {d}")
        keys = jax.random.split(key, 4)
        start = {
            "both": 0.01 * jax.random.normal(keys[0], (columns, columns)),
            "diagonal": 0.01 * jax.random.normal(keys[1], (columns,)),  # R small, R~ not: near the identity, and with a gradient
            "diagonal2": jnp.ones(columns),
            "b": jnp.zeros(columns),
            "v": jax.random.normal(keys[2], (reflections, d)),
        }
        return amortised.init(keys[3], context, start)

    def bijector(params, context=None, **_):
        def matrices(h):
            """(R, R~, b), the reflections' vectors [H, ..., D]."""
            both, diagonal, diagonal2, b, v = amortised.values(params, shapes(h.shape[-1]), context, h.dtype).values()

            def triangle(square, raw):
                bounded = (1 - amortised.MIN_SLOPE) ** 0.5 * jnp.tanh(raw)
                return jnp.triu(square, 1) + bounded[..., None] * jnp.eye(columns, dtype=h.dtype)

            theta = triangle(both, diagonal), triangle(jnp.swapaxes(both, -1, -2), diagonal2), b
            return theta, jnp.moveaxis(v, -2, 0)

        def lift(v, moved, like):
            """Q moved, [..., M] -> [..., D]."""
            padded = jnp.concatenate([moved, jnp.zeros((*moved.shape[:-1], like.shape[-1] - columns), like.dtype)], -1)
            return _reflect(v, padded)

        def forward(z):
            theta, v = matrices(z)
            inner = _reflect(v, z, transposed=True)[..., :columns]
            outer, log_slope = _core(theta, inner)
            return z + lift(v, outer - inner, z), jnp.sum(log_slope, -1)

        def inverse(x):
            theta, v = matrices(x)
            outer = _reflect(v, x, transposed=True)[..., :columns]
            inner, log_slope = solve(_core, newton(_core, 0.0, max_steps), 0.0, max_steps, theta, outer)
            return x - lift(v, outer - inner, x), -jnp.sum(log_slope, -1)

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
