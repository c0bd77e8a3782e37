"""Unit lower-triangular linear map with entries from a context: over a diagonal Gaussian it makes every covariance, for posteriors.

A diagonal Gaussian N(m, diag(s)^2) becomes N(L m, L diag(s)^2 L^T): the LDL^T form of any positive definite matrix. (Kingma & Welling
2019, "An introduction to variational autoencoders", section 2.5.1, multiply noise by a triangular matrix in the same way.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.bijectors import amortised
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.errors import UserError
from vaeflow.record import recorded


@recorded
def triangular() -> Layer:
    """x = L z, L = I + (a strictly lower-triangular matrix); log |det dx/dz| = 0. Vectors [D].

    The D (D - 1) / 2 entries come from the context (amortised.py); it starts near the identity.
    """

    def shapes(d: int) -> amortised.Shapes:
        return {"below": (d * (d - 1) // 2,)}

    def matrix(params, context, d, dtype):
        below = amortised.values(params, shapes(d), context, dtype)["below"]
        rows, columns = jnp.tril_indices(d, -1)
        return jnp.broadcast_to(jnp.eye(d, dtype=dtype), (*below.shape[:-1], d, d)).at[..., rows, columns].set(below)

    def init(key, x, context=None):
        amortised.needs_vectors("triangular", x)
        d = x.shape[-1]
        if d < 2:
            raise UserError("a triangular layer needs events of two or more dimensions; of one it is the identity")
        keys = jax.random.split(key)
        start = {"below": 0.01 * jax.random.normal(keys[0], (d * (d - 1) // 2,))}
        return amortised.init(keys[1], context, start)

    def bijector(params, context=None, **_):
        def forward(z):
            scale = matrix(params, context, z.shape[-1], z.dtype)
            return jnp.einsum("...ij,...j->...i", scale, z), jnp.zeros(z.shape[:-1], z.dtype)

        def inverse(x):
            scale = matrix(params, context, x.shape[-1], x.dtype)
            scale = jnp.broadcast_to(scale, (*x.shape[:-1], *scale.shape[-2:]))
            z = jax.scipy.linalg.solve_triangular(scale, x[..., None], lower=True, unit_diagonal=True)[..., 0]
            return z, jnp.zeros(x.shape[:-1], x.dtype)

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
