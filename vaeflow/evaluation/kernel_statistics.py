"""Two-sample U-statistics of a kernel, unbiased, with standard errors that hold near equal distributions: energy distance and MMD^2.

With samples a_1..N ~ P and held-out data b_1..M ~ Q in R^D, all means without the pairs of an example with itself:

    energy_distance    2 E|a - b| - E|a - a'| - E|b - b'|          units of x; 0 where P = Q
    mmd2               E k(a, a') + E k(b, b') - 2 E k(a, b)        no unit; 0 where P = Q

Both are sums of a kernel k, which is -|x - y| for the energy distance. They are unbiased, so values below 0 occur. Their variance has
two orders (Serfling 1980, chapter 5). V_1 is the variance of the row means (the Hajek projection, of both sets), V_2 that of the doubly
centred pairs, whose variances s_aa^2, s_bb^2, s_ab^2 are estimated without bias:

    V_1  = s^2(psi_a)/N + s^2(psi_b)/M,    psi_a(i) = 2 (mean_i' k(a_i, a_i') - mean_j k(a_i, b_j)),    psi_b likewise
    V_2  = 4 s_ab^2/(N M) + 2 s_aa^2/(N (N - 1)) + 2 s_bb^2/(M (M - 1))
    se^2 = V_2 + E^2/V_1,                  E = max(V_1 - 2 V_2, 0)

Far from P = Q the statistic is normal and se^2 is V_1. At P = Q it is degenerate: the first order is 0, the row means contain only
noise of size 2 V_2, the variance is V_2, and the statistic is skewed to the right. E removes that noise, and is shrunk by E/V_1, because a
small excess is mostly noise. se covers the draw of a and the draw of b. Simulated with N, M of 100 to 300 and D of 1 to 20, its mean is
0.8 to 1.25 times the true standard deviation: the low end between the two cases, the high end at P = Q in one or two dimensions.

Distances are float32 on the device, `chunk` rows at a time (neighbours.py states their resolution); row sums are combined in float64.
Shapes are static: a second call with the same shapes compiles nothing. A NaN in an example makes the value NaN.
"""

from __future__ import annotations

import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.errors import UserError
from vaeflow.evaluation.neighbours import centred, scan_rows, squared_distances
from vaeflow.model import Array

# Rows from which the median distance is taken, evenly spaced.
# Kernels exp(-d^2 / (2 s^2)) with these multiples s of the median distance, averaged.
WIDTHS = (0.5, 1.0, 2.0)
_MEDIAN_ROWS = 1000


class Estimate(NamedTuple):
    """A value and its standard error."""

    value: float
    se: float


class _Pairs(NamedTuple):
    """Sums of a kernel minus a constant: over columns [N], over rows [M], of squares [N]."""

    rows: Any
    columns: Any
    squares: Any


def energy_distance(a: Any, b: Any, chunk: int = 512) -> Estimate:
    """2 E|a - b| - E|a - a'| - E|b - b'|, unbiased, with its standard error.

    It is 0 only where the distributions are equal, and finite wherever E|x| is.

    Args:
      a: samples [N, *event].
      b: held-out data [M, *event].
      chunk: rows of distances at once; no result depends on it beyond rounding.

    Returns:
      (value in the units of x, standard error over the draws of a and b; see the module for equal distributions).

    Raises:
      UserError: event shapes differ; fewer than 4 examples.

    Example:
      value, se = energy_distance(samples, held)

    Reference: Szekely & Rizzo (2013), "Energy statistics: a class of statistics based on distances".
    """
    a, b = centred(a, b)
    scale = jnp.sqrt((a**2).sum(1).mean() + (b**2).sum(1).mean())
    return _u_statistic("energy", a, b, scale, chunk)


def mmd2(a: Any, b: Any, width: float | None = None, chunk: int = 512) -> Estimate:
    """E k(a, a') + E k(b, b') - 2 E k(a, b), unbiased, with its standard error.

    k(x, y) is the mean over w in (0.5, 1, 2) of exp(-|x - y|^2 / (2 w^2 width^2)). For N = M the pairs (a_i, b_i) are left out, so that it
    is the U-statistic of Gretton et al. (lemma 6).

    Args:
      a: samples [N, *event].
      b: held-out data [M, *event].
      width: in the units of x; None is the median distance of 1000 evenly spaced examples of b.
      chunk: rows of distances at once; no result depends on it beyond rounding.

    Returns:
      (value, standard error over the draws of a and b; see the module for equal distributions). `width` counts as fixed.

    Raises:
      UserError: event shapes differ; fewer than 4 examples; the width is not positive.

    Reference: Gretton et al. (2012), "A kernel two-sample test".
    """
    width = kernel_width(b) if width is None else width
    if not width > 0:
        raise UserError(f"width={width:g} of the kernel must be positive")
    a, b = centred(a, b)
    return _u_statistic("gaussian", a, b, jnp.float32(width), chunk)


