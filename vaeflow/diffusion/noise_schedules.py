"""Noise schedules of discrete diffusion: how much of a category is left after a share t of the corruption's steps.

    beta_i, i = 1 .. T      the share that step i corrupts
    alphabar_i = prod_(j <= i) (1 - beta_j), alphabar_0 = 1: the share that is left;  alphabar(t), t in [0, 1], is its continuous limit

Checked against the authors' program of Austin et al. 2021 (arXiv 2107.03006), `get_diffusion_betas`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vaeflow.build import Decay, Fraction
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.record import recorded

_LARGEST = 0.999  # of cosine's betas, whose last one would be 1


class NoiseSchedule(NamedTuple):
    """betas: T -> [T], in (0, 1], float64. alphabar: t [...] -> [...], or None for a schedule without a continuous limit. information: a
    corruption which does not lose information in proportion to 1 - alphabar finds its own alphabar from the data."""

    betas: Callable[[int], np.ndarray]
    alphabar: Callable[[Array], Array] | None = None
    information: bool = False
    spec: Any = None  # how it was made, see record.py


@recorded
def linear(*, start: Fraction = 1e-4, stop: Fraction = 0.02) -> NoiseSchedule:
    """beta_i from `start` to `stop`: for the discretized Gaussian, whose beta is a width (Ho et al. 2020, arXiv 2006.11239).

    Raises:
        UserError: start or stop is 0.
    """
    if not start or not stop:
        raise UserError(f"linear: start={start:g} and stop={stop:g} must both be > 0")
    return NoiseSchedule(lambda steps: np.linspace(start, stop, steps))


@recorded
def cosine(*, offset: Decay = 0.008) -> NoiseSchedule:
    """alphabar(t) = c(t) / c(0), c(t) = cos(pi/2 (t + offset) / (1 + offset)), beta_i at most 0.999 (Hoogeboom et al. 2021, arXiv
    2102.05379, where it is not squared): for uniform transitions."""

    def left(t, cos, pi):
        return cos((t + offset) / (1 + offset) * pi / 2) / cos(offset / (1 + offset) * pi / 2)

    def betas(steps):
        alphabar = left(np.arange(steps + 1) / steps, np.cos, np.pi)
        return np.minimum(1 - alphabar[1:] / alphabar[:-1], _LARGEST)

    return NoiseSchedule(betas, lambda t: jnp.maximum(left(t, jnp.cos, jnp.pi), 0))


@recorded
def mutual_information() -> NoiseSchedule:
    """I(x_t; x_0) = (1 - t) H(x_0): every step loses the same information (Austin et al. 2021, appendix A.7; Sohl-Dickstein et al. 2015).

    For an absorbing state beta_i = 1 / (T - i + 1) and alphabar(t) = 1 - t. Other corruptions find theirs from the frequencies of the
    categories in the first batch, see `information_exponents` in corruptions.py.
    """
    return NoiseSchedule(lambda steps: 1 / np.arange(steps, 0, -1.0), lambda t: 1 - t, information=True)


NOISE_SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "linear": linear,
    "cosine": cosine,
    "mutual_information": mutual_information,
}
