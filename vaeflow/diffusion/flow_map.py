"""Flow maps: X(x, t, r) is the solution at r <= t of the probability-flow ODE that is at x at t. Generating is one step, X(x, 1, 0).

A map is given by its mean velocity u(x, t, r), so that X = x - (t - r) u. Methods differ in the target of u at x_t = alpha x + sigma e:

    target     value, with slope = velocity at x_t, s in [r, t)                  reads                 method
    euler      the mean of Euler's step to s and of the own map from there       field                 distillation
    heun       the same by Heun's step                                           field                 consistency distillation
    pair       the same with x_s = alpha_s x + sigma_s e                         x, noise              consistency training
    distilled  (x_t - the field's solution at r) / (t - r)                       field                 distillation to k steps
    jvp        slope - (t - r) du/dt along (slope, 1, 0)                         field or x, noise     MeanFlow, continuous consistency
    halves     (u(x_t, t, m) + u(X(x_t, t, m), m, r)) / 2,  m = (t + r) / 2      itself; slope at r = t  shortcut models

A loss is a function of the error u - target; that of X is (t - r) times it. Everything is for one example. No gradient passes through a
target. Nothing is masked or summed without its NaN: a map that is not finite has a loss that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import Count, NonNegative, Positive
from vaeflow.diffusion.ode import Field, SolverName, solve
from vaeflow.diffusion.path import Prediction, ProbabilityPath, mix, velocity
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded

FlowMap = Callable[[Array, Array, Array], Array]  # (x [*event], t [], r []) -> u [*event]


class Pair(NamedTuple):
    """One draw of the coupling at its times: x, noise [*event], r <= s <= t []. field: the teacher's velocity; None: that of the pair."""

    x: Array
    noise: Array
    t: Array
    s: Array
    r: Array
    field: Field | None = None


class MapTarget(NamedTuple):
    """of: (u, path, pair) -> the target of u(x_t, t, r) [*event]. reads: whether it takes the field of a teacher, the velocity of the data
    (x and noise), or either. forward: whether it differentiates u in forward mode. velocity: whether it reads u at shorter steps than those
    of its own interval, down to u(x, t, t): these must be trained as well, or any constant u is a solution."""

    of: Callable[[FlowMap, ProbabilityPath, Pair], Array]
    reads: Literal["field", "data", "either"]
    forward: bool = False
    velocity: bool = False
    spec: Any = None  # how it was made, see record.py


class MapLoss(NamedTuple):
    """of: (path, pair, error of u [*event]) -> the loss []. apart: whether it is defined for s < t only."""

    of: Callable[[ProbabilityPath, Pair, Array], Array]
    apart: bool = False
    spec: Any = None  # how it was made, see record.py


def jump(u: FlowMap, x: Array, t: Array, r: Array) -> Array:
    """X(x, t, r) = x - (t - r) u(x, t, r)  [*event]."""
    return x - (t - r) * u(x, t, r)


def map_loss(loss: MapLoss, path: ProbabilityPath, pair: Pair, out: Array, target: Array) -> Array:
    """loss(u - target) [] of out = u(x_t, t, r) and its target, [*event] each; the target is a constant."""
    return loss.of(path, pair, out - jax.lax.stop_gradient(target))


def compose(u: FlowMap, x: Array, grid: Array) -> Array:
    """X from grid[0] to grid[1], from there to grid[2], ... [*event]: one evaluation a step, no noise. For maps to any r.

    Args:
        x: [*event] at grid[0].
        grid: decreasing times [N + 1], see times.grid.
    """
    return jax.lax.scan(lambda x, times: (jump(u, x, *times), None), x, (grid[:-1], grid[1:]))[0]


