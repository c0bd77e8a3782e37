"""Coefficients of an objective as functions of the training step: one line in SCHEDULES each.

    constant    value
    linear      start + (end - start) min(1, step / steps)
    cyclical    the same with step / (ramp * steps), restarted every `steps` steps: a fraction `ramp` of each cycle rises, the rest stays
                at `end` (Fu et al. 2019, eq. 6-7: M cycles in T steps are steps = T/M; ramp is their R)
    geometric   start (end / start)^min(1, step / steps): the same factor in every step
    root        of consistency models: the number N(k) of points in time, whose square rises linearly
    doubling    the number of points that doubles at equal distances
    root_decay  mu(k) = decay^(start / N(k)), of the moving average of the target network

An argument annotated `Schedule | NonNegative` takes the name of such a part or a number, which is the constant schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from vaeflow.build import TRACED, Count, Decay, NonNegative, Positive, Range
from vaeflow.model import Array
from vaeflow.record import recorded


class Schedule(NamedTuple):
    """at: step (an integer, which may be traced) -> the coefficient, a scalar array."""

    at: Callable[[Any], Array]
    spec: Any = None  # how it was made, see record.py


def scheduled(value: Schedule | float) -> Schedule:
    """A schedule as it is, a number as the constant one.

    Example:
        >>> float(scheduled(2.0).at(100))
        2.0
    """
    return value if isinstance(value, Schedule) else constant(value=value)


@recorded
def constant(*, value: Annotated[NonNegative, TRACED]) -> Schedule:
    """The same value at every step."""
    return Schedule(lambda step: jnp.asarray(value, jnp.result_type(float)))


@recorded
def linear(*, steps: Count, start: Annotated[NonNegative, TRACED] = 0.0, end: Annotated[NonNegative, TRACED] = 1.0) -> Schedule:
    """start + (end - start) min(1, step / steps)."""
    return Schedule(lambda step: start + (end - start) * jnp.minimum(1.0, jnp.asarray(step) / steps))


@recorded
def cyclical(
    *,
    steps: Count,
    start: Annotated[NonNegative, TRACED] = 0.0,
    end: Annotated[NonNegative, TRACED] = 1.0,
    ramp: Annotated[float, Range(0, 1, open_low=True)] = 0.5,
) -> Schedule:
    """start + (end - start) min(1, (step mod steps) / (ramp steps))."""
    return Schedule(lambda step: start + (end - start) * jnp.minimum(1.0, jnp.mod(jnp.asarray(step), steps) / (ramp * steps)))


@recorded
def geometric(*, steps: Count, start: Annotated[Positive, TRACED], end: Annotated[Positive, TRACED]) -> Schedule:
    """start (end / start)^min(1, step / steps)."""
    return Schedule(lambda step: start * (end / start) ** jnp.minimum(1.0, jnp.asarray(step) / steps))


@recorded
def root(*, steps: Count, start: Count = 2, end: Count = 150) -> Schedule:
    """N(k) = ceil(sqrt(k/K ((end + 1)^2 - start^2) + start^2) - 1) + 1: from `start` points to `end` + 1, that is `end` intervals.

    Reference: Song et al. 2023 (arXiv 2303.01469), appendix C, s_0 = 2 and s_1 = 150 (CIFAR-10).
    """

    def at(step):
        part = jnp.minimum(1.0, jnp.asarray(step) / steps)
        return jnp.ceil(jnp.sqrt(part * ((end + 1) ** 2 - start**2) + start**2) - 1) + 1

    return Schedule(at)


@recorded
def doubling(*, steps: Count, start: Count = 10, end: Count = 1280) -> Schedule:
    """N(k) = min(start 2^floor(k / K'), end) + 1 with K' = floor(K / (log2 floor(end / start) + 1)).

    Reference: Song and Dhariwal 2024 (arXiv 2310.14189), s_0 = 10 and s_1 = 1280; read in programs that reproduce it.
    """
    stage = max(1, math.floor(steps / (math.log2(max(end // start, 1)) + 1)))
    most = math.ceil(math.log2(end / start)) if end > start else 0
    return Schedule(lambda step: jnp.minimum(start * 2.0 ** jnp.minimum(jnp.floor(jnp.asarray(step) / stage), most), end) + 1.0)


@recorded
def root_decay(*, steps: Count, start: Count = 2, end: Count = 150, decay: Decay = 0.9) -> Schedule:
    """mu(k) = exp(start log(decay) / N(k)) with the N of `root`: from decay towards 1.

    The paper's formula (Song et al. 2023, appendix C), mu_0 = 0.9 on CIFAR-10; its program has N - 1 in place of N.
    """
    count = root(steps=steps, start=start, end=end)
    return Schedule(lambda step: decay ** (start / count.at(step)))
