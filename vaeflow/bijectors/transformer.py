"""Transformer: a family of increasing maps of the real line, as pure functions. Couplings (and any other layer whose
network says how each number is mapped) are a Transformer and a way to compute its parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Transformer(NamedTuple):
    """size      numbers per mapped number: theta [size, ...] has them on the LEADING axis, so that selections and sums over
              them run over whole rows
    forward   (theta, z) -> (x, log |dx/dz|), all elementwise; z, x [...]
    inverse   (theta, x) -> (z, log |dz/dx|)

    At theta = 0 the map is the identity: a network whose head starts at zero starts as the identity.
    """

    size: int
    forward: Callable
    inverse: Callable