def kernel_width(b: Any) -> float:
    """The median distance of at most 1000 evenly spaced examples of b [M, *event], in the units of x."""
    m = min(len(b), _MEDIAN_ROWS)
    return median_distance(np.asarray(b[np.arange(m) * len(b) // m]))


def median_distance(x: Any) -> float:
    """The median of |x_i - x_j| over i < j, of x [N, *event]."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    squares = (x**2).sum(-1)[:, None] + (x**2).sum(-1) - 2 * x @ x.T
    return float(np.sqrt(np.median(np.maximum(squares, 0)[np.triu_indices(len(x), 1)])))


def _kernel(kind: str, square: Array, scale: Array) -> Array:
    """Minus a constant near its mean, which cancels in the statistic: float32 sums then keep their digits."""
    if kind == "energy":
        return scale - jnp.sqrt(square)
    of = sum(jnp.exp(-square / (2 * (w * scale) ** 2)) for w in WIDTHS) / len(WIDTHS)
    return jnp.asarray(of) - sum(np.exp(-0.5 / w**2) for w in WIDTHS) / len(WIDTHS)


@functools.partial(jax.jit, static_argnames=("kind", "same", "chunk"))
def _pairs(kind: str, a: Array, b: Array, scale: Array, same: bool, chunk: int) -> _Pairs:
    def step(columns, rows, index):
        k = _kernel(kind, squared_distances(rows, b), scale)
        out = (index[:, None] >= len(a)) | (same & (index[:, None] == jnp.arange(len(b))))
        k = jnp.where(out, 0.0, k)
        return columns + k.sum(0), (k.sum(1), (k**2).sum(1))

    columns, (rows, squares) = scan_rows(step, jnp.zeros(len(b)), a, chunk)
    return _Pairs(rows, columns, squares)


def _u_statistic(kind: Literal["energy", "gaussian"], a: Array, b: Array, scale: Array, chunk: int) -> Estimate:
    """The two-sample U-statistic of a kernel and its standard error, see the module."""
    n, m = len(a), len(b)
    found = [_pairs(kind, a, a, scale, True, chunk), _pairs(kind, b, b, scale, True, chunk), _pairs(kind, a, b, scale, False, chunk)]
    aa, bb, ab = (_Pairs(*(np.asarray(x, np.float64) for x in pairs)) for pairs in jax.device_get(found))
    rows, columns, per_row, per_column = ab.rows, ab.columns, m, n
    if kind == "gaussian" and n == m:
        diagonal = np.asarray(_kernel(kind, ((a - b) ** 2).sum(1), scale), np.float64)
        rows, columns, per_row, per_column = rows - diagonal, columns - diagonal, m - 1, n - 1
    value = aa.rows.mean() / (n - 1) + bb.rows.mean() / (m - 1) - 2 * rows.mean() / per_row
    first = (
        np.var(2 * (aa.rows / (n - 1) - rows / per_row), ddof=1) / n + np.var(2 * (bb.rows / (m - 1) - columns / per_column), ddof=1) / m
    )
    total = ab.rows.sum()
    mixed = ab.squares.sum() - (ab.rows**2).sum() / m - (ab.columns**2).sum() / n + total**2 / (n * m)
    second = 4 * mixed / ((n - 1) * (m - 1) * n * m) + sum(2 * _centred_square(x) / (len(x.rows) * (len(x.rows) - 1)) for x in (aa, bb))
    second = max(second, 0.0)
    excess = max(first - 2 * second, 0.0)
    return Estimate(float(value), float(np.sqrt(second + (excess**2 / first if excess else 0.0))))


def _centred_square(pairs: _Pairs) -> float:
    """The unbiased mean square of a doubly centred symmetric kernel without its diagonal (U-centring: Szekely & Rizzo 2014)."""
    n, total = len(pairs.rows), pairs.rows.sum()
    square = pairs.squares.sum() - 2 * (pairs.rows**2).sum() / (n - 2) + total**2 / ((n - 1) * (n - 2))
    return float(square / (n * (n - 3)))
