"""Premade generative adversarial networks (vaeflow/models/gan.py): fully connected for vectors and small images.

`vaeflow.fit` trains them with the turns and the clipping that the objective needs (Model.optim). A config must have them:

    c.optim.update(b1=0.5, turns=("critic:5", "generator:1"))
"""

from __future__ import annotations

from typing import Annotated

from vaeflow import models
from vaeflow.bijectors import actnorm, scale
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative
from vaeflow.flows.ends import Event
from vaeflow.model import Model
from vaeflow.nets import mlp
from vaeflow.objectives import ADVERSARIAL, Adversarial
from vaeflow.record import recorded


def _gan(event: Event, levels: int, game: Adversarial, latent: int, hidden: tuple[int, ...], temperature: float) -> Model:
    net = mlp(hidden=hidden)
    return models.gan.gan(
        event=event,
        levels=levels,
        generator=net,
        critic=net if game.critic is not None else None,
        decoder=net if game.decodes else None,
        objective=game,
        latent=latent,
        layer=scale(shift=levels / 2, factor=levels / 2) if levels else actnorm(),
        temperature=temperature,
    )


@recorded
def gan(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    objective: Annotated[Adversarial | None, Bare("non_saturating")] = None,
    latent: Count = 8,
    hidden: tuple[Count, ...] = (128, 128, 128),
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """A GAN with any of the objectives of vaeflow/objectives/adversarial.py (Goodfellow et al. 2014, arXiv 1406.2661).

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        objective: the game of the two players.
        latent: dimensions of z.
        hidden: widths of the hidden layers of generator, critic and, where the objective has one, the critic's decoder.
        temperature: of `sample`: factor of z.

    Returns: A Model without a density.

    Example:
        run = vaeflow.fit(gan(event=(2,), objective="hinge"), x, steps=10_000)
    """
    return _gan(event, levels, objective or ADVERSARIAL["non_saturating"](), latent, hidden, temperature)


@recorded
def wgan_gp(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    weight: NonNegative = 10.0,
    drift: NonNegative = 1e-3,
    latent: Count = 8,
    hidden: tuple[Count, ...] = (128, 128, 128),
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """WGAN with a gradient penalty (Gulrajani et al. 2017, arXiv 1704.00028), and a small drift (Karras et al. 2018, 1710.10196).

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        weight: of the gradient penalty.
        drift: of the mean square of the critic on data.
        latent: dimensions of z.
        hidden: widths of the hidden layers of generator and critic.
        temperature: of `sample`: factor of z.

    Returns: A Model without a density.

    Example:
        run = vaeflow.fit(wgan_gp(event=(2,)), x, steps=12_000)  # five of six steps are the critic's
    """
    return _gan(event, levels, ADVERSARIAL["wgan_gp"](weight=weight, drift=drift), latent, hidden, temperature)


_EXAMPLE = dict(event=(3,), hidden=(8,), latent=2)
EXAMPLES = {gan: _EXAMPLE | dict(objective="lsgan"), wgan_gp: _EXAMPLE | dict(levels=17)}
