"""Samplers: one step from t to s < t along a path; vaeflow/diffusion/walk.py takes all steps of a grid.

A sampler's maker has its options; `on(path, predict)` is its Step. Everything is for one example; jax.vmap over keys and x.
p is predict(x, t): data E[x | x_t], noise E[e | x_t]; h = s - t < 0; z ~ N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from vaeflow.build import Bare, Count, NonNegative, Positive
from vaeflow.diffusion.ode import SOLVERS, field, solve
from vaeflow.diffusion.path import Predict, ProbabilityPath, diffusion2, score, velocity
from vaeflow.diffusion.times import invert
from vaeflow.diffusion.walk import Sampler, Step
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded


def _plain(path: ProbabilityPath, predict: Predict, move: Callable[[Array, Array, Array, Array], Array], nfe: int = 1) -> Step:
    """A step without a state."""
    return Step(lambda key, x, t, s, state: (move(key, x, t, s), state), lambda x, t: predict(x, t).data, nfe)


def _without_gamma(path: ProbabilityPath, name: str) -> None:
    if path.gamma is not None:
        raise UserError(
            f"the sampler {name} requires a path without gamma, from Gaussian noise; known for others: euler, midpoint, heun, dopri5, sde"
        )


@recorded
def euler() -> Sampler:
    """x + h velocity: first order."""

    def on(path, predict):
        return _plain(path, predict, lambda key, x, t, s: x + (s - t) * velocity(path, t, predict(x, t)))

    return Sampler(on)


@recorded
def midpoint() -> Sampler:
    """x + h velocity(x + h/2 velocity(x, t), t + h/2): second order, two evaluations."""
    return _runge_kutta("midpoint", None)


@recorded
def dopri5(*, tol: NonNegative = 0.0) -> Sampler:
    """The method of Dormand and Prince (1980), fifth order, six evaluations. tol: 0: fixed steps, those of the grid; > 0: the relative and
    absolute tolerance of adaptive steps from the grid's first time to its last, per example, whose NFE is what they took."""
    return _runge_kutta("dopri5", tol or None)


def _runge_kutta(solver: str, tol: float | None) -> Sampler:
    """Steps of the probability-flow ODE by one of ode.SOLVERS."""

    def on(path, predict):
        flow = field(path, predict)
        step = _plain(path, predict, lambda key, x, t, s: solve(flow, x, t, s, solver=solver, steps=1)[0], len(SOLVERS[solver].nodes))
        return step if tol is None else step._replace(adaptive=lambda x, t, s: solve(flow, x, t, s, solver=solver, tol=tol))

    return Sampler(on)


@recorded
def heun(*, churn: NonNegative = 0.0, lowest: NonNegative = 0.0, highest: Positive | None = None, scale: Positive = 1.0) -> Sampler:
    """x_hat + h (velocity(x_hat, t_hat) + velocity(x', s)) / 2, with Euler's x' from t_hat: second order, two evaluations.

    With churn > 0 the step first adds noise: n = sigma/alpha rises to n_hat = (1 + churn) n, t_hat is its time (at most 1), and
    x_hat = alpha_hat (x / alpha + sqrt(n_hat^2 - n^2) scale z). That needs alpha > 0 at t.

    Args:
        churn: gamma of Karras et al. 2022 (arXiv 2206.00364, algorithm 2): min(S_churn / N, sqrt 2 - 1).
        lowest, highest: noise is added for sigma/alpha in this range (S_tmin, S_tmax); highest None: no limit.
        scale: S_noise.
    """

    def on(path, predict):
        def ratio(t):
            return path.sigma(t) / path.alpha(t)

        def noised(key, x, t):
            n = ratio(t)
            inside = (n >= lowest) & (n <= (math.inf if highest is None else highest))
            higher = jnp.where(inside, invert(ratio, n * (1 + churn), t, jnp.ones_like(t)), t)
            added = jnp.sqrt(jnp.maximum(ratio(higher) ** 2 - n**2, 0)) * scale * jax.random.normal(key, x.shape, x.dtype)
            return path.alpha(higher) * (x / path.alpha(t) + jnp.where(inside, added, 0)), higher

        def move(key, x, t, s):
            x, t = noised(key, x, t) if churn else (x, t)
            slope = velocity(path, t, predict(x, t))
            end = x + (s - t) * slope
            return x + (s - t) * (slope + velocity(path, s, predict(end, s))) / 2

        if churn:
            _without_gamma(path, "heun with churn")
        return _plain(path, predict, move, 2)

    return Sampler(on, churn > 0)