def multistep(
    u: FlowMap, path: ProbabilityPath, key: Array, x: Array, grid: Array, change: Callable[[Array], Array] = lambda data: data
) -> Array:
    """Multistep consistency sampling: X to the data, noise again, X to the data ... [*event]. For maps to the data alone, and for editing.

        data = change(X(x, t, end)),    x at the next t = a data + sqrt(sigma_t^2 - a^2 sigma_end^2) z,    a = alpha_t / alpha_end

    Args:
        key: of the noise z of all steps.
        x: [*event] at grid[0].
        grid: decreasing times [N + 1]; X ends at the last one each time, and is evaluated at the N others.
        change: of the data after every evaluation, the last one too, in the coordinates of x: of editing, what is known of them.

    References: Song et al. 2023 (arXiv 2303.01469), algorithms 1 and 4.
    """
    end = grid[-1]

    def body(x, inputs):
        key, t, after = inputs
        data = change(jump(u, x, t, end))
        return _noised(path, key, data, after, end), data

    _, every = jax.lax.scan(body, x, (jax.random.split(key, len(grid) - 1), grid[:-1], grid[1:]))
    return every[-1]


def _noised(path: ProbabilityPath, key: Array, data: Array, t: Array, end: Array) -> Array:
    """A draw of x_t given the data at `end` [*event]."""
    a = path.alpha(t) / path.alpha(end)
    variance = jnp.maximum(path.sigma(t) ** 2 - a**2 * path.sigma(end) ** 2, 0)
    return a * data + jnp.sqrt(variance) * jax.random.normal(key, data.shape, data.dtype)


def _slope(path: ProbabilityPath, pair: Pair, x: Array, t: Array) -> Array:
    return velocity(path, t, Prediction(pair.x, pair.noise)) if pair.field is None else pair.field(t, x)


def _teacher(pair: Pair, name: str) -> Field:
    if pair.field is None:
        raise UserError(f"the target {name} requires a teacher's field; known without one: pair, jvp, halves")
    return pair.field


def _near(u: FlowMap, pair: Pair, x: Array, slope: Array) -> Array:
    """The mean velocity of a step along `slope` to s and the own map from there; no division by t - r where it is 0."""
    gap = pair.t - pair.r
    share = jnp.where(gap > 0, (pair.t - pair.s) / jnp.where(gap > 0, gap, 1), 1)
    return share * slope + (1 - share) * u(x - (pair.t - pair.s) * slope, pair.s, pair.r)


@recorded
def euler() -> MapTarget:
    """One Euler step of the teacher to s, then the own map (Song et al. 2023, consistency models, arXiv 2303.01469)."""

    def of(u, path, pair):
        x = mix(path, pair.t, pair.x, pair.noise)
        return _near(u, pair, x, _teacher(pair, "euler")(pair.t, x))

    return MapTarget(of, "field")


@recorded
def heun() -> MapTarget:
    """One Heun step of the teacher to s, then the own map: consistency distillation (Song et al. 2023)."""

    def of(u, path, pair):
        field, x = _teacher(pair, "heun"), mix(path, pair.t, pair.x, pair.noise)
        first = field(pair.t, x)
        return _near(u, pair, x, (first + field(pair.s, x - (pair.t - pair.s) * first)) / 2)

    return MapTarget(of, "field")


@recorded
def pair_target() -> MapTarget:
    """x_s of the same x and noise, then the own map: consistency training, without a teacher. Its error is of first order in t - s."""

    def of(u, path, pair):
        length = pair.t - pair.s
        x, nearer = (mix(path, t, pair.x, pair.noise) for t in (pair.t, pair.s))
        slope = (x - nearer) / jnp.where(length > 0, length, 1)
        return _near(u, pair, x, jnp.where(length > 0, slope, velocity(path, pair.t, Prediction(pair.x, pair.noise))))

    return MapTarget(of, "data")


@recorded
def distilled(*, solver: SolverName = "heun", steps: Count = 4) -> MapTarget:
    """The mean velocity of the teacher's solution from t to r, by `steps` steps of the solver: with the intervals of k equal steps, what
    progressive distillation ends at (Salimans and Ho 2022, arXiv 2202.00512), in one stage; at r = t the velocity."""

    def of(u, path, pair):
        del u
        field, x, gap = _teacher(pair, "distilled"), mix(path, pair.t, pair.x, pair.noise), pair.t - pair.r
        end, _ = solve(field, x, pair.t, pair.r, solver=solver, steps=steps)
        return jnp.where(gap > 0, (x - end) / jnp.where(gap > 0, gap, 1), field(pair.t, x))

    return MapTarget(of, "field")


