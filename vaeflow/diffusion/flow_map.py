"""Flow maps: X(x, t, r) is the solution at r <= t of the probability-flow ODE that is at x at t. Generating is one step, X(x, 1, 0).

A network predicts the mean velocity u(x, t, r), so that X = x - (t - r) u. Methods differ in the target of u at x_t = alpha x + sigma e:

    target   value, with slope = velocity at x_t, s = t - share (t - r)         reads                 method
    euler    share slope + (1 - share) u(x_s, s, r),  x_s by Euler's step       field                 distillation
    heun     the same by Heun's step                                            field                 consistency distillation
    pair     the same with x_s = alpha_s x + sigma_s e                          x, noise              consistency training
    jvp      slope - (t - r) du/dt along (slope, 1, 0)                          field or x, noise     MeanFlow
    halves   (u(x_t, t, m) + u(X(x_t, t, m), m, r)) / 2,  m = (t + r) / 2       itself; slope at r = t  shortcut models

Everything is for one example. No gradient passes through a target.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import NonNegative, Positive, Range
from vaeflow.diffusion.ode import Field
from vaeflow.diffusion.path import Prediction, ProbabilityPath, mix, velocity
from vaeflow.errors import UserError
from vaeflow.model import Array

FlowMap = Callable[[Array, Array, Array], Array]  # (x [*event], t [], r []) -> u [*event]
Share = Annotated[float, Range(0, 1, open_low=True)]


class Pair(NamedTuple):
    """One draw of the coupling at its times: x, noise [*event], r <= t []. field: the teacher's velocity; None: that of the pair."""

    x: Array
    noise: Array
    t: Array
    r: Array
    field: Field | None = None


class MapTarget(NamedTuple):
    """of: (u, path, pair) -> the target of u(x_t, t, r) [*event]."""

    of: Callable[[FlowMap, ProbabilityPath, Pair], Array]


def jump(u: FlowMap, x: Array, t: Array, r: Array) -> Array:
    """X(x, t, r) = x - (t - r) u(x, t, r)  [*event]."""
    return x - (t - r) * u(x, t, r)


def map_loss(target: MapTarget, u: FlowMap, path: ProbabilityPath, pair: Pair, *, power: NonNegative = 0.0, eps: Positive = 1e-3) -> Array:
    """|u(x_t, t, r) - target|^2 / stop_gradient(|...|^2 + eps)^power  [].

    power = 1 is MeanFlow's adaptive weight, robust on images; it minimises E log(|...|^2 + eps), which is biased where the target's noise
    does not average out within an example: 0 in few dimensions.
    """
    x = mix(path, pair.t, pair.x, pair.noise)
    square = jnp.sum((u(x, pair.t, pair.r) - jax.lax.stop_gradient(target.of(u, path, pair))) ** 2)
    return square / jax.lax.stop_gradient(square + eps) ** power


def _slope(path: ProbabilityPath, pair: Pair, x: Array, t: Array) -> Array:
    return velocity(path, t, Prediction(pair.x, pair.noise)) if pair.field is None else pair.field(t, x)


def _teacher(pair: Pair, name: str) -> Field:
    if pair.field is None:
        raise UserError(f"the target {name} requires a teacher's field; known without one: pair, jvp, halves")
    return pair.field


def _near(share: float, u: FlowMap, pair: Pair, x: Array, slope: Array) -> Array:
    """The mean velocity of a step along `slope` to s and the own map from there; no division by t - r."""
    s = pair.t - share * (pair.t - pair.r)
    return share * slope + (1 - share) * u(x - (pair.t - s) * slope, s, pair.r)


def euler(*, share: Share = 1.0) -> MapTarget:
    """One Euler step of the teacher over `share` of [r, t], then the own map (Song et al. 2023, consistency models, arXiv 2303.01469)."""

    def of(u, path, pair):
        x = mix(path, pair.t, pair.x, pair.noise)
        return _near(share, u, pair, x, _teacher(pair, "euler")(pair.t, x))

    return MapTarget(of)


def heun(*, share: Share = 1.0) -> MapTarget:
    """One Heun step of the teacher over `share` of [r, t], then the own map: consistency distillation (Song et al. 2023)."""

    def of(u, path, pair):
        field, x = _teacher(pair, "heun"), mix(path, pair.t, pair.x, pair.noise)
        s, first = pair.t - share * (pair.t - pair.r), field(pair.t, x)
        return _near(share, u, pair, x, (first + field(s, x - (pair.t - s) * first)) / 2)

    return MapTarget(of)


def pair_target(*, share: Share = 0.1) -> MapTarget:
    """x_s of the same x and noise, then the own map: consistency training, without a teacher. Its error is of first order in share."""

    def of(u, path, pair):
        length = share * (pair.t - pair.r)
        x, nearer = (mix(path, t, pair.x, pair.noise) for t in (pair.t, pair.t - length))
        slope = (x - nearer) / jnp.where(length > 0, length, 1)
        return _near(share, u, pair, x, jnp.where(length > 0, slope, velocity(path, pair.t, Prediction(pair.x, pair.noise))))

    return MapTarget(of)


def jvp() -> MapTarget:
    """slope - (t - r) du/dt: the derivative of (t - r) u = x_t - X along the ODE (Geng et al. 2025, MeanFlow, arXiv 2505.13447, eq. 10)."""

    def of(u, path, pair):
        x = mix(path, pair.t, pair.x, pair.noise)
        slope = _slope(path, pair, x, pair.t)
        _, rate = jax.jvp(u, (x, pair.t, pair.r), (slope, jnp.ones_like(pair.t), jnp.zeros_like(pair.r)))
        return slope - (pair.t - pair.r) * rate

    return MapTarget(of)


def halves() -> MapTarget:
    """The mean of two half steps of the own map; at r = t the velocity (Frans et al. 2025, shortcut models, arXiv 2410.12557)."""

    def of(u, path, pair):
        x, middle = mix(path, pair.t, pair.x, pair.noise), (pair.t + pair.r) / 2
        first = u(x, pair.t, middle)
        second = u(x - (pair.t - middle) * first, middle, pair.r)
        return jnp.where(pair.t > pair.r, (first + second) / 2, _slope(path, pair, x, pair.t))

    return MapTarget(of)


MAP_TARGETS: dict[str, Callable[..., MapTarget]] = {"euler": euler, "heun": heun, "pair": pair_target, "jvp": jvp, "halves": halves}
