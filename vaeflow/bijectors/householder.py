"""Householder rotations (Tomczak and Welling 2016; the trained rotations of Gaussianization flows, Meng et al. 2020)."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.build import Count
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded


@recorded
def householder(*, reflections: Count, start: Literal["identity", "random", "pca"] = "random") -> Layer:
    """z = x R Q over the last axis D, Q = H_1 H_2 ... H_n, H_i = I - 2 v_i v_i^T / |v_i|^2: orthogonal, so log_det = 0 (event rank 1).

    The vectors [n, D] are trained; D reflections reach every orthogonal matrix. With unit vectors as the rows of V the product is

        Q = I - V^T T V,        T^-1 = I / 2 + (V V^T above its diagonal)

    (the compact WY form; Joffrain et al. 2006): two products with n x D matrices in either direction, with no loop over reflections.

    Args:
        reflections: n, their number; even unless start is random.
        start: random: random vectors, and R = I.
            identity: reflections in equal pairs, and R = I.
            pca: as identity, and the columns of R are the principal axes of the first batch, up to their signs. R, too, is kept as
            reflections (D - 1 of them, "fixed"): a matrix in float32 is orthogonal to 1e-7 only.
    """
    if start != "random" and reflections % 2:
        raise UserError(f"reflections={reflections} is invalid with start={start!r}, which pairs them; it must be even")

    def init(key, x, context=None):
        del context
        d = x.shape[-1]
        if start == "random":
            return {"vectors": jax.random.normal(key, (reflections, d))}
        pairs = {"vectors": jnp.repeat(jax.random.normal(key, (reflections // 2, d)), 2, axis=0)}
        return pairs if start == "identity" else {**pairs, "fixed": {"vectors": _principal(x.astype(jnp.float32).reshape(-1, d))}}

    def bijector(params, **_):
        vectors = params["vectors"]
        if start == "pca":
            vectors = jnp.concatenate([params["fixed"]["vectors"], vectors])

        def factors(dtype):
            v = vectors.astype(dtype)
            v = v / jnp.linalg.norm(v, axis=-1, keepdims=True)
            inverse_t = 0.5 * jnp.eye(v.shape[0], dtype=dtype) + jnp.triu(_product(v, v.T), 1)
            return v, solve_triangular(inverse_t, v)  # V, T V

        def inverse(x):
            v, tv = factors(x.dtype)
            return x - _product(_product(x, v.T), tv), jnp.zeros(x.shape[:-1], x.dtype)

        def forward(z):
            v, tv = factors(z.dtype)
            return z - _product(_product(z, tv.T), v), jnp.zeros(z.shape[:-1], z.dtype)

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)


def _principal(rows: Array) -> Array:
    """The vectors [D - 1, D] of the reflections whose product has the principal axes of rows [N, D] as its columns: those of a QR
    factorisation of the axes, whose R is diagonal with entries 1 and -1."""
    rows -= jnp.mean(rows, axis=0)
    axes = jnp.linalg.eigh(_product(rows.T, rows) / rows.shape[0])[1]
    packed = jnp.linalg.qr(axes, mode="raw")[0]  # row i is, right of its diagonal, vector i; on the diagonal that has a one
    return (jnp.triu(packed, 1) + jnp.eye(rows.shape[1]))[:-1]


def _product(a: Array, b: Array) -> Array:
    """Full precision: accelerators would otherwise multiply in TF32 or bfloat16 and the map not be orthogonal."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
