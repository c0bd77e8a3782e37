"""Comparison of samples with held-out data without a pretrained network: all distances with standard errors and floors.

`compare` calls energy_distance and mmd2 (kernel_statistics.py), precision_recall and memorisation (neighbours.py), and, with samples
a_1..N and held-out data b_1..M in R^D, the two distances of this module:

    sliced_wasserstein      (mean over directions u of W_2^2(u.a, u.b))^(1/2)      units of x, biased upwards
    frechet_extrapolated    the limit of the Frechet distance for n -> infinity    units of x^2

The floor of a distance is the same distance with as many training examples in place of the samples: a perfect model scores it, not
0. Shapes are static and keys are arguments: a second call with the same shapes compiles nothing, and two checkpoints are compared by the
same directions and the same reference examples.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count
from vaeflow.errors import UserError, unknown
from vaeflow.evaluation.kernel_statistics import WIDTHS, Estimate, energy_distance, kernel_width, mmd2
from vaeflow.evaluation.neighbours import centred, choose, memorisation, precision_recall, scan_rows
from vaeflow.model import Array

# Directions that are projected and sorted at once.
_DIRECTIONS = 16
# `compare` leaves out the Frechet distances above this dimension, or with fewer than this many examples per dimension.
FRECHET_DIMENSION, FRECHET_EXAMPLES = 64, 20
NAMES = ("energy", "sliced_wasserstein", "mmd2", "neighbours", "memorisation", "frechet")


class TwoSampleSettings(NamedTuple):
    """Settings of `compare`.

    examples     at most, of samples and of held-out data; the cost of all but sliced_wasserstein and frechet grows with its square
    projections  directions of sliced_wasserstein
    neighbours   k of precision, recall, density and coverage
    chunk        rows of distances at once; no result depends on it
    names        the comparisons to make, of NAMES: `neighbours` gives four values, `frechet` two
    floor        whether the floors are computed too
    """

    examples: Count = 5000
    projections: Count = 128
    neighbours: Count = 5
    chunk: Count = 512
    names: tuple[str, ...] = NAMES
    floor: bool = True


class Sliced(NamedTuple):
    """A sliced distance, its standard error over examples for its directions, and the one over directions for its examples."""

    value: float
    se: float
    se_directions: float


def sliced_wasserstein(key: Array, a: Any, b: Any, projections: int = 128) -> Sliced:
    """(1/L sum_l W_2^2(u_l.a, u_l.b))^(1/2) over L random unit directions u_l, with its standard errors.

    W_2 and not W_1, because mean_l W_2^2 of a shift t is |t|^2/D exactly and the closed form of Gaussians is known. In one dimension
    W_2^2 = int (F_a^-1(p) - F_b^-1(p))^2 dp; both quantile functions are steps, and the integral is exact for N != M too. It is biased
    upwards: at equal distributions it is not 0, and is read next to its floor of the same n.

    se covers the draws of a and b for these directions, by the Kantorovich potentials phi(x) = int 2 (t - T(t)) dt of the matching T (the
    influence function of W_2^2), averaged over directions, and the delta method. It compares checkpoints, and samples with their floor,
    which share directions. Near equal distributions the value is mostly bias, and se is up to 1.5 times too large. se_directions is
    s(W_2^2)/sqrt(L), by the delta method: the error as an estimate of the mean over all directions, for these examples.

    Args:
      key: draws the directions; a fixed key gives fixed directions.
      a: samples [N, *event].
      b: held-out data [M, *event].
      projections: L.

    Returns:
      (value in the units of x, se over examples, se over directions).

    Raises:
      UserError: event shapes differ; fewer than 4 examples; fewer than 2 projections.

    Reference: Rabin et al. (2011), "Wasserstein barycenter and its application to texture mixing"; Bonneel et al. (2015).
    """
    if projections < 2:
        raise UserError(f"projections={projections} must be at least 2")
    a, b = centred(a, b)
    squares, of_a, of_b = (np.asarray(x, np.float64) for x in _sliced(key, a, b, projections))
    value = float(np.sqrt(squares.mean()))
    if value == 0:
        return Sliced(0.0, 0.0, 0.0)
    variance = np.var(of_a, ddof=1) / len(of_a) + np.var(of_b, ddof=1) / len(of_b)
    return Sliced(value, float(np.sqrt(variance) / (2 * value)), float(squares.std(ddof=1) / np.sqrt(projections) / (2 * value)))


@functools.partial(jax.jit, static_argnames="projections")
def _sliced(key: Array, a: Array, b: Array, projections: int) -> tuple[Array, Array, Array]:
    """(W_2^2 of each direction [L], mean potentials of a [N] and of b [M])."""
    n, m = len(a), len(b)
    # Both quantile functions are constant between these probabilities, which are integers over n m.
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    weight, i, j = np.diff(edges) / (n * m), edges[:-1] // m, edges[:-1] // n
    weight = jnp.asarray(weight, jnp.float32)

    def potential(x, gap, index, size):
        """int 2 (t - T(t)) dt at each sorted x, by the trapezoidal rule; gap: x - T(x) on the edges."""
        mean = size * jax.ops.segment_sum(weight * gap, index, size, indices_are_sorted=True)
        return jnp.concatenate([jnp.zeros(1), jnp.cumsum((mean[1:] + mean[:-1]) * jnp.diff(x))])

    def one(u):
        x, y = (jnp.matmul(rows, u, precision=jax.lax.Precision.HIGHEST) for rows in (a, b))
        order_x, order_y = jnp.argsort(x), jnp.argsort(y)
        x, y = x[order_x], y[order_y]
        gap = x[i] - y[j]
        of_x = jnp.zeros(n).at[order_x].set(potential(x, gap, i, n))
        of_y = jnp.zeros(m).at[order_y].set(potential(y, -gap, j, m))
        return (weight * gap**2).sum(), of_x, of_y

    directions = jax.random.normal(key, (projections, a.shape[1]))
    directions /= jnp.linalg.norm(directions, axis=1, keepdims=True)

    def step(total, rows, index):
        squares, of_x, of_y = jax.vmap(one)(rows)
        inside = (index < projections)[:, None]
        return (total[0] + jnp.where(inside, of_x, 0).sum(0), total[1] + jnp.where(inside, of_y, 0).sum(0)), squares

    (of_a, of_b), squares = scan_rows(step, (jnp.zeros(n), jnp.zeros(m)), directions, _DIRECTIONS)
    return squares, of_a / projections, of_b / projections


def frechet_extrapolated(a: Any, b: Any, sizes: Sequence[int], seed: int = 0) -> Estimate:
    """The limit of the Frechet distance for n -> infinity: intercept of a linear regression of FD(n) on 1/n.

    FD of two sets of n examples is biased upwards by c/n + O(n^-2). FD(n) is the mean over the disjoint pairs of subsets of size n of both
    sets, in a random order. float64 numpy.

    The standard error is that of the regression's intercept. It covers the choice of subsets and the deviation from a line. All sizes
    use the same examples, so it does not cover their draw and is too small for a comparison of two models: for that, repeat with samples
    of another key.

    Args:
      a: samples or features of them [N, F].
      b: held-out data or features of them [M, F].
      sizes: at least 3 different n, F < n <= min(N, M); 10 F and more keep the bias linear in 1/n.
      seed: of the order.

    Returns:
      (intercept in the units of x^2, its standard error); the intercept may be below 0 at equal distributions.

    Raises:
      UserError: fewer than 3 sizes, or one outside its range.

    Example:
      value, se = frechet_extrapolated(features, held_features, sizes=range(1000, 5001, 500))

    Reference: Chong & Forsyth (2020), "Effectively unbiased FID and Inception Score", arXiv 1911.07023.
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    sizes, most = sorted({int(n) for n in sizes}), min(len(a), len(b))
    if len(sizes) < 3 or sizes[0] <= a.shape[1] or sizes[-1] > most:
        raise UserError(f"sizes={sizes} must be at least 3 numbers above the {a.shape[1]} dimensions and at most {most}")
    rng = np.random.default_rng(seed)
    a, b = (x[rng.permutation(len(x))] for x in (a, b))
    y = np.array([np.mean([frechet(a[s : s + n], b[s : s + n]) for s in range(0, most - n + 1, n)]) for n in sizes])
    x = 1 / np.asarray(sizes, np.float64)
    apart = x - x.mean()
    slope = (apart * y).sum() / (apart**2).sum()
    intercept = y.mean() - slope * x.mean()
    noise = ((y - intercept - slope * x) ** 2).sum() / (len(x) - 2)
    return Estimate(float(intercept), float(np.sqrt(noise * (1 / len(x) + x.mean() ** 2 / (apart**2).sum()))))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of Gaussians fitted to features a [N, F] and b [M, F], float64."""
    return frechet_gaussian(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def frechet_gaussian(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """FD of N(mean_a, cov_a) and N(mean_b, cov_b). The trace of (C_a C_b)^(1/2) is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is
    symmetric: singular covariances (features that are always 0) do no harm."""
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


Compared = dict[str, tuple[float, float | None, str]]


def compare(key: Array, samples: Any, train: Any, held: Any, settings: TwoSampleSettings | None = None) -> Compared:
    """All comparisons of samples with held-out data, each with its floor.

    Entries are energy, sliced_wasserstein, mmd2, precision, recall, density, coverage, memorisation, frechet and frechet_extrapolated;
    NAME_floor is the same with as many training examples in place of the samples. memorisation_floor has half of the held-out data in
    place of the samples and the other half as reference: it is 1/2 unless train and held differ in distribution. Frechet distances are of x
    itself, and are left out above 64 dimensions and below 20 examples per dimension.

    Args:
      key: chooses examples and directions; use one key for all checkpoints of a run.
      samples: [N, *event], of equal scale to the data.
      train: training data [T, *event].
      held: data that were not trained on [M, *event].
      settings: None is TwoSampleSettings().

    Returns:
      {name: (value, standard error or None, what it is, with n, k and kernel widths)}.

    Raises:
      UserError: an unknown name; too few examples; event shapes differ.

    Example:
      value, se, what = compare(jax.random.key(0), samples, train, held)["energy"]
    """
    s = settings or TwoSampleSettings()
    if wrong := [name for name in s.names if name not in NAMES]:
        raise unknown("names", wrong[0], NAMES)
    keys = [jax.random.fold_in(key, i) for i in range(5)]
    samples, held = choose(keys[0], samples, s.examples), choose(keys[1], held, s.examples)
    width = kernel_width(held) if "mmd2" in s.names else 1.0
    out = _distances(keys[2], samples, held, width, s, "samples", "")
    if s.floor:
        seen = choose(keys[3], train, len(samples))
        out |= _distances(keys[2], seen, held, width, s, "training examples", "_floor")
    if "memorisation" in s.names:
        sets = [("", "samples", samples, held)]
        sets += [("_floor", "held-out examples", held[::2], held[1::2])] if s.floor else []
        for suffix, name, x, reference in sets:
            found = memorisation(keys[4], x, train, reference, s.chunk)
            n = min(len(train), len(reference))
            what = f"share of {len(x):,} {name} nearer to one of {n:,} training than of {n:,} held-out examples; z = {found.z:.2f}"
            out[f"memorisation{suffix}"] = (found.value, found.se, what)
    return out


def _distances(key: Array, x: Any, held: Any, width: float, s: TwoSampleSettings, name: str, suffix: str) -> Compared:
    """The entries of `compare` that are functions of x [N, *event] and held-out data, with `suffix` in their names."""
    sets, dimension = f"{len(x):,} {name}, {len(held):,} held out", int(np.prod(x.shape[1:]))
    out: Compared = {}
    if "energy" in s.names:
        value, se = energy_distance(x, held, s.chunk)
        out["energy"] = (value, se, f"energy distance, unbiased; {sets}")
    if "sliced_wasserstein" in s.names:
        value, se, of_directions = sliced_wasserstein(key, x, held, s.projections)
        what = f"sliced W_2, {s.projections} directions (s.e. over these {of_directions:.2g}); {sets}"
        out["sliced_wasserstein"] = (value, se, what)
    if "mmd2" in s.names:
        kernels = ", ".join(f"{w * width:.3g}" for w in WIDTHS)
        value, se = mmd2(x, held, width, s.chunk)
        out["mmd2"] = (value, se, f"MMD^2, unbiased, Gaussian kernels of {kernels}; {sets}")
    if "neighbours" in s.names:
        found = precision_recall(x, held, s.neighbours, s.chunk)._asdict()
        what = f"k = {s.neighbours} nearest neighbours; {sets}"
        out |= {part: (share.value, share.se, f"{part}, {what}") for part, share in found.items()}
    n = min(len(x), len(held))
    if "frechet" in s.names and dimension <= FRECHET_DIMENSION and n >= FRECHET_EXAMPLES * dimension:
        sizes = [int(size) for size in np.linspace(n / 5, n, 9)]
        a, b = (np.asarray(y, np.float64).reshape(len(y), -1) for y in (x, held))
        out["frechet"] = (frechet(a, b), None, f"Frechet distance, {dimension} dimensions, biased upwards by about 1/n; {sets}")
        what = f"Frechet distance for n -> infinity, from n = {sizes[0]:,} to {n:,} (s.e. of the regression); {sets}"
        value, se = frechet_extrapolated(a, b, sizes)
        out["frechet_extrapolated"] = (value, se, what)
    return {f"{part}{suffix}": entry for part, entry in out.items()}
