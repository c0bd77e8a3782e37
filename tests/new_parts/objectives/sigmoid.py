"""Sigmoid schedule: start + (end - start) sigmoid((step - steps / 2) / width), which is half-way at steps / 2 (Bowman et al. 2016)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vaeflow.build import Count, NonNegative, Positive
from vaeflow.objectives.schedules import Schedule


def sigmoid(*, steps: Count, width: Positive = 10.0, start: NonNegative = 0.0, end: NonNegative = 1.0) -> Schedule:
    """start + (end - start) sigmoid((step - steps / 2) / width)."""
    return Schedule(lambda step: start + (end - start) * jax.nn.sigmoid((jnp.asarray(step) - steps / 2) / width))