@recorded
def jvp() -> MapTarget:
    """slope - (t - r) du/dt: the derivative of (t - r) u = x_t - X along the ODE (Geng et al. 2025, MeanFlow, arXiv 2505.13447, eq. 10).

    With r = 0 it is consistency in continuous time: u - target = -dX/dt along the ODE, which is 0 for the exact map; without a teacher
    sCT, with one sCD (Lu and Song 2025, arXiv 2410.11081).
    """

    def of(u, path, pair):
        x = mix(path, pair.t, pair.x, pair.noise)
        slope = _slope(path, pair, x, pair.t)
        _, rate = jax.jvp(u, (x, pair.t, pair.r), (slope, jnp.ones_like(pair.t), jnp.zeros_like(pair.r)))
        return slope - (pair.t - pair.r) * rate

    return MapTarget(of, "either", forward=True)


@recorded
def halves(*, smallest: NonNegative = 2**-7) -> MapTarget:
    """The mean of two half steps of the own map; at r = t the velocity (Frans et al. 2025, shortcut models, arXiv 2410.12557).

    smallest: half steps of at most this length are Euler's, of the velocity u(x, t, t): 1/128, the paper's shortest step.
    """

    def of(u, path, pair):
        x, middle = mix(path, pair.t, pair.x, pair.noise), (pair.t + pair.r) / 2
        short = pair.t - middle <= 1.001 * smallest  # lengths are rounded
        first = u(x, pair.t, jnp.where(short, pair.t, middle))
        second = u(x - (pair.t - middle) * first, middle, jnp.where(short, middle, pair.r))
        return jnp.where(pair.t > pair.r, (first + second) / 2, _slope(path, pair, x, pair.t))

    return MapTarget(of, "either", velocity=True)


@recorded
def square(*, power: NonNegative = 0.0, eps: Positive = 1e-3) -> MapLoss:
    """|d|^2 / stop_gradient(|d|^2 + eps)^power of the error d of u.

    power = 1 is MeanFlow's adaptive weight, robust on images; it minimises E log(|d|^2 + eps), which is biased where the target's noise
    does not average out within an example: 0 in few dimensions. 1/2 normalises the gradient's length, as sCM does with its tangents.
    """

    def of(path, pair, error):
        total = jnp.sum(error**2)
        return total / jax.lax.stop_gradient(total + eps) ** power if power else total

    return MapLoss(of)


@recorded
def data_square() -> MapLoss:
    """|d|^2 of the error d of X, the consistency loss with the weight 1 and the squared l2 metric (Song et al. 2023)."""
    return MapLoss(lambda path, pair, error: jnp.sum(((pair.t - pair.r) * error) ** 2))


@recorded
def pseudo_huber(*, scale: Positive = 0.00054) -> MapLoss:
    """(sqrt(|d|^2 + c^2) - c) / (sigma_t - sigma_s) of the error d of X, c = scale sqrt D.

    Reference: Song and Dhariwal 2024 (arXiv 2310.14189), whose weight is 1 / (sigma_t - sigma_s); read in programs that reproduce it.
    """

    def of(path, pair, error):
        c = scale * error.size**0.5
        distance = jnp.sqrt(jnp.sum(((pair.t - pair.r) * error) ** 2) + c**2) - c
        return distance / (path.sigma(pair.t) - path.sigma(pair.s))

    return MapLoss(of, apart=True)


MAP_TARGETS: dict[str, Callable[..., MapTarget]] = {
    "euler": euler,
    "heun": heun,
    "pair": pair_target,
    "distilled": distilled,
    "jvp": jvp,
    "halves": halves,
}
MAP_LOSSES: dict[str, Callable[..., MapLoss]] = {"square": square, "data_square": data_square, "pseudo_huber": pseudo_huber}
