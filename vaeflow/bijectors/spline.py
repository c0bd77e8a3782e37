"""Neural spline coupling (Durkan et al. 2019): a coupling whose transformer is a rational-quadratic spline."""

from __future__ import annotations

from typing import Annotated

from vaeflow.bijectors.core.layer import Layer
from vaeflow.bijectors.coupling import Mask, coupling
from vaeflow.bijectors.rational_quadratic import rational_quadratic
from vaeflow.build import Positive, Range
from vaeflow.nets.net import Net

Least = Annotated[float, Range(0, 1, open_low=True, open_high=True)]


def spline_coupling(
    *,
    net: Net,
    mask: Mask,
    flip: bool,
    bins: Annotated[int, Range(2)],
    bound: Positive,
    min_width: Least,
    min_height: Least,
    min_slope: Least,
) -> Layer:
    """x_moved = spline(z_moved; theta(z_kept)), the identity outside [-bound, bound]; see rational_quadratic.py."""
    return coupling(rational_quadratic(bins, bound, min_width, min_height, min_slope), net, mask, flip)
