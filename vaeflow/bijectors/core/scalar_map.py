"""Transformer: a family of increasing maps of the real line, as pure functions. Couplings (and any other layer whose
network says how each number is mapped) are a Transformer and a way to compute its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from vaeflow.model import Array

# Bound of trained log-scales that no network gives: e^20 and its cube are still far inside float32.
CAP = 20.0


class ScalarMap(NamedTuple):
    """size      numbers per mapped number: theta [size, ...] has them on the LEADING axis, so that selections and sums over
              them run over whole rows
    forward   (theta, z) -> (x, log |dx/dz|), all elementwise; z, x [...]
    inverse   (theta, x) -> (z, log |dz/dx|)

    At theta = 0 the map is the identity (of mixtures near it, see mixture.py): a network whose head starts at zero starts there.
    """

    size: int
    forward: Callable
    inverse: Callable


def bounded(raw: Array, cap: float = CAP) -> Array:
    """cap * tanh(raw / cap): within (-cap, cap), and raw where that is small. Log-scales go through it, so that no parameter,
    however far training threw it, overflows in either direction."""
    return cap * jnp.tanh(raw / cap)


def unbounded(value: Array, cap: float = CAP) -> Array:
    """The raw that `bounded` maps to value, up to 0.999 of the cap."""
    return cap * jnp.arctanh(jnp.clip(value / cap, -0.999, 0.999))
