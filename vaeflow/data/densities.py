"""2-D densities by name, each with its exact log p(x): a flow's distance from the truth, KL(p || q), is then a number.

Notation: n ~ N(0, I_2), U uniform, R(a) the rotation by the angle a. All lie within about [-4.5, 4.5]^2. `component` is the
moon, ring, arm, cell or bump that a point comes from; all have the same probability.

    moons         c(t) = (cos t, sin t) or (1 - cos t, 1/2 - sin t), t ~ U[0, pi];  x = 2 (c(t) - (1/2, 1/4)) + 0.2 n
    circles       radii 1.5 and 3, noise 0.2;  x = r (cos t, sin t) + s n, t ~ U[0, 2 pi]
    rings         radii 1, 2, 3, 4, noise 0.15
    pinwheel      u = (1 + 0.3 n_1, 0.1 n_2);  x = 2 R(2 pi k / 5 + e^|u| / 4) u, k = 0 .. 4
    two_spirals   c(a) = (a / 3) (cos a, sin a), a = 3 pi sqrt(U[0, 1]);  x = c(a) or -c(a), + 0.1 n
    checkerboard  uniform on every second of the 4 x 4 cells of [-4, 4]^2
    8gaussians    means at distance 4 / sqrt 2 every 45 degrees, standard deviation 0.5 / sqrt 2
    25gaussians   means at {-4, -2, 0, 2, 4}^2, standard deviation 0.1

The shapes are those of the flow literature (FFJORD, residual flows); the pinwheel is that of Johnson et al. (2016) with the angle a
function of |u|, so that the twist keeps areas.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import ive, logsumexp

from vaeflow.data.source import SPLITS, DataConfig, Modes, Source, Split, require, source
from vaeflow.errors import unknown

# The smallest validation and test draw: two numbers a point cost nothing.
_LEAST = 1000
# Rows of x at once in a log density: bounds its memory ([rows, nodes] in float64).
_ROWS = 2048


class TrueDensity(NamedTuple):
    """sample: (generator, component [N]) -> x [N, 2]; log_prob: x [N, 2] -> [N] in nats; components: how many; modes: of Gaussians."""

    sample: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    log_prob: Callable[[np.ndarray], np.ndarray]
    components: int
    modes: Modes | None = None


def _gaussians(means: np.ndarray, std: float) -> TrueDensity:
    """p(x) = mean_k N(x; m_k, s^2 I)."""

    def log_prob(x):
        squares = ((x[:, None] - means) ** 2).sum(-1)
        return logsumexp(-squares / (2 * std**2), axis=1) - np.log(2 * np.pi * std**2 * len(means))

    return TrueDensity(lambda rng, k: means[k] + std * rng.standard_normal((len(k), 2)), log_prob, len(means), Modes(means, std))


def _rings(radii: np.ndarray, std: float) -> TrueDensity:
    """x = r_k (cos t, sin t) + s n. Integrating the angle t out of the Gaussian gives, with rho = |x|,
    p(x) = mean_k exp(-(rho^2 + r_k^2) / (2 s^2)) I_0(rho r_k / s^2) / (2 pi s^2); I_0(v) = ive(0, v) e^v keeps it finite."""

    def sample(rng, k):
        t = rng.uniform(0, 2 * np.pi, len(k))
        return radii[k, None] * np.stack([np.cos(t), np.sin(t)], -1) + std * rng.standard_normal((len(k), 2))

    def log_prob(x):
        rho = np.linalg.norm(x, axis=1)[:, None]
        terms = np.log(ive(0, rho * radii / std**2)) - (rho - radii) ** 2 / (2 * std**2)
        return logsumexp(terms, axis=1) - np.log(2 * np.pi * std**2 * len(radii))

    return TrueDensity(sample, log_prob, len(radii))


def _curves(curves: tuple[Callable[[np.ndarray], np.ndarray], ...], end: float, inverse_cdf, pdf, std: float, panels: int) -> TrueDensity:
    """Noisy curves c_k(t), 0 <= t <= end with density pdf(t): p(x) = mean_k int pdf(t) N(x; c_k(t), s^2 I) dt.

    The integral is a Gauss-Legendre sum with 12 nodes in each panel; panels of about two noise widths make it exact to rounding
    wherever points fall.
    """
    node, weight = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(0, end, panels + 1)
    half = np.diff(edges)[:, None] / 2
    t = (edges[:-1, None] + half * (1 + node)).ravel()
    mixture = np.concatenate([c(t) for c in curves])
    log_weight = np.log(np.tile((half * weight).ravel() * pdf(t), len(curves)) / len(curves))

    def sample(rng, k):
        t = inverse_cdf(rng.random(len(k)))
        return np.stack([c(t) for c in curves])[k, np.arange(len(k))] + std * rng.standard_normal((len(k), 2))

    def log_prob(x):
        # |x - c|^2 expanded, so that the [rows, nodes] part is one matrix product.
        squares = (x**2).sum(1)[:, None] - 2 * x @ mixture.T + (mixture**2).sum(1)
        return logsumexp(log_weight - squares / (2 * std**2), axis=1) - np.log(2 * np.pi * std**2)

    return TrueDensity(sample, log_prob, len(curves))


def _moons() -> TrueDensity:
    def upper(t):
        return 2 * np.stack([np.cos(t) - 0.5, np.sin(t) - 0.25], -1)

    def lower(t):
        return 2 * np.stack([0.5 - np.cos(t), 0.25 - np.sin(t)], -1)

    return _curves((upper, lower), np.pi, lambda u: np.pi * u, lambda t: np.full_like(t, 1 / np.pi), 0.2, panels=20)


def _two_spirals() -> TrueDensity:
    def arm(a):
        return a[:, None] / 3 * np.stack([np.cos(a), np.sin(a)], -1)

    end = 3 * np.pi
    return _curves((arm, lambda a: -arm(a)), end, lambda u: end * np.sqrt(u), lambda a: 2 * a / end**2, 0.1, panels=80)


def _rotate(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * x[..., 0] - sin * x[..., 1], sin * x[..., 0] + cos * x[..., 1]], -1)


def _pinwheel(arms: int = 5) -> TrueDensity:
    """A rotation by an angle that depends on |u| alone keeps areas, so p(x) = mean_k N(u_k(x)) / 2^2."""
    mean, std, turn = np.array([1.0, 0.0]), np.array([0.3, 0.1]), 2 * np.pi * np.arange(arms) / arms

    def sample(rng, k):
        u = mean + std * rng.standard_normal((len(k), 2))
        return 2 * _rotate(u, turn[k] + np.exp(np.linalg.norm(u, axis=1)) / 4)

    def log_prob(x):
        radius = np.linalg.norm(x / 2, axis=1)[:, None]
        u = _rotate(x[:, None] / 2, -(turn + np.exp(radius) / 4))
        return logsumexp(-(((u - mean) / std) ** 2).sum(-1) / 2, axis=1) - np.log(2 * np.pi * std.prod() * arms * 4)

    return TrueDensity(sample, log_prob, arms)


def _checkerboard() -> TrueDensity:
    """p(x) = 1/32 on 8 cells of area 4, else 0."""
    cells = np.array([(i, j) for i in range(-2, 2) for j in range(-2, 2) if (i + j) % 2 == 0])

    def log_prob(x):
        cell = np.floor(x / 2)
        inside = (np.abs(cell + 0.5) < 2).all(1) & (cell.sum(1) % 2 == 0)
        return np.where(inside, -np.log(4.0 * len(cells)), -np.inf)

    return TrueDensity(lambda rng, k: 2 * (cells[k] + rng.random((len(k), 2))), log_prob, len(cells))


def _compass(n: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angle), np.sin(angle)], -1)


DENSITIES: dict[str, Callable[[], TrueDensity]] = {
    "moons": _moons,
    "circles": lambda: _rings(np.array([1.5, 3.0]), 0.2),
    "rings": lambda: _rings(np.arange(1.0, 5.0), 0.15),
    "pinwheel": _pinwheel,
    "two_spirals": _two_spirals,
    "checkerboard": _checkerboard,
    "8gaussians": lambda: _gaussians(4 / np.sqrt(2) * _compass(8), 0.5 / np.sqrt(2)),
    "25gaussians": lambda: _gaussians(np.array([(i, j) for i in range(-4, 5, 2) for j in range(-4, 5, 2)], float), 0.1),
}


def log_prob(density: TrueDensity, x: np.ndarray) -> np.ndarray:
    """log p(x), x [N, 2] -> [N] float64, with memory bounded in N."""
    x = np.asarray(x, np.float64)
    return np.concatenate([density.log_prob(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)] or [np.zeros(0)])


def draw(density: TrueDensity, n: int, seed: tuple[int, ...]) -> Split:
    """n points x [n, 2] float32 with their component as label."""
    rng = np.random.default_rng(seed)
    component = rng.integers(density.components, size=n)
    return Split(density.sample(rng, component).astype(np.float32), label=component.astype(np.int32))


def load(config: DataConfig, seed: int) -> Source:
    """data.kind=density: `size` training points drawn with the run's seed; val and test are the same for every run."""
    require(config, "name", f"the density's name: {', '.join(sorted(DENSITIES))}")
    if config.name not in DENSITIES:
        raise unknown("data.name", config.name, DENSITIES)
    size = require(config, "size", "the number of training examples")
    density = DENSITIES[config.name]()
    name = zlib.crc32(config.name.encode())
    splits = {"train": draw(density, size, (name, 0, seed))}
    for i, split in enumerate(SPLITS[1:], 1):
        fraction = getattr(config, f"{split}_fraction")
        if fraction:
            splits[split] = draw(density, max(round(size * fraction), _LEAST), (name, i))
    found = source(splits, levels=0, label_names=tuple(str(i) for i in range(density.components)))
    # Conditioned on the component the density is another one.
    found = found._replace(seeded=True, modes=density.modes)
    return found if config.context == "label" else found._replace(density=lambda x: log_prob(density, x))
