"""Coefficients of an objective as functions of the training step: one line in SCHEDULES each.

    constant    value
    linear      start + (end - start) min(1, step / steps)
    cyclical    the same with step / (ramp * steps), restarted every `steps` steps: a fraction `ramp` of each cycle rises, the rest stays
                at `end` (Fu et al. 2019, eq. 6-7: M cycles in T steps are steps = T/M; ramp is their R)
    geometric   start (end / start)^min(1, step / steps): the same factor in every step

An argument annotated `Schedule | NonNegative` takes the name of such a part or a number, which is the constant schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax.numpy as jnp

from vaeflow.build import TRACED, Count, NonNegative, Positive, Range
from vaeflow.model import Array


class Schedule(NamedTuple):
    """at: step (an integer, which may be traced) -> the coefficient, a scalar array."""

    at: Callable[[Any], Array]


def scheduled(value: Schedule | float) -> Schedule:
    """A schedule as it is, a number as the constant one.

    Example:
        >>> float(scheduled(2.0).at(100))
        2.0
    """
    return value if isinstance(value, Schedule) else constant(value=value)


def constant(*, value: Annotated[NonNegative, TRACED]) -> Schedule:
    """The same value at every step."""
    return Schedule(lambda step: jnp.asarray(value, jnp.result_type(float)))


def linear(*, steps: Count, start: Annotated[NonNegative, TRACED] = 0.0, end: Annotated[NonNegative, TRACED] = 1.0) -> Schedule:
    """start + (end - start) min(1, step / steps)."""
    return Schedule(lambda step: start + (end - start) * jnp.minimum(1.0, jnp.asarray(step) / steps))


def cyclical(
    *,
    steps: Count,
    start: Annotated[NonNegative, TRACED] = 0.0,
    end: Annotated[NonNegative, TRACED] = 1.0,
    ramp: Annotated[float, Range(0, 1, open_low=True)] = 0.5,
) -> Schedule:
    """start + (end - start) min(1, (step mod steps) / (ramp steps))."""
    return Schedule(lambda step: start + (end - start) * jnp.minimum(1.0, jnp.mod(jnp.asarray(step), steps) / (ramp * steps)))


def geometric(*, steps: Count, start: Annotated[Positive, TRACED], end: Annotated[Positive, TRACED]) -> Schedule:
    """start (end / start)^min(1, step / steps)."""
    return Schedule(lambda step: start * (end / start) ** jnp.minimum(1.0, jnp.asarray(step) / steps))
