"""Coefficients of an objective as functions of the step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp

from vaeflow.model import Array

BetaSchedule = Literal["constant", "linear", "cyclical"]


def beta_schedule(name: BetaSchedule, *, start: float, end: float, steps: int, ramp: float) -> Callable[[Array | int], Array]:
    """step -> the weight of the KL term.

    constant   end
    linear     start + (end - start) min(1, step / steps)
    cyclical   the same with step / (ramp * steps), begun anew every `steps` steps: a fraction `ramp` of each cycle rises,
               the rest stays at `end` (Fu et al. 2019, eq. 6-7: M cycles in T steps are steps = T/M; ramp is their R)

    `steps` and `ramp` are Python numbers; start, end and the step may be traced.
    """

    def value(step):
        if name == "constant":
            return jnp.asarray(end, jnp.result_type(float))
        if name == "linear":
            fraction = jnp.asarray(step) / steps
        else:
            fraction = jnp.mod(jnp.asarray(step), steps) / (ramp * steps)
        return start + (end - start) * jnp.minimum(1.0, fraction)

    return value
