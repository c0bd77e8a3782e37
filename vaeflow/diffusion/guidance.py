"""Guidance: a prediction changed at every t, (predict, ...) -> predict. Samplers do not know of it; a guided field has no density.

All keep x_t = alpha x + sigma e of the predicted data and noise. Paths are those without gamma.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.diffusion.edits import Measurement
from vaeflow.diffusion.ode import EXACT_TRACE
from vaeflow.diffusion.path import Predict, Prediction, ProbabilityPath
from vaeflow.errors import UserError
from vaeflow.model import Array

EditMethod = Literal["replacement", "covariance"]

# Of the covariance method with a learned network, see `inpainted_by_covariance`.
_SMALLEST, _LEAST = 0.05, 0.1


def _with_data(path: ProbabilityPath, x: Array, t: Array, data: Array) -> Prediction:
    """The prediction with these data, and the noise that x_t then has."""
    return Prediction(data, (x - path.alpha(t) * data) / path.sigma(t))


def _no_gamma(path: ProbabilityPath) -> None:
    if path.gamma is not None:
        raise UserError("guidance requires a path without gamma, from Gaussian noise")


def guided(predict: Predict, reference: Predict, scale: Array | float, low: float = 0.0, high: float = 1.0) -> Predict:
    """reference + scale (predict - reference), for t in [low, high]; elsewhere predict. Scale 1 is none, 0 the reference.

    Classifier-free guidance: predict is conditional, reference unconditional; Ho and Salimans 2022 (arXiv 2207.12598) write w = scale - 1.
    Autoguidance: reference is a smaller or less trained model of the same condition (Karras et al. 2024, arXiv 2406.02507). An interval
    [low, high] of times: Kynkaanniemi et al. 2024 (arXiv 2404.07724).
    """

    def change(x, t):
        p, r = predict(x, t), reference(x, t)
        here = jnp.where((t >= low) & (t <= high), scale, 1.0).astype(x.dtype)
        return jax.tree.map(lambda a, b: a + (here - 1) * (a - b), p, r)

    return change


def classifier_guided(predict: Predict, path: ProbabilityPath, log_prob: Callable[[Array, Array], Array], scale: Array | float) -> Predict:
    """score + scale grad_x log p(c | x_t): with the exact classifier of noised data, scale 1 is the conditional model, 0 is none.

    log_prob: (x [*event], t []) -> log p(c | x_t = x) [] nats, of a classifier that was trained on x_t.
    Reference: Dhariwal and Nichol 2021 (arXiv 2105.05233), eq. 14.
    """
    _no_gamma(path)

    def change(x, t):
        p, slope = predict(x, t), jax.grad(log_prob)(x, t)
        sigma = path.sigma(t)
        return Prediction(p.data + scale * sigma**2 / path.alpha(t) * slope, p.noise - scale * sigma * slope)

    return change


def edited(predict: Predict, path: ProbabilityPath, known: Measurement, x: Array, method: EditMethod, *, sigma_data: float) -> Predict:
    """The prediction given the known coordinates of x [*event], by `inpainted` (replacement) or `inpainted_by_covariance`, in the
    measurement's basis; noise is the same in every orthonormal one."""

    def turned(z, t):
        return jax.tree.map(known.into, predict(known.back(z), t))

    mask, value = jnp.asarray(known.mask), known.into(x)
    if method == "replacement":
        inner = inpainted(turned, path, mask, value)
    else:
        inner = inpainted_by_covariance(turned, path, mask, value, sigma_data=sigma_data, least=_LEAST)
    return lambda x, t: jax.tree.map(known.back, inner(known.into(x), t))


def inpainted(predict: Predict, path: ProbabilityPath, mask: Array, value: Array) -> Predict:
    """Replacement: the predicted data are `value` where `mask`, so ancestral steps move the known entries along q(x_s | x_t, value) and
    Tweedie's last step returns them exactly. Correct for entries that are independent given x_t; otherwise the rest is conditioned on the
    noised known entries only, an approximation. `inpainted_by_covariance` is exact for Gaussian data.

    Args:
        mask, value: [*event]; mask True where value is known.

    References: Song et al. 2021 (arXiv 2011.13456), appendix I.2; Lugmayr et al. 2022 (arXiv 2201.09865).
    """
    _no_gamma(path)

    def change(x, t):
        return _with_data(path, x, t, jnp.where(mask, value, predict(x, t).data))

    return change


def inpainted_by_covariance(
    predict: Predict, path: ProbabilityPath, mask: Array, value: Array, *, sigma_data: float = 0.5, least: float = 0.0
) -> Predict:
    """E[x | x_t, x_K = y] of the Gaussian with mean D = E[x | x_t] and covariance C = sigma^2 / alpha dD/dx_t (Tweedie's second moment):

        D + C_{.K} C_KK^-1 (y - D_K),    K = the entries where mask is True, y = value

    Exact if the data are Gaussian, with no variance below 0.05 s_d^2. C_KK is exact up to 64 dimensions, by as many products with the
    network's Jacobian, of which the symmetric part is taken and eigenvalues that are smaller than those of data with 0.05 s_d^2 are raised:
    a learned network's may be negative. Above 64, C_KK is that of data N(0, s_d^2 I), sigma^2 s_d^2 / (alpha^2 s_d^2 + sigma^2) I, at one
    product.

    Args:
        mask, value: as for `inpainted`.
        sigma_data: s_d.
        least: of the ratio alpha s_d / sigma. Where it is smaller, the prediction is that of `inpainted`: dD/dx_t is then of the order of
            alpha, and less than a learned network's error. alpha must be > 0 elsewhere.

    References: Boys et al. 2023 (arXiv 2310.06721); Song et al. 2023, pseudoinverse guidance (OpenReview 9_gsMA8MRKQ).
    """
    _no_gamma(path)

    def change(x, t):
        # By reverse mode: the networks' convolutions have no other. C is symmetric.
        data, pull = jax.vjp(lambda x: predict(x, t).data, x)
        alpha, sigma = path.alpha(t), path.sigma(t)
        clear = alpha * sigma_data >= least * sigma

        def own(variance):
            """dD/dx_t of data N(0, variance I)."""
            return alpha * variance / (alpha**2 * variance + sigma**2)

        if x.size > EXACT_TRACE:
            (moved,) = pull(jnp.where(mask, value - data, 0))
            return _with_data(path, x, t, jnp.where(mask, value, data + jnp.where(clear, moved / own(sigma_data**2), 0)))
        known, y, flat = mask.reshape(-1), value.reshape(-1), data.reshape(-1)
        (rows,) = jax.vmap(pull)(jnp.eye(x.size, dtype=x.dtype).reshape(x.size, *x.shape))
        slope = rows.reshape(x.size, x.size)
        slope = (slope + slope.T) / 2
        inner = jnp.where(known[:, None] & known, slope, jnp.eye(x.size, dtype=x.dtype))  # the factor sigma^2 / alpha cancels
        values, vectors = jnp.linalg.eigh(inner)
        away = vectors.T @ jnp.where(known, y - flat, 0) / jnp.maximum(values, own(_SMALLEST * sigma_data**2))
        moved = jnp.where(clear, slope @ jnp.where(known, vectors @ away, 0), 0)
        return _with_data(path, x, t, jnp.where(known, y, flat + moved).reshape(x.shape))

    return change