@recorded
def ancestral(*, eta: NonNegative = 1.0) -> Sampler:
    """x_s = alpha_s E[x | x_t] + sqrt(sigma_s^2 - var) E[e | x_t] + sqrt(var) z,  var = eta^2 sigma_s^2 (1 - rho^2),
    rho = (alpha_t / alpha_s) (sigma_s / sigma_t).

    eta = 1 is the posterior q(x_s | x_t, x) with the predicted data for x: DDPM's ancestral sampling with the smaller variance; eta = 0 is
    DDIM, first order (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16). eta <= 1, or sigma_s^2 - var may be negative.
    """
    if eta > 1:
        raise UserError(f"eta={eta!r} is invalid; it must be >= 0 and <= 1")

    def on(path, predict):
        _without_gamma(path, "ancestral")

        def move(key, x, t, s):
            p = predict(x, t)
            kept, variance = _ancestral(path, t, s, eta)
            drawn = jnp.sqrt(variance) * jax.random.normal(key, x.shape, x.dtype) if eta else 0
            return path.alpha(s) * p.data + kept * p.noise + drawn

        return _plain(path, predict, move)

    return Sampler(on, eta > 0)


def _ancestral(path: ProbabilityPath, t: Array, s: Array, eta: float) -> tuple[Array, Array]:
    """(the coefficient of the predicted noise, the variance of the new noise)."""
    sigma = path.sigma(s)
    rho = path.alpha(t) * sigma / (path.alpha(s) * path.sigma(t))
    share = eta**2 * jnp.maximum(1 - rho**2, 0)
    return sigma * jnp.sqrt(1 - share), sigma**2 * share


@recorded
def ddim() -> Sampler:
    """x_s = alpha_s E[x | x_t] + sigma_s E[e | x_t]: `ancestral` with eta = 0."""
    return ancestral(eta=0.0)


@recorded
def sde(*, diffusion: Literal["forward", "sigma"] = "forward", scale: NonNegative = 1.0) -> Sampler:
    """Euler-Maruyama of the reverse SDE: x + h (velocity - w/2 score) + sqrt(w |h|) z, for any w(t) >= 0 the same marginals.

    Args:
        diffusion: w = scale g^2 (Anderson's reverse of the forward SDE; infinite where alpha = 0, so the grid must start below t = 1 on
            ot, cosine and nichol) or scale sigma (Ma et al. 2024, SiT, arXiv 2401.08740).
        scale: 0 is Euler's step of the ODE.
    """

    def on(path, predict):
        def move(key, x, t, s):
            p = predict(x, t)
            w = scale * (diffusion2(path, t) if diffusion == "forward" else path.sigma(t))
            drawn = jnp.sqrt(w * (t - s)) * jax.random.normal(key, x.shape, x.dtype)
            return x + (s - t) * (velocity(path, t, p) - w / 2 * score(path, t, p)) + drawn

        if diffusion == "forward":
            _without_gamma(path, "sde with diffusion=forward")
        return _plain(path, predict, move)

    return Sampler(on, scale > 0)


@recorded
def reverse_diffusion() -> Sampler:
    """(2 - a) x + b^2 score + b z: the increments of the forward transition x_t = a x_s + b z, reversed,
    a = alpha_t / alpha_s, b^2 = sigma_t^2 - a^2 sigma_s^2 (Song et al. 2021, arXiv 2011.13456, eq. 46)."""

    def on(path, predict):
        _without_gamma(path, "reverse_diffusion")

        def move(key, x, t, s):
            a = path.alpha(t) / path.alpha(s)
            b2 = jnp.maximum(path.sigma(t) ** 2 - a**2 * path.sigma(s) ** 2, 0)
            return (2 - a) * x + b2 * score(path, t, predict(x, t)) + jnp.sqrt(b2) * jax.random.normal(key, x.shape, x.dtype)

        return _plain(path, predict, move)

    return Sampler(on, True)


