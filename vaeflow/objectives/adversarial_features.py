"""Adversarial objectives whose critic gives features or is an autoencoder; adversarial.py has the formulas of all, and those of scores.

Distances between sets of features are U-statistics: unbiased estimates, whose expected gradient for the generator is 0 at p = q for any
features. The distance of McGan is a norm, of which this holds as the batch grows.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from vaeflow.build import Count, Fraction, Natural, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.objectives.adversarial import FIVE, TINY, Adversarial, Critic, gradient_penalty
from vaeflow.record import recorded


@recorded
def mcgan(*, features: Count = 16, covariance: NonNegative = 1.0, rank: Natural = 0) -> Adversarial:
    """McGan (Mroueh et al. 2017, arXiv 1702.08398): |E h(x) - E h(y)|_2 + covariance * the sum of the largest singular values of
    E h(x) h(x)^T - E h(y) h(y)^T. These are the paper's maxima over a unit vector v and orthonormal U, V, taken exactly. Clipped as `wgan`.

    Args:
        features: m.
        covariance: weight of the second moments, which are not centred; 0: mean matching alone.
        rank: number of singular values, the largest ones; 0: all m.
    """

    def distance(f, x, y):
        a, b = f.out(x), f.out(y)
        found = jnp.sqrt(jnp.sum(jnp.square(jnp.mean(a, 0) - jnp.mean(b, 0))) + TINY)
        if covariance:
            found += covariance * jnp.sum(jnp.linalg.svd(a.T @ a / len(a) - b.T @ b / len(b), compute_uv=False)[: rank or features])
        return found

    def critic(f, key, x, y, stats):
        del key, stats
        return -distance(f, x, y)

    def generator(f, x, y, stats):
        del stats
        return distance(f, x, y)

    return Adversarial(critic, generator, outputs=features, turns=FIVE, clip=(-0.01, 0.01), kind="mcgan")


def _squares(a: Array, b: Array) -> Array:
    """|a_i - b_j|^2, [N, M]."""
    return jnp.sum(jnp.square(a[:, None] - b), -1)


def _others(table: Array) -> Array:
    """The mean of a table [N, N] without its diagonal."""
    n = len(table)
    return (jnp.sum(table) - jnp.trace(table)) / (n * (n - 1))


def mixture_mmd(a: Array, b: Array, bandwidths: tuple[float, ...]) -> Array:
    """Squared maximum mean discrepancy of a [N, m] and b [M, m], the unbiased estimate, with the kernel `_kernel`."""
    return _others(_kernel(a, a, bandwidths)) + _others(_kernel(b, b, bandwidths)) - 2 * jnp.mean(_kernel(a, b, bandwidths))


def _kernel(a: Array, b: Array, bandwidths: tuple[float, ...]) -> Array:
    """sum_s exp(-|a_i - b_j|^2 / (2 s^2)), [N, M]."""
    square = _squares(a, b)
    return sum((jnp.exp(-square / (2 * s**2)) for s in bandwidths), jnp.zeros(()))


def energy(a: Array, b: Array) -> Array:
    """2 E |a - b| - E |a - a'| - E |b - b'| of a [N, m] and b [M, m], the unbiased estimate."""

    def distance(u, v):
        return jnp.sqrt(_squares(u, v) + TINY)

    return 2 * jnp.mean(distance(a, b)) - _others(distance(a, a)) - _others(distance(b, b))


def _some(bandwidths: tuple[float, ...], kind: str) -> None:
    """UserError: there is no kernel."""
    if not bandwidths:
        raise UserError(f"{kind}: bandwidths=() is invalid; it must have at least one standard deviation")


@recorded
def gmmn(*, bandwidths: tuple[Positive, ...] = (2.0, 5.0, 10.0, 20.0, 40.0, 80.0)) -> Adversarial:
    """Generative moment matching (Li et al. 2015, arXiv 1502.02761): a mixture of Gaussian kernels of x itself, and no critic. The paper
    takes the root of the biased estimate, whose expected gradient is not 0 at p = q; here it is the unbiased MMD^2.

    Args:
        bandwidths: standard deviations of the kernels.
    """

    _some(bandwidths, "gmmn")

    def generator(f, x, y, stats):
        del f, stats
        return mixture_mmd(x.reshape(len(x), -1), y.reshape(len(y), -1), bandwidths)

    return Adversarial(None, generator, outputs=0, pairs=True, turns=(), kind="gmmn")


@recorded
def mmd(
    *,
    features: Count = 16,
    bandwidths: tuple[Positive, ...] = (1.0, 2.0, 4.0, 8.0, 16.0),
    reconstruction: NonNegative = 8.0,
    penalty: NonNegative = 0.0,
) -> Adversarial:
    """MMD GAN (Li et al. 2017, arXiv 1705.08584): a learned kernel k(h(x), h(y)), h kept injective by a decoder.

    The paper clips the encoder to [-0.01, 0.01]; clip_weights of the group `critic` clips the decoder too. The penalty takes its place
    (Binkowski et al. 2018, arXiv 1801.01401): of the gradient of the witness E_x k(h(.), h(x)) - E_y k(h(.), h(y)). The authors' program
    takes the root of the biased estimate of MMD^2, and adds a hinge of the means of h; here are neither.

    Args:
        features: m.
        bandwidths: of the Gaussian kernels, whose sum is k.
        reconstruction: weight of the decoder's squared errors of x and of y; 0: no decoder.
        penalty: weight of the gradient penalty; 0: none, and the critic is clipped.
    """

    _some(bandwidths, "mmd")

    def witness(f, at, a, b):
        h = f.out(at)
        return jnp.mean(_kernel(h, a, bandwidths), 1) - jnp.mean(_kernel(h, b, bandwidths), 1)

    def critic(f, key, x, y, stats):
        del stats
        a, b = f.out(x), f.out(y)
        loss = -mixture_mmd(a, b, bandwidths)
        if reconstruction:
            loss += reconstruction * (_error(f, x, a) + _error(f, y, b))
        return loss + penalty * gradient_penalty(lambda at: witness(f, at, a, b), key, x, y) if penalty else loss

    return Adversarial(
        critic,
        lambda f, x, y, stats: mixture_mmd(f.out(x), f.out(y), bandwidths),
        outputs=features,
        decodes=reconstruction > 0,
        pairs=True,
        penalised=penalty > 0,
        turns=FIVE,
        clip=() if penalty else (-0.01, 0.01),
        kind="mmd",
    )


@recorded
def cramer(*, features: Count = 16, weight: NonNegative = 10.0) -> Adversarial:
    """Cramer GAN (Bellemare et al. 2017, arXiv 1705.10743, algorithm 1): the critic's surrogate is of f(x) = E_y |h(x) - h(y)| - |h(x)|,
    which needs no second draw of the data; the generator minimises the energy distance itself, never the surrogate.

    Args:
        features: m.
        weight: of the gradient penalty of f.
    """

    def norm(a):
        return jnp.sqrt(jnp.sum(jnp.square(a), -1) + TINY)

    def critic(f, key, x, y, stats):
        del stats
        a, b = f.out(x), f.out(y)

        def apart(u):
            return jnp.sqrt(_squares(u, b) + TINY)

        def surrogate(at):
            h = f.out(at)
            return jnp.mean(apart(h), 1) - norm(h)

        value = jnp.mean(apart(a)) - jnp.mean(norm(a)) - _others(apart(b)) + jnp.mean(norm(b))
        return weight * gradient_penalty(surrogate, key, x, y) - value

    def generator(f, x, y, stats):
        del stats
        return energy(f.out(x), f.out(y))

    return Adversarial(critic, generator, outputs=features, pairs=True, penalised=True, turns=FIVE, kind="cramer")


def _error(f: Critic, x: Array, codes: Array, power: int = 2) -> Array:
    """E |x - r(codes)|^power, the mean over dimensions too."""
    return jnp.mean(jnp.abs(x - f.decode(codes)) ** power)


@recorded
def ebgan(*, margin: Positive = 1.0, pull_away: NonNegative = 0.0, features: Count = 16) -> Adversarial:
    """Energy-based GAN (Zhao et al. 2017, arXiv 1609.03126): D is the error of an autoencoder, mean squares over dimensions.

    Args:
        margin: above it the critic does not raise the error of y; in units of D.
        pull_away: weight in the generator's loss of the mean squared cosine between the codes of two y (0.1 in the paper); 0: none.
        features: size of the codes.
    """

    def critic(f, key, x, y, stats):
        del key, stats
        return _energy(f, x) + jax.nn.relu(margin - _energies(f, y)).mean()

    def generator(f, x, y, stats):
        del x, stats
        return _energy(f, y) + pull_away * _cosines(f.out(y)) if pull_away else _energy(f, y)

    return Adversarial(critic, generator, outputs=features, decodes=True, pairs=pull_away > 0, kind="ebgan")


@recorded
def began(
    *, gamma: Fraction = 0.5, rate: Positive = 1e-3, error: Literal["absolute", "squared"] = "absolute", features: Count = 16
) -> Adversarial:
    """Boundary equilibrium GAN (Berthelot et al. 2017, arXiv 1703.10717): k <- clip(k + rate (gamma D(x) - D(y)), 0, 1), k_0 = 0. Both
    players are updated in every step, as in the paper.

    Args:
        gamma: E D(y) / E D(x) at the equilibrium, the diversity ratio.
        rate: of k.
        error: of the autoencoder, a mean over dimensions.
        features: size of the codes.
    """
    power = 2 if error == "squared" else 1

    def critic(f, key, x, y, stats):
        del key
        return _energy(f, x, power) - stats["k"] * _energy(f, y, power)

    def update(f, x, y, stats):
        moved = stats["k"] + rate * (gamma * _energy(f, x, power) - _energy(f, y, power))
        return {"k": jnp.clip(moved, 0.0, 1.0)}

    def generator(f, x, y, stats):
        del x, stats
        return _energy(f, y, power)

    return Adversarial(critic, generator, features, True, {"k": 0.0}, update, turns=(), kind="began")


@recorded
def magan(*, every: Count = 500, features: Count = 16) -> Adversarial:
    """Margin adaptation (Wang et al. 2017, arXiv 1704.03817, algorithm 1): EBGAN whose margin falls to the mean of D(x) over an epoch, if
    that is below the margin and below the mean of D(y), and the mean of D(y) has risen since the epoch before.

    In the first epoch the critic minimises D(x) alone, the paper's pretraining; the generator learns in it too, other than there.

    Args:
        every: training steps of an epoch.
        features: size of the codes.
    """

    def critic(f, key, x, y, stats):
        del key
        return _energy(f, x) + jax.nn.relu(stats["margin"] - _energies(f, y)).mean()

    def update(f, x, y, stats):
        real, fake, count = stats["real"] + _energy(f, x), stats["fake"] + _energy(f, y), stats["count"] + 1
        ends, first = count % every == 0, count == every
        a, b = real / every, fake / every
        falls = first | ((a < stats["margin"]) & (a < b) & (stats["before"] < b))
        return {
            "margin": jnp.where(ends & falls, a, stats["margin"]),
            "before": jnp.where(ends, b, stats["before"]),
            "real": jnp.where(ends, 0.0, real),
            "fake": jnp.where(ends, 0.0, fake),
            "count": count,
        }

    start: dict[str, float] = dict(margin=0.0, before=0.0, real=0.0, fake=0.0, count=0.0)
    return Adversarial(critic, lambda f, x, y, stats: _energy(f, y), features, True, start, update, kind="magan")


def _energies(f: Critic, x: Array) -> Array:
    """The mean squared error [B] of the reconstructions of x."""
    return jnp.mean(jnp.square(x - f.decode(f.out(x))).reshape(len(x), -1), -1)


def _energy(f: Critic, x: Array, power: int = 2) -> Array:
    """D(x), the mean over the batch."""
    return _error(f, x, f.out(x), power)


def _cosines(codes: Array) -> Array:
    """The mean squared cosine between two codes (the pull-away term of EBGAN, its section 2.4)."""
    unit = codes / jnp.sqrt(jnp.sum(jnp.square(codes), -1, keepdims=True) + TINY)
    return _others(jnp.square(unit @ unit.T))
