"""Intervals: the times r <= s <= t at which a flow map is trained. The map goes from t to r; s is where its target's first step ends.

    ordered    t > r two draws, s = t - share (t - r); a share of the examples has r = t              MeanFlow
    binary     t - r = (high - low) / 2^i, t a multiple of it; the same share                         shortcut models
    to_data    r = low, s = t - share (t - r)                                                         continuous consistency
    points     r = low; s and t neighbours on a grid of N points, N a schedule                        consistency models
    equal      t and r neighbours on a grid of `steps` steps                                          distillation to k steps

t of ordered, to_data and points, and the step of equal, are stratified over a batch, see diffusion/times.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from vaeflow.build import Bare, Count, Decay, NonNegative, Range, part_kind
from vaeflow.diffusion import ProbabilityPath, TimeCoordinate
from vaeflow.diffusion.times import located, position, strata, stratified, uniform
from vaeflow.model import Array
from vaeflow.objectives import Schedule, scheduled
from vaeflow.record import recorded

Share = Annotated[float, Range(0, 1, open_low=True)]


class DrawTimes(Protocol):
    """(t, s, r) [n] each, in [low, high], for a training step (which may be traced)."""

    def __call__(
        self, key: Array, times: TimeCoordinate, path: ProbabilityPath, n: int, low: float, high: float, step: Any, /
    ) -> tuple[Array, Array, Array]: ...


class Intervals(NamedTuple):
    """draw: see DrawTimes. to_data: whether r is always `low`. velocity: whether some examples have r = t, where u is the velocity.
    steps: the one number of steps that a map which is trained on these takes; 0: any."""

    draw: DrawTimes
    to_data: bool = False
    velocity: bool = False
    steps: int = 0
    spec: Any = None  # how it was made, see record.py


def _equal(key: Array, share: float, t: Array, s: Array, r: Array) -> tuple[Array, Array, Array]:
    """The times with s = r = t in a share of the examples."""
    here = jax.random.bernoulli(key, share, t.shape)
    return t, jnp.where(here, t, s), jnp.where(here, t, r)


@recorded
def ordered(*, share: Share = 0.1, equal: Decay = 0.75) -> Intervals:
    """The larger and the smaller of two draws of `times`.

    Args:
        share: of [r, t] that the target's first step takes, where it has one.
        equal: share of the examples with r = t: 0.75 on ImageNet, 0.25 on CIFAR-10 in Geng et al. 2025 (arXiv 2505.13447).
    """

    def draw(key, times, path, n, low, high, step):
        del step
        one, two, mixed, same = jax.random.split(key, 4)
        a = stratified(one, times, path, n, low, high)
        b = jax.random.permutation(mixed, stratified(two, times, path, n, low, high))
        t, r = jnp.maximum(a, b), jnp.minimum(a, b)
        return _equal(same, equal, t, t - share * (t - r), r)

    return Intervals(draw, velocity=equal > 0)


@recorded
def binary(*, halvings: Count = 7, equal: Decay = 0.875) -> Intervals:
    """Steps of the lengths (high - low) / 2^i, i < halvings with equal chances, from a multiple of the length; `times` is not read.

    equal: share of the examples with r = t, a multiple of (high - low) / 2^halvings: 7/8 in the program of Frans et al. 2025
        (arXiv 2410.12557), whose lengths are 1 to 1/64, so that their halves end at 1/128.
    """

    def draw(key, times, path, n, low, high, step):
        del times, path, step
        same, length, place = jax.random.split(key, 3)
        here = jax.random.bernoulli(same, equal, (n,))
        i = jnp.where(here, halvings, jax.random.randint(length, (n,), 0, halvings))
        count = 2**i
        k = jnp.minimum(jnp.floor(jax.random.uniform(place, (n,)) * count), count - 1)  # the step from k + 1 to k
        t, r = (low + (high - low) * (k + 1 - back) / count for back in (0, 1))
        r = jnp.where(here, t, r)
        return t, r, r

    return Intervals(draw, velocity=equal > 0)


@recorded
def to_data(*, share: Share = 0.1) -> Intervals:
    """t by `times`, and r the data's end."""

    def draw(key, times, path, n, low, high, step):
        del step
        t = stratified(key, times, path, n, low, high)
        r = jnp.full_like(t, low)
        return t, t - share * (t - r), r

    return Intervals(draw, to_data=True)


@recorded
def points(*, count: Schedule | NonNegative = 18.0, grid: Annotated[TimeCoordinate | None, Bare("uniform")] = None) -> Intervals:
    """The two neighbours s < t, on a grid of N points, of a draw of `times`; r the data's end.

    With `times` the grid's own coordinate the N - 1 intervals have equal chances, as in Song et al. 2023 (arXiv 2303.01469), whose grid
    is rho = 7; with log_normal(mean=-1.1, std=2.0) those of Song and Dhariwal 2024 (2310.14189): the density's mass in the interval.

    Args:
        count: N, a number or a schedule of the training step; at least 2.
        grid: the coordinate in which the points are equidistant; on a path with alpha(1) = 0 one that is finite there, as uniform is.
    """
    coordinate, of = grid or uniform(), scheduled(count)

    def draw(key, times, path, n, low, high, step):
        cells = jnp.maximum(jnp.round(of.at(step)), 2) - 1
        drawn = position(coordinate, path, stratified(key, times, path, n, low, high), low, high)
        cell = jnp.clip(jnp.floor(drawn * cells), 0, cells - 1)
        s, t = (located(coordinate, path, (cell + after) / cells, low, high) for after in (0, 1))
        r = jnp.full_like(t, low)
        return t, jnp.where(cell == 0, r, s), r

    return Intervals(draw, to_data=True)


@recorded
def equal(*, steps: Count = 1) -> Intervals:
    """One of `steps` steps, equal in the coordinate `times`, with equal chances: what a sampler of so many steps takes, whose grid must be
    in that coordinate too."""

    def draw(key, times, path, n, low, high, step):
        del step
        cell = jnp.minimum(jnp.floor(strata(key, n) * steps), steps - 1)
        r, t = (located(times, path, (cell + after) / steps, low, high) for after in (0, 1))
        return t, r, r

    return Intervals(draw, to_data=steps == 1, steps=steps)


INTERVALS: dict[str, Callable[..., Intervals]] = {
    "ordered": ordered,
    "binary": binary,
    "to_data": to_data,
    "points": points,
    "equal": equal,
}
part_kind(Intervals, "intervals", INTERVALS)