@recorded
def dpm_2m() -> Sampler:
    """DPM-Solver++ (2M): x_s = sigma_s / sigma_t x + alpha_s (1 - rho) D,  D = (1 + 1/(2r)) data_t - 1/(2r) data_before, r = h_before / h.

    h = logsnr-steps lambda_s - lambda_t, lambda = log(alpha / sigma); exp(-h) = rho as in `ancestral`. The first step, one after a step
    of length 0 and one from alpha = 0 are first order. One evaluation, second order (Lu et al. 2022, arXiv 2211.01095, algorithm 2).
    """

    def on(path, predict):
        _without_gamma(path, "dpm_2m")

        def move(key, x, t, s, state):
            before, length = state
            data = predict(x, t).data
            log_t, log_s = (jnp.log(path.alpha(r)) - jnp.log(path.sigma(r)) for r in (t, s))
            h = log_s - log_t
            known = (length > 0) & jnp.isfinite(length)
            half = jnp.where(known, h / jnp.where(known, length, 1) / 2, 0)
            rho = path.alpha(t) * path.sigma(s) / (path.alpha(s) * path.sigma(t))
            x = path.sigma(s) / path.sigma(t) * x + path.alpha(s) * (1 - rho) * (data + half * (data - before))
            return x, (data, h)

        return Step(move, lambda x, t: predict(x, t).data, 1, lambda x: (jnp.zeros_like(x), jnp.zeros((), x.dtype)))

    return Sampler(on)


def langevin(path: ProbabilityPath, predict: Predict, key: Array, x: Array, t: Array, snr: float, size: str = "sigma") -> Array:
    """x + step score + sqrt(2 step) z at the time t: leaves p_t unchanged up to terms of the step's order.

    size "sigma": step = 2 (snr sigma)^2 (Song and Ermon 2019, arXiv 1907.05600). It does not depend on x.
    size "score": step = 2 (snr |z| / |score|)^2 per example. Song et al. 2021 (arXiv 2011.13456, algorithms 4-5) average both norms over
        the batch and, on vp, multiply by 1 - beta_i. Equal to "sigma" where |score| = |z| / sigma, as in many dimensions; wrong in
        few, where |score| is near 0 for some x and the step unbounded.
    """
    value = score(path, t, predict(x, t))
    z = jax.random.normal(key, x.shape, x.dtype)
    if size == "score":
        step = 2 * snr**2 * jnp.sum(z**2) / jnp.sum(value**2)
    else:
        step = 2 * (snr * path.sigma(t)) ** 2
    return x + step * value + jnp.sqrt(2 * step) * z


@recorded
def predictor_corrector(
    *,
    predictor: Annotated[Sampler | None, Bare("reverse_diffusion")] = None,
    corrections: Count = 1,
    snr: Positive = 0.16,
    size: Literal["sigma", "score"] = "sigma",
) -> Sampler:
    """A step of the predictor from t to s, then `corrections` steps of Langevin dynamics at s, see `langevin` for snr and size
    (Song et al. 2021, arXiv 2011.13456, appendix G)."""

    def on(path, predict):
        inner = (predictor or reverse_diffusion()).on(path, predict)

        def move(key, x, t, s, state):
            first, *others = jax.random.split(key, corrections + 1)
            x, state = inner.move(first, x, t, s, state)
            for other in others:
                x = langevin(path, predict, other, x, s, snr, size)
            return x, state

        return inner._replace(move=move, nfe=inner.nfe + corrections)

    return Sampler(on, True)


STEPS: dict[str, Callable[..., Sampler]] = {
    "euler": euler,
    "midpoint": midpoint,
    "heun": heun,
    "dopri5": dopri5,
    "ddim": ddim,
    "ancestral": ancestral,
    "sde": sde,
    "reverse_diffusion": reverse_diffusion,
    "dpm_2m": dpm_2m,
    "predictor_corrector": predictor_corrector,
}
