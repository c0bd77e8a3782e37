"""What a network predicts: a row (u, v) of target = u x + v e, and the 2 x 2 solve that reads x and e from x_t and the network's output.

    x_t = alpha x + sigma e,   F = u x + v e:    det = alpha v - sigma u,   x = (v x_t - sigma F) / det,   e = (alpha F - u x_t) / det

    kind      u               v                  det          reads x and e where
    data      1               0                  -sigma       sigma > 0
    noise     0               1                  alpha        alpha > 0
    score     0               -1/sigma           -alpha/sigma alpha, sigma > 0
    velocity  alpha'          sigma'             -sigma^2 (alpha/sigma)'    everywhere that sigma' is finite
    v         -sigma          alpha              r^2 of s_d = 1             everywhere
    edm       sigma/(s_d r)   -alpha s_d/r       -r/s_d                     everywhere;  r^2 = alpha^2 s_d^2 + sigma^2

edm's row is the preconditioning D = c_skip x_t + c_out F, with c_skip = alpha s_d^2/r^2 and c_out = sigma s_d/r, solved for F. On a path
with gamma the network also predicts z: it is subtracted from x_t, and gamma' z from the velocity, before the solve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from vaeflow.build import Positive
from vaeflow.diffusion.path import Prediction, ProbabilityPath, derivative, diffusion2, velocity
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded


class PredictionKind(NamedTuple):
    """row: (path, t []) -> the coefficients (u, v) of x and e in the target. rate: whether the target is a time derivative, which
    contains gamma' z as well."""

    row: Callable[[ProbabilityPath, Array], tuple[Array, Array]]
    rate: bool = False
    spec: Any = None  # how it was made, see record.py


def target(kind: PredictionKind, path: ProbabilityPath, t: Array, x: Array, noise: Array, latent: Array | None = None) -> Array:
    """What the network regresses on: u x + v e (+ gamma' z of a velocity)  [*event], of x, noise, latent [*event] at the time t []."""
    if kind.rate:
        return velocity(path, t, Prediction(x, noise, latent))
    u, v = kind.row(path, t)
    return u * x + v * noise


def read(kind: PredictionKind, path: ProbabilityPath, t: Array, x: Array, out: Array, latent: Array | None = None) -> Prediction:
    """The predicted data and noise, [*event] each, of x = x_t and the network's output `out`, [*event] each.

    latent: the predicted z [*event], of a path with gamma.
    Raises: UserError if the path has gamma and latent is None.
    """
    if path.gamma is not None:
        if latent is None:
            raise UserError("a path with gamma requires the prediction of its latent z")
        x = x - path.gamma(t) * latent
        out = out - derivative(path.gamma, t) * latent if kind.rate else out
    (u, v), alpha, sigma = kind.row(path, t), path.alpha(t), path.sigma(t)
    det = alpha * v - sigma * u
    return Prediction((v * x - sigma * out) / det, (alpha * out - u * x) / det, latent if path.gamma is not None else None)


def _radius(path: ProbabilityPath, t: Array, sigma_data: float) -> Array:
    """r = sqrt(alpha^2 s_d^2 + sigma^2): the standard deviation of x_t if that of x is s_d."""
    return jnp.sqrt(path.alpha(t) ** 2 * sigma_data**2 + path.sigma(t) ** 2)


def input_scale(path: ProbabilityPath, t: Array, sigma_data: float = 0.5) -> Array:
    """c_in = 1 / r []: multiplies the network's input x_t, so that its variance is 1 at every t (Karras et al. 2022, table 1)."""
    return 1 / _radius(path, t, sigma_data)


def noise_level(path: ProbabilityPath, t: Array) -> Array:
    """c_noise = ln(sigma) / 4 []: what edm's time embedding reads (Karras et al. 2022, table 1). Finite at alpha = 0, unlike logsnr."""
    return jnp.log(path.sigma(t)) / 4


@recorded
def data() -> PredictionKind:
    """F = x."""
    return PredictionKind(lambda path, t: (jnp.ones_like(t), jnp.zeros_like(t)))


@recorded
def noise() -> PredictionKind:
    """F = e (Ho et al. 2020)."""
    return PredictionKind(lambda path, t: (jnp.zeros_like(t), jnp.ones_like(t)))


