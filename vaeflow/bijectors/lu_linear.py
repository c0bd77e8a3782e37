"""Invertible linear map in LU form (Kingma and Dhariwal 2018, "Glow": on images the invertible 1x1 convolution)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.linalg import lu, solve_triangular

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.scalar_map import bounded, unbounded
from vaeflow.record import recorded


@recorded
def lu_linear(*, start: Literal["identity", "rotation"] = "rotation") -> Layer:
    """z = W x with W = P L U over the last axis D; log |det dz/dx| = sum(d), d = bounded(log_diag) (event rank 1).

    L is unit lower triangular, U upper triangular with the diagonal sign * exp(d); L, U and log_diag are trained, the
    permutation P and the signs are "fixed", so W stays invertible and its determinant costs O(D). The direction of density
    evaluation is two triangular products, `forward` two triangular solves.

    Args:
        start: identity: W = I. rotation: a random rotation (uniform over orthogonal matrices; Kingma and Dhariwal 2018).
    """

    def init(key, x, context=None):
        del context
        d = x.shape[-1]
        w = jnp.eye(d) if start == "identity" else jax.random.orthogonal(key, d)
        p, lower, upper = lu(w)
        diagonal = jnp.diagonal(upper)
        return {
            "lower": jnp.tril(lower, -1),
            "upper": jnp.triu(upper, 1),
            "log_diag": unbounded(jnp.log(jnp.abs(diagonal))),
            "fixed": {"permutation": jnp.argmax(p, axis=1), "sign": jnp.sign(diagonal)},
        }

    def bijector(params, **_):
        order = params["fixed"]["permutation"]  # row i of P h is h[order[i]]

        def factors(dtype):
            lower, upper, log_diag, sign = (
                a.astype(dtype) for a in (*(params[k] for k in ("lower", "upper", "log_diag")), params["fixed"]["sign"])
            )
            log_diag = bounded(log_diag)
            return (
                jnp.tril(lower, -1) + jnp.eye(lower.shape[0], dtype=dtype),
                jnp.triu(upper, 1) + jnp.diag(sign * jnp.exp(log_diag)),
                log_diag,
            )

        def inverse(x):
            lower, upper, log_diag = factors(x.dtype)
            # Full precision: accelerators would otherwise multiply in TF32 or bfloat16 and the log_det be of another matrix.
            h = jnp.matmul(x, upper.T, precision=jax.lax.Precision.HIGHEST)
            z = jnp.matmul(h, lower[order].T, precision=jax.lax.Precision.HIGHEST)
            return z, jnp.broadcast_to(jnp.sum(log_diag), x.shape[:-1])

        def forward(z):
            lower, upper, log_diag = factors(z.dtype)
            rows = z[..., jnp.argsort(order)].reshape(-1, z.shape[-1]).T
            rows = solve_triangular(upper, solve_triangular(lower, rows, lower=True, unit_diagonal=True))
            return rows.T.reshape(z.shape), jnp.broadcast_to(-jnp.sum(log_diag), z.shape[:-1])

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
