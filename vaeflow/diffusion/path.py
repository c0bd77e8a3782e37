"""Probability paths x_t = alpha(t) x + sigma(t) e [+ gamma(t) z] between data and a source, and what follows from their coefficients.

Convention, everywhere in this room: t in [0, 1], t = 0 is data x, t = 1 is the source e, so sampling integrates t from 1 to 0 and a
density from 0 to 1; papers whose data are at t = 1 (flow matching, rectified flow, stochastic interpolants) are mirrored, t -> 1 - t.

e is N(0, I), or a draw of a second data set. Only then is the third term needed, with z ~ N(0, I): it makes x_t Gaussian given both ends.
Coefficients are functions of a scalar t []; their derivatives are jax.jvp's. A path whose sigma is 0 at t = 0 has logsnr = inf there, and
that of vp, nichol and of gamma has an infinite derivative as well: every solve ends at t0 > 0 and Tweedie's formula does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import Count, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.record import recorded

Coefficient = Callable[[Array], Array]


class ProbabilityPath(NamedTuple):
    """alpha, sigma, gamma: t [] -> []; gamma is None for a path without the third term.

    A path that is learned has parameters: `init` (key -> params) and `of` (params -> the path with their coefficients). Its own alpha and
    sigma are those of the initial parameters. Both are None for a fixed path; `at` serves both.
    """

    alpha: Coefficient
    sigma: Coefficient
    gamma: Coefficient | None = None
    init: Callable[[Array], Params] | None = None
    of: Callable[[Params], ProbabilityPath] | None = None
    spec: Any = None  # how it was made, see record.py


def at(path: ProbabilityPath, params: Params) -> ProbabilityPath:
    """The path at its parameters: the path itself if it is fixed."""
    return path if path.of is None else path.of(params)


class Prediction(NamedTuple):
    """E[x | x_t], E[e | x_t] and, of a path with gamma, E[z | x_t]; [*event] each. What every sampler reads."""

    data: Array
    noise: Array
    latent: Array | None = None


Predict = Callable[[Array, Array], Prediction]  # (x [*event], t []) -> Prediction


def reversed_gradient(params: Params) -> Params:
    """The same values, whose gradient has the other sign: what minimises a loss maximises it in these."""
    return jax.tree.map(lambda a: 2 * jax.lax.stop_gradient(a) - a, params)


def derivative(coefficient: Coefficient, t: Array) -> Array:
    """d coefficient / dt at t []."""
    return jax.jvp(coefficient, (t,), (jnp.ones_like(t),))[1]


def mix(path: ProbabilityPath, t: Array, x: Array, noise: Array, latent: Array | None = None) -> Array:
    """x_t = alpha x + sigma e + gamma z [*event] of x, noise and (if the path has gamma) latent, [*event] each."""
    return _combine(path.alpha(t), path.sigma(t), path.gamma and path.gamma(t), Prediction(x, noise, latent))


def velocity(path: ProbabilityPath, t: Array, p: Prediction) -> Array:
    """E[dx_t/dt | x_t] = alpha' E[x | x_t] + sigma' E[e | x_t] + gamma' E[z | x_t]  [*event]: the probability-flow ODE's right side."""
    return _combine(derivative(path.alpha, t), derivative(path.sigma, t), path.gamma and derivative(path.gamma, t), p)


def _combine(a: Array, s: Array, g: Array | None, p: Prediction) -> Array:
    value = a * p.data + s * p.noise
    if g is None:
        return value
    if p.latent is None:
        raise UserError("a path with gamma requires the third term: a latent z, or its prediction")
    return value + g * p.latent


def score(path: ProbabilityPath, t: Array, p: Prediction) -> Array:
    """grad log p_t(x_t) = -E[e | x_t] / sigma for e ~ N(0, I), or -E[z | x_t] / gamma  [*event]."""
    if path.gamma is None:
        return -p.noise / path.sigma(t)
    if p.latent is None:
        raise UserError("a path with gamma requires the prediction of its latent z")
    return -p.latent / path.gamma(t)


def logsnr(path: ProbabilityPath, t: Array) -> Array:
    """2 log(alpha / sigma) []; -inf where alpha = 0."""
    return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))


def drift(path: ProbabilityPath, t: Array) -> Array:
    """f = alpha' / alpha [] of the forward SDE dx = f x dt + g dW; infinite where alpha = 0."""
    return derivative(path.alpha, t) / path.alpha(t)


