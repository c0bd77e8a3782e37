"""Adversarial objectives: what a critic and a generator minimise, given examples x of the data and y of the generator. Those of features
and of autoencoders are in adversarial_features.py.

    minimax         critic  E softplus(-f(x)) + E softplus(f(y))           generator  -E softplus(f(y))
    non_saturating  critic  the same                                       generator  E softplus(-f(y))
    lsgan           critic  1/2 E (f(x) - b)^2 + 1/2 E (f(y) - a)^2        generator  1/2 E (f(y) - c)^2
    hinge           critic  E max(0, 1 - f(x)) + E max(0, 1 + f(y))        generator  -E f(y)
    wgan, rwgan     critic  E f(y) - E f(x), its parameters clipped        generator  -E f(y)
    wgan_gp         critic  E f(y) - E f(x) + weight E (|grad f| - 1)^2    generator  -E f(y)
    fisher          critic  E f(y) - E f(x) - l (1 - W) + rho/2 (1 - W)^2  generator  -E f(y)
    mcgan           critic  -(|m_x - m_y| + weight |S_x - S_y|_*)          generator  that distance of moments of the features h
    gmmn            none                                                   generator  MMD^2(x, y)
    mmd             critic  -MMD^2(h(x), h(y)) + weight E |x - x^|^2       generator  MMD^2(h(x), h(y))
    cramer          critic  E f(y) - E f(x) + weight E (|grad f| - 1)^2    generator  the energy distance of h(x) and h(y)
    ebgan, magan    critic  D(x) + max(0, margin - D(y))                   generator  D(y)
    began           critic  D(x) - k D(y)                                  generator  D(y)

f is a score [B], h are features [B, m], x^ = r(h(x)) a reconstruction, and D(x) its error. f(x) = log D(x) - log(1 - D(x)) of the papers'
probabilities D. Every function is of a Critic, whose parameters are inside. Which player a loss trains is its caller's to say: it stops the
gradient of the other one's parameters (turns.py). Means are over a batch; on several devices over each one's share.

To add one: a maker of keyword-only, annotated arguments -> Adversarial, and its line in ADVERSARIAL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.build import NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.model import Array
from vaeflow.objectives.regularisers import critic_loss, fooling_loss
from vaeflow.record import recorded

Stats = dict[str, Array]
TINY = 1e-12  # added to squared norms, whose roots then have a gradient at 0
ALTERNATE, FIVE = ("critic:1", "generator:1"), ("critic:5", "generator:1")


class Critic(NamedTuple):
    """A critic with its parameters.

    out      x [B, *shape] -> [B, m]: the score (m = 1), features or codes
    decode   codes [B, m] -> [B, *shape]; not of critics without a decoder
    """

    out: Callable[[Array], Array]
    decode: Callable[[Array], Array]


class Adversarial(NamedTuple):
    """An adversarial objective; see the module's docstring.

    critic     (f, key, x, y, stats) -> what the critic minimises, its penalty included; None: there is no critic
    generator  (f, x, y, stats) -> what the generator minimises
    outputs    m of the critic; 1 for a score
    decodes    whether it reads `Critic.decode`
    stats      its scalars at the first step; update: (f, x, y, stats) -> the scalars of the next step
    pairs      whether it compares examples with each other, and so needs two of each
    penalised  whether it has a penalty on the gradient of f at single examples, which batch normalisation does not have
    turns      the paper's turns, see vaeflow/training/parameter_groups.py; (): both players are updated in every step
    clip       (low, high) of the critic's parameters after each of its updates, which the objective needs; (): none
    """

    critic: Callable[[Critic, Array, Array, Array, Stats], Array] | None
    generator: Callable[[Critic, Array, Array, Stats], Array]
    outputs: int = 1
    decodes: bool = False
    stats: Mapping[str, float] = MappingProxyType({})
    update: Callable[[Critic, Array, Array, Stats], Stats] | None = None
    pairs: bool = False
    penalised: bool = False
    turns: tuple[str, ...] = ALTERNATE
    clip: tuple[float, ...] = ()
    kind: str = ""
    spec: object = None  # how it was made, see record.py


def score(f: Critic, x: Array) -> Array:
    """f(x), [B]."""
    return f.out(x)[:, 0]


def enough(objective: Adversarial, n: int) -> None:
    """UserError: the objective compares pairs of examples, and n, the batch of a device, is one."""
    if objective.pairs and n < 2:
        raise UserError(f"data.batch gives a device 1 example, and the objective {objective.kind!r} compares at least 2 with each other")


def gradient_penalty(f: Callable[[Array], Array], key: Array, x: Array, y: Array) -> Array:
    """E (|grad f(u x + (1 - u) y)| - 1)^2, u uniform for each pair; f: [B, *shape] -> [B], one example at a time."""
    u = jax.random.uniform(key, (len(x), *(1 for _ in x.shape[1:])), x.dtype)
    slopes = jax.grad(lambda at: jnp.sum(f(at)))(y + u * (x - y)).reshape(len(x), -1)
    return jnp.mean(jnp.square(jnp.sqrt(jnp.sum(jnp.square(slopes), -1) + TINY) - 1))


@recorded
def minimax() -> Adversarial:
    """The minimax game (Goodfellow et al. 2014, arXiv 1406.2661): the generator minimises E log(1 - D(y))."""
    return Adversarial(_cross_entropy, lambda f, x, y, stats: -jnp.mean(jax.nn.softplus(score(f, y))), kind="minimax")


@recorded
def non_saturating() -> Adversarial:
    """The non-saturating game (Goodfellow et al. 2014, arXiv 1406.2661, section 3): the generator minimises -E log D(y)."""
    return Adversarial(_cross_entropy, lambda f, x, y, stats: fooling_loss(score(f, y)), kind="non_saturating")


def _cross_entropy(f, key, x, y, stats):
    del key, stats
    return critic_loss(score(f, x), score(f, y))


@recorded
def lsgan(*, a: float = 0.0, b: float = 1.0, c: float = 1.0) -> Adversarial:
    """Least squares (Mao et al. 2017, arXiv 1611.04076, eq. 2; eq. 9 is the default, and a = -1, b = 1, c = 0 the Pearson chi^2 of eq. 8).

    Args:
        a, b: the critic's targets for y and for x.
        c: the generator's target.
    """

    def critic(f, key, x, y, stats):
        del key, stats
        return (jnp.mean(jnp.square(score(f, x) - b)) + jnp.mean(jnp.square(score(f, y) - a))) / 2

    return Adversarial(critic, lambda f, x, y, stats: jnp.mean(jnp.square(score(f, y) - c)) / 2, kind="lsgan")


@recorded
def hinge() -> Adversarial:
    """The hinge loss (Lim and Ye 2017, arXiv 1705.02894)."""

    def critic(f, key, x, y, stats):
        del key, stats
        return jnp.mean(jax.nn.relu(1 - score(f, x))) + jnp.mean(jax.nn.relu(1 + score(f, y)))

    return Adversarial(critic, _lower_score, kind="hinge")


def _lower_score(f, x, y, stats):
    del x, stats
    return -jnp.mean(score(f, y))


def _difference(f, key, x, y, stats):
    del key, stats
    return jnp.mean(score(f, y)) - jnp.mean(score(f, x))


@recorded
def wgan() -> Adversarial:
    """Wasserstein GAN (Arjovsky et al. 2017, arXiv 1701.07875): the optimiser clips the critic's parameters to [-0.01, 0.01], or to the
    clip_weights of the group `critic`."""
    return Adversarial(_difference, _lower_score, turns=FIVE, clip=(-0.01, 0.01), kind="wgan")


@recorded
def rwgan() -> Adversarial:
    """Relaxed Wasserstein GAN (Guo et al. 2017, arXiv 1705.07164): the losses of `wgan`, and clip_weights that are not symmetric, which
    stand for the asymmetry of a Bregman cost. The interval here, (-0.01, 0.005), is ours: the paper's values were not read."""
    return Adversarial(_difference, _lower_score, turns=FIVE, clip=(-0.01, 0.005), kind="rwgan")


