"""Boundary-preserving forms of a flow map: X(x, t, r) = a x + b F with a = 1 and b = 0 at r = t, F the network's output.

    linear         X = x - (t - r) F                                                    u = F
    edm            X = alpha_r (c_skip x + c_out F)                                     consistency models
    trigonometric  X = cos(theta) x - sin(theta) F,  theta = pi/2 (t - r)               TrigFlow, sCM; on the path `cosine`

A form gives u = (x - X) / (t - r) = p x + q F, whose coefficients are finite at r = t: u is the velocity there. Per example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from vaeflow.diffusion.path import Coefficient, ProbabilityPath, derivative
from vaeflow.model import Array
from vaeflow.record import recorded


class MapForm(NamedTuple):
    """of: (path, t [], r [], s_d) -> the coefficients (p, q) of u = p x + q F; s_d is the standard deviation of the data."""

    of: Callable[[ProbabilityPath, Array, Array, float], tuple[Array, Array]]
    spec: Any = None  # how it was made, see record.py


@recorded
def linear() -> MapForm:
    """u = F: MeanFlow, shortcut models."""
    return MapForm(lambda path, t, r, std: (jnp.zeros_like(t), jnp.ones_like(t)))


@recorded
def edm() -> MapForm:
    """c_skip = alpha_t s_d^2 / (d^2 + alpha_t^2 s_d^2),  c_out = d s_d / sqrt(sigma_t^2 + alpha_t^2 s_d^2),
    d = sigma_t - alpha_t sigma_r / alpha_r.

    With alpha = 1 these are Song et al. 2023 (arXiv 2303.01469), appendix C, whose epsilon is sigma_r; in general they are those of
    x / alpha and sigma / alpha. alpha_r must be > 0.
    """

    def of(path, t, r, std):
        alpha, start, sigma = path.alpha(t), path.alpha(r), path.sigma(t)
        rise = _quotient(path.alpha, t, r)
        slope = _quotient(path.sigma, t, r) - path.sigma(r) / start * rise  # d / (t - r)
        d = slope * (t - r)
        p = (slope * d + std**2 * alpha * rise) / (d**2 + (std * alpha) ** 2)
        return p, -start * slope * std / jnp.sqrt(sigma**2 + (std * alpha) ** 2)

    return MapForm(of)


def _quotient(coefficient: Coefficient, t: Array, r: Array) -> Array:
    """(c(t) - c(r)) / (t - r), and its limit c'(t) at r = t."""
    gap = t - r
    return jnp.where(gap > 0, (coefficient(t) - coefficient(r)) / jnp.where(gap > 0, gap, 1), derivative(coefficient, t))


@recorded
def trigonometric() -> MapForm:
    """(1 - cos theta) / (t - r) and sin theta / (t - r), for data of unit variance: every step between r and t is a rotation of (x, F).

    Reference: Lu and Song 2025 (arXiv 2410.11081), where the time is pi t / 2.
    """

    def of(path, t, r, std):
        del path, std
        half = (t - r) / 2
        rate = jnp.pi / 2 * jnp.sinc(half / 2)  # 2 sin(theta / 2) / (t - r); jnp.sinc(x) = sin(pi x) / (pi x)
        return rate * jnp.sin(jnp.pi / 2 * half), rate * jnp.cos(jnp.pi / 2 * half)

    return MapForm(of)


MAP_FORMS: dict[str, Callable[..., MapForm]] = {"linear": linear, "edm": edm, "trigonometric": trigonometric}