def diffusion2(path: ProbabilityPath, t: Array) -> Array:
    """g^2 = (sigma^2)' - 2 f sigma^2 [] of the forward SDE dx = f x dt + g dW whose marginals the path has; infinite where alpha = 0."""
    sigma = path.sigma(t)
    return 2 * sigma * derivative(path.sigma, t) - 2 * drift(path, t) * sigma**2


def _bridge(scale: float) -> Coefficient | None:
    return None if scale == 0 else lambda t: scale * jnp.sqrt(t * (1 - t))


@recorded
def ot(*, gamma: NonNegative = 0.0) -> ProbabilityPath:
    """alpha = 1 - t, sigma = t: the conditional optimal-transport path of flow matching, the linear one of rectified flow.

    Args:
        gamma: the scale of gamma(t) = scale sqrt(t (1 - t)), for a source that is a data set; 0: none.

    References: Lipman et al. 2023 (arXiv 2210.02747), sigma_min = 0; Liu et al. 2023 (2209.03003); Albergo et al. 2023 (2303.08797).
    """
    return ProbabilityPath(lambda t: 1 - t, lambda t: t, _bridge(gamma))


@recorded
def cosine(*, gamma: NonNegative = 0.0) -> ProbabilityPath:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance preserving; the trigonometric interpolant.

    alpha is computed as sin(pi (1 - t) / 2), which is exactly 0 at t = 1 in floating point. gamma as in `ot`.

    References: Salimans and Ho 2022 (arXiv 2202.00512); Albergo and Vanden-Eijnden 2023 (2209.15571).
    """
    return ProbabilityPath(lambda t: jnp.sin(jnp.pi / 2 * (1 - t)), lambda t: jnp.sin(jnp.pi / 2 * t), _bridge(gamma))


@recorded
def nichol(*, s: Positive = 0.008) -> ProbabilityPath:
    """alpha^2 = cos^2(c) / cos^2(a), sigma^2 = 1 - alpha^2, with c = pi/2 (t + s) / (1 + s) and a = c(0).

    The discrete cosine schedule as a function of continuous t, without its bound of beta at 0.999: alpha is exactly 0 at t = 1. sigma^2 is
    computed as sin(c + a) sin(c - a) / cos^2(a), without cancellation at t = 0.

    Reference: Nichol and Dhariwal 2021 (arXiv 2102.09672), eq. 17.
    """
    rate = math.pi / 2 / (1 + s)
    a = rate * s
    bound = math.cos(a)
    return ProbabilityPath(
        lambda t: jnp.sin(rate * (1 - t)) / bound,
        lambda t: jnp.sqrt(jnp.sin(2 * a + rate * t) * jnp.sin(rate * t)) / bound,
    )


def _log_alpha(t: Array, low: float, high: float) -> Array:
    """-1/2 int_0^t beta, for beta(t) = low + t (high - low)."""
    return -0.5 * (low * t + 0.5 * (high - low) * t**2)


@recorded
def vp(*, beta_min: NonNegative = 0.1, beta_max: Positive = 20.0) -> ProbabilityPath:
    """alpha = exp(-1/2 int beta), sigma^2 = 1 - alpha^2, for beta(t) = beta_min + t (beta_max - beta_min); g^2 = beta.

    Reference: Song et al. 2021 (arXiv 2011.13456), eq. 32-33.
    """
    return ProbabilityPath(
        lambda t: jnp.exp(_log_alpha(t, beta_min, beta_max)),
        lambda t: jnp.sqrt(-jnp.expm1(2 * _log_alpha(t, beta_min, beta_max))),
    )


@recorded
def subvp(*, beta_min: NonNegative = 0.1, beta_max: Positive = 20.0) -> ProbabilityPath:
    """alpha as in `vp`, sigma = 1 - alpha^2; g^2 = beta (1 - exp(-2 int beta)).

    Reference: Song et al. 2021 (arXiv 2011.13456), eq. 27-29.
    """
    return ProbabilityPath(
        lambda t: jnp.exp(_log_alpha(t, beta_min, beta_max)),
        lambda t: -jnp.expm1(2 * _log_alpha(t, beta_min, beta_max)),
    )


@recorded
def ve(*, sigma_min: Positive = 0.01, sigma_max: Positive = 50.0) -> ProbabilityPath:
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t; g^2 = 2 sigma^2 log(sigma_max / sigma_min). sigma(0) is sigma_min, not 0.

    Reference: Song et al. 2021 (arXiv 2011.13456), eq. 30-31.
    """
    return ProbabilityPath(jnp.ones_like, lambda t: sigma_min * (sigma_max / sigma_min) ** t)