@recorded
def wgan_gp(*, weight: NonNegative = 10.0, drift: NonNegative = 0.0) -> Adversarial:
    """WGAN with a gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028, algorithm 1).

    Args:
        weight: of the penalty between x and y.
        drift: of E f(x)^2, which keeps f near 0 (Karras et al. 2018, arXiv 1710.10196: 1e-3).
    """

    def critic(f, key, x, y, stats):
        loss = _difference(f, key, x, y, stats) + weight * gradient_penalty(lambda at: score(f, at), key, x, y)
        return loss + drift * jnp.mean(jnp.square(score(f, x))) if drift else loss

    return Adversarial(critic, _lower_score, penalised=True, turns=FIVE, kind="wgan_gp")


@recorded
def fisher(*, rho: Positive = 1e-6) -> Adversarial:
    """Fisher GAN (Mroueh and Sercu 2017, arXiv 1705.09675): E f(x) - E f(y) under W = (E f(x)^2 + E f(y)^2) / 2 = 1, by an augmented
    Lagrangian with l <- l - rho (1 - W), of which the paper's program updates l in the critic's turns and this one in every step.

    Args:
        rho: weight of the penalty and rate of the multiplier l.
    """

    def slack(f, x, y):
        return 1 - (jnp.mean(jnp.square(score(f, x))) + jnp.mean(jnp.square(score(f, y)))) / 2

    def critic(f, key, x, y, stats):
        rest = slack(f, x, y)
        return _difference(f, key, x, y, stats) - stats["multiplier"] * rest + rho / 2 * jnp.square(rest)

    def update(f, x, y, stats):
        return {"multiplier": stats["multiplier"] - rho * slack(f, x, y)}

    return Adversarial(critic, _lower_score, stats={"multiplier": 0.0}, update=update, turns=FIVE, kind="fisher")
