"""Residual blocks: i-ResNet (Behrmann et al. 2019) and residual flows (Chen et al. 2019).

    z = x + g(x, c),    Lip(g) <= lip < 1,        x from z by Banach's iteration x <- z - g(x, c)
    log |det dz/dx| = log det(I + J) = sum_(k >= 1) (-1)^(k+1) tr(J^k) / k,        J = dg/dx, |tr(J^k)| <= D lip^k

g is the network of vaeflow/nets/lipschitz.py: its constant is bounded for any parameters, so every block is invertible. Estimators
of log det for training, v a probe with entries +-1, so that E[v^T A v] = tr(A); one vector-Jacobian product a term:

    exact      the Jacobian (D products) and its elimination: for small D
    series     the first n terms (i-ResNet); biased by at most D lip^(n+1) / ((n + 1) (1 - lip))
    unbiased   n terms, then N more, P(N >= k) = q^k, the k-th of them divided by q^k (Russian roulette); one N for the batch. Its
               variance is finite where ||J||^2 < q

The last two have the Neumann series' gradient: d log det(I + J) = tr((I + J)^-1 dJ) = E[w^T dJ v], w^T = v^T sum_(k >= 0) (-J)^k,
weighted as the terms are, w a constant; memory does not grow with the number of terms. Evaluation is exact whatever training uses:
a truncated series with an exact trace needs the Jacobian just as well.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vaeflow.bijectors.amortised import needs_vectors
from vaeflow.bijectors.core.layer import Bijection, Layer
from vaeflow.bijectors.core.solve import newton, solve
from vaeflow.build import Count, Range
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.nets import lipschitz
from vaeflow.record import recorded

Open = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


@jax.custom_jvp
def log_det_positive(a: Array) -> Array:
    """log det of A [..., D, D] with v^T A v > 0 for all v != 0, not symmetric: such as I + J with ||J||_2 < 1.

    All pivots are then positive without an exchange of rows. (Batched LAPACK calls can deadlock on CPUs of two cores.)
    """
    return _sweep(a)[0]


@log_det_positive.defjvp
def _log_det_positive_jvp(primals, tangents):
    log_det, inverse = _sweep(primals[0])
    return log_det, jnp.sum(jnp.swapaxes(inverse, -1, -2) * tangents[0], axis=(-2, -1))


def _sweep(a: Array) -> tuple[Array, Array]:
    """(log det A, A^-1) by Gauss-Jordan elimination in place: A <- A - (A_:k - e_k)(A_k: + e_k) / A_kk for each k."""
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)

    def step(carry, row):
        a, log_det = carry
        k, e = row
        line, column = jnp.take(a, k, axis=-2), jnp.take(a, k, axis=-1)
        pivot = jnp.take(line, k, axis=-1)
        a = a - (column - e)[..., :, None] * ((line + e) / pivot[..., None])[..., None, :]
        return (a, log_det + jnp.log(pivot)), None

    start = (a, jnp.zeros(a.shape[:-2], a.dtype))
    (inverse, log_det), _ = jax.lax.scan(step, start, (jnp.arange(len(eye)), eye))
    return log_det, inverse


@recorded
def residual(
    *,
    hidden: tuple[Count, ...],
    lip: Open = 0.9,
    log_det: Literal["exact", "series", "unbiased"] = "unbiased",
    terms: Count = 4,
    roulette: Open = 0.85,
) -> Layer:
    """See the module's docstring; vectors [D], D >= 1.

    Args:
        hidden: widths of g's hidden layers.
        lip: bound of its Lipschitz constant.
        log_det: of training with a key; without a key and in evaluation it is exact.
        terms: n of "series" and "unbiased".
        roulette: q of "unbiased", the probability of a further term after each one; above lip^2.
    """
    if log_det == "unbiased" and lip**2 >= roulette:
        raise UserError(f"roulette={roulette:g} is invalid with lip={lip:g}: the estimator's variance is finite above lip^2={lip**2:.3g}")
    max_steps = math.ceil(40 / -math.log(lip))  # lip^max_steps < 1e-17

    def block(layers, x):
        return x + lipschitz.apply(layers, x), jnp.zeros_like(x)

    def init(key, x, context=None):
        needs_vectors("residual", x)
        return lipschitz.init(key, x.shape[-1], hidden, context)

    def exact(layers, x):
        y, push = jax.linearize(lambda h: lipschitz.apply(layers, h), x)
        eye = jnp.eye(x.shape[-1], dtype=x.dtype)
        columns = jax.vmap(lambda e: push(jnp.broadcast_to(e, x.shape)), out_axes=-1)(eye)
        return x + y, log_det_positive(eye + columns)

    def estimate(layers, x, key):
        key_v, key_n = jax.random.split(key)
        v = jax.random.rademacher(key_v, x.shape, x.dtype)
        more = jnp.floor(jnp.log(1 - jax.random.uniform(key_n)) / math.log(roulette)) if log_det == "unbiased" else 0
        fixed = jax.lax.stop_gradient((layers, x))
        _, pull = jax.vjp(lambda h: lipschitz.apply(fixed[0], h), fixed[1])

        def term(carry):
            k, row, w, total = carry
            row = -pull(row)[0]
            weight = roulette ** -jnp.maximum(k - terms, 0).astype(x.dtype)
            return k + 1, row, w + weight * row, total - weight / k * jnp.sum(row * v, -1)

        start = (jnp.array(1), v, v, jnp.zeros(x.shape[:-1], x.dtype))
        _, _, w, value = jax.lax.while_loop(lambda carry: carry[0] <= terms + more, term, start)
        y, along = jax.jvp(lambda h: lipschitz.apply(layers, h), (x,), (v,))
        slope = jnp.sum(jax.lax.stop_gradient(w) * along, -1)
        return x + y, jax.lax.stop_gradient(value) + slope - jax.lax.stop_gradient(slope)

    def bijector(params, context=None, key=None, train=False, **_):
        def inverse(x, layers=None):
            layers = lipschitz.weights(params, lip, context, x.dtype) if layers is None else layers
            if train and key is not None and log_det != "exact":
                return estimate(layers, x, key)
            return exact(layers, x)

        def forward(z):
            layers = lipschitz.weights(params, lip, context, z.dtype)
            x, _ = solve(block, newton(block, 0.0, max_steps), 0.0, max_steps, layers, z)
            return x, -inverse(x, layers)[1]

        return Bijection(forward, inverse, 1)

    return Layer(init, bijector)
