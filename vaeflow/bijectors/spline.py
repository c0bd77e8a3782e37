"""Neural spline coupling (Durkan et al. 2019): a coupling whose transformer is a rational-quadratic spline."""

from __future__ import annotations

from typing import Annotated

from vaeflow.bijectors.core.layer import Layer
from vaeflow.bijectors.coupling import Mask, coupling
from vaeflow.bijectors.rational_quadratic import rational_quadratic
from vaeflow.build import Positive, Range
from vaeflow.nets.net import Net
from vaeflow.record import recorded

Least = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


@recorded
def spline_coupling(
    *,
    net: Net,
    mask: Mask,
    flip: bool = False,
    bins: Annotated[int, Range(2)] = 8,
    bound: Positive = 4.0,
    min_width: Least = 1e-3,
    min_height: Least = 1e-3,
    min_slope: Least = 1e-3,
) -> Layer:
    """x_moved = spline(z_moved; theta(z_kept)); see rational_quadratic.py.

    Args:
        net: the network that gives theta; a network on images for checkerboard and channel.
        mask: how the event is split, see coupling.py.
        flip: whether the two parts are exchanged.
        bins: number of the spline's pieces.
        bound: the spline is the identity outside [-bound, bound].
        min_width, min_height: least width and height of a bin, as a fraction of 2 bound; their products with `bins` are below 1.
        min_slope: least slope at the knots.
    """
    return coupling(rational_quadratic(bins, bound, min_width, min_height, min_slope), net, mask, flip)