@recorded
def edm(*, sigma_max: Positive = 80.0) -> ProbabilityPath:
    """alpha = 1, sigma = sigma_max t: the paper's time, which is sigma itself, divided by sigma_max; its sigma_min is a solve's last t.

    Reference: Karras et al. 2022 (arXiv 2206.00364), table 1.
    """
    return ProbabilityPath(jnp.ones_like, lambda t: sigma_max * t)


@recorded
def fourier(*, terms: Count = 8, start: Literal["cosine", "ot"] = "cosine") -> ProbabilityPath:
    """A learned path: alpha = alpha_0 + 1/M sum_m a_m sin(pi m t), sigma = sigma_0 + 1/M sum_m b_m sin(pi m t), m = 1 .. M.

    The ends alpha(0) = sigma(1) = 1, alpha(1) = sigma(0) = 0 hold at all parameters. Training is the game max over (a, b) of min over v of
    G(v) = E[|v|^2 - 2 dx_t/dt . v], whose inner minimum is -E int |v|^2 dt: the path of least kinetic energy (Benamou and Brenier 2000)
    among these of its coupling, and no lower than that of optimal transport. Params: alpha [M], sigma [M], initially 0.

    Args:
        terms: M.
        start: the path of the initial parameters, (alpha_0, sigma_0).

    Reference: Albergo and Vanden-Eijnden 2023 (arXiv 2209.15571), where the game and its relation to optimal transport are.
    Read in excerpts, so the factor 1/M and the sine series are to be checked against the paper.
    """
    base = cosine() if start == "cosine" else ot()

    def of(params: Params) -> ProbabilityPath:
        def series(own: Coefficient, weights: Array) -> Coefficient:
            m = jnp.arange(1, terms + 1)
            sign = jnp.where(m % 2 == 1, 1, -1)

            def coefficient(t):
                near, far = jnp.sin(jnp.pi * m * t[..., None]), sign * jnp.sin(jnp.pi * m * (1 - t[..., None]))
                waves = jnp.where(t[..., None] < 0.5, near, far)  # the same sine twice: exactly 0 at t = 1 too
                return own(t) + jnp.mean(weights * waves, -1).astype(t.dtype)

            return coefficient

        return ProbabilityPath(series(base.alpha, params["alpha"]), series(base.sigma, params["sigma"]))

    def init(key: Array) -> Params:
        del key
        return {"alpha": jnp.zeros(terms), "sigma": jnp.zeros(terms)}

    return base._replace(init=init, of=of)


PATHS: dict[str, Callable[..., ProbabilityPath]] = {
    "ot": ot,
    "cosine": cosine,
    "nichol": nichol,
    "vp": vp,
    "subvp": subvp,
    "ve": ve,
    "edm": edm,
    "fourier": fourier,
}