@recorded
def score() -> PredictionKind:
    """F = -e / sigma, whose conditional mean is the score of p_t (Vincent 2011)."""
    return PredictionKind(lambda path, t: (jnp.zeros_like(t), -1 / path.sigma(t)))


@recorded
def velocity_kind() -> PredictionKind:
    """F = dx_t/dt = alpha' x + sigma' e (Lipman et al. 2023)."""
    return PredictionKind(lambda path, t: (derivative(path.alpha, t), derivative(path.sigma, t)), rate=True)


@recorded
def v() -> PredictionKind:
    """F = alpha e - sigma x (Salimans and Ho 2022, appendix D)."""
    return PredictionKind(lambda path, t: (-path.sigma(t), path.alpha(t)))


@recorded
def edm(*, sigma_data: Positive = 0.5) -> PredictionKind:
    """F = (sigma x / s_d - alpha s_d e) / r, of variance 1 if the data have the standard deviation sigma_data (Karras et al. 2022)."""

    def row(path, t):
        r = _radius(path, t, sigma_data)
        return path.sigma(t) / (sigma_data * r), -path.alpha(t) * sigma_data / r

    return PredictionKind(row)


KINDS: dict[str, Callable[..., PredictionKind]] = {
    "data": data,
    "noise": noise,
    "score": score,
    "velocity": velocity_kind,
    "v": v,
    "edm": edm,
}


class Weighting(NamedTuple):
    """weigh: (kind, path, t []) -> the weight [] of |F - target|^2 at t."""

    weigh: Callable[[PredictionKind, ProbabilityPath, Array], Array]
    spec: Any = None  # how it was made, see record.py


def _det2(kind: PredictionKind, path: ProbabilityPath, t: Array) -> Array:
    u, v = kind.row(path, t)
    return (path.alpha(t) * v - path.sigma(t) * u) ** 2


@recorded
def own() -> Weighting:
    """1: the squared error of what the network predicts."""
    return Weighting(lambda kind, path, t: jnp.ones_like(t))


@recorded
def data_error() -> Weighting:
    """sigma^2 / det^2: the squared error of the predicted data."""
    return Weighting(lambda kind, path, t: path.sigma(t) ** 2 / _det2(kind, path, t))


@recorded
def noise_error() -> Weighting:
    """alpha^2 / det^2: the squared error of the predicted noise, L_simple of Ho et al. 2020."""
    return Weighting(lambda kind, path, t: path.alpha(t) ** 2 / _det2(kind, path, t))


@recorded
def velocity_error() -> Weighting:
    """(alpha sigma' - sigma alpha')^2 / det^2: the squared error of the predicted velocity, the loss of flow matching."""
    return Weighting(lambda kind, path, t: _det2(velocity_kind(), path, t) / _det2(kind, path, t))


@recorded
def edm_error(*, sigma_data: Positive = 0.5) -> Weighting:
    """(r / s_d)^2 / det^2: the squared error of edm's F, 1 / c_out^2 times that of the data (Karras et al. 2022, table 1)."""
    return Weighting(lambda kind, path, t: (_radius(path, t, sigma_data) / sigma_data) ** 2 / _det2(kind, path, t))


@recorded
def likelihood() -> Weighting:
    """g^2 alpha^2 / (2 sigma^2 det^2): 1/2 g^2 times the squared error of the score (Song et al. 2021b, arXiv 2101.09258), which is also
    -1/2 logsnr' times that of the noise, the integrand of the ELBO in nats (Kingma et al. 2021, arXiv 2107.00630)."""
    return Weighting(lambda kind, path, t: diffusion2(path, t) * (path.alpha(t) / path.sigma(t)) ** 2 / (2 * _det2(kind, path, t)))


@recorded
def min_snr(*, most: Positive = 5.0) -> Weighting:
    """min(alpha^2 / sigma^2, most) times the squared error of the data (Hang et al. 2023, arXiv 2303.09556; their gamma is `most`)."""
    return Weighting(lambda kind, path, t: jnp.minimum(path.alpha(t) ** 2, most * path.sigma(t) ** 2) / _det2(kind, path, t))


WEIGHTINGS: dict[str, Callable[..., Weighting]] = {
    "own": own,
    "data": data_error,
    "noise": noise_error,
    "velocity": velocity_error,
    "edm": edm_error,
    "likelihood": likelihood,
    "min_snr": min_snr,
}
