"""Premade hierarchical variational autoencoders, inferred from the top down (vaeflow/models/ladder.py)."""

from __future__ import annotations

from typing import Annotated

from vaeflow import models
from vaeflow.build import SAMPLING, TRACED, Count, Natural, NonNegative, Positive
from vaeflow.flows.ends import AutoLikelihood, check_image, likelihood_for
from vaeflow.model import Model
from vaeflow.objectives import OBJECTIVES, SCHEDULES, Schedule
from vaeflow.record import recorded


@recorded
def ladder(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latents: tuple[Count, ...] = (16, 12, 8, 6, 4),
    width: Count = 128,
    warmup: Natural = 1000,
    likelihood: AutoLikelihood = "auto",
    likelihood_std: Positive = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Ladder VAE (Sonderby et al. 2016, arXiv 1602.02282): fully connected, inferred from the top down with precision-weighted posteriors.
    `vdvae` is the convolutional one.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data. Images are flattened.
        latents: dimensions of the levels z_1 (next to the data), z_2, ...
        width: units of the networks.
        warmup: steps over which the weight of the KL divergence rises from 0 to 1, without which the upper levels stay unused; 0: none.
        likelihood: p(x|z); auto: by `levels`, see ends.py.
        likelihood_std: of the likelihood gaussian; the initial one of gaussian_learned.
        temperature: of `sample`: factor of every standard deviation of p(z).

    Returns: A Model whose log_prob is a log-weight (its mean is the ELBO).

    Raises:
        UserError: an event that is neither a vector nor an image; a likelihood that does not fit `levels`.

    Example:
        model = ladder(event=(8, 8, 1), levels=17)
    """
    to_vector = max(event[:2]) if len(event) == 3 else 1  # the first level sees the whole image as one pixel
    return models.ladder.ladder(
        event=event,
        levels=levels,
        strides=(to_vector, *(1 for _ in latents[1:])),
        blocks=tuple(1 for _ in latents),
        latents=latents,
        width=width,
        posterior="weighted",
        likelihood=likelihood_for(levels, likelihood),
        likelihood_std=likelihood_std,
        objective=OBJECTIVES["elbo"](beta=SCHEDULES["linear"](steps=warmup) if warmup else 1.0),
        temperature=temperature,
    )


@recorded
def vdvae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    strides: tuple[Count, ...] = (2, 2, 2),
    blocks: tuple[Count, ...] = (1, 2, 2),
    latents: tuple[Count, ...] = (1, 2, 4),
    width: Count = 32,
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    likelihood: AutoLikelihood = "auto",
    likelihood_std: Positive = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Convolutional ladder VAE, a small VDVAE (Child 2021, arXiv 2011.10650): levels at several resolutions, inferred from the top down.

    Args:
        event, levels: the shape [H, W, C] of one example; number of its grey values, 0 for continuous data.
        strides: one for each scale, from the data up: how many times coarser a scale is than the one below.
        blocks: levels at each scale.
        latents: channels of a level at each scale.
        width: channels of the networks.
        beta: weight of the KL divergence in the loss, a number or a schedule.
        likelihood: p(x|z); auto: by `levels`, see ends.py.
        likelihood_std: of the likelihood gaussian; the initial one of gaussian_learned.
        temperature: of `sample`: factor of every standard deviation of p(z).

    Returns: A Model whose log_prob is a log-weight (its mean is the ELBO).

    Raises:
        UserError: an event that is not an image; numbers of strides, blocks and latents that differ.

    Example:
        model = vdvae(event=(32, 32, 3), levels=256, strides=(2, 2, 2, 2), blocks=(2, 4, 4, 2), latents=(2, 4, 8, 16), width=64)
    """
    check_image("vdvae", event)
    return models.ladder.ladder(
        event=event,
        levels=levels,
        strides=strides,
        blocks=blocks,
        latents=latents,
        width=width,
        likelihood=likelihood_for(levels, likelihood),
        likelihood_std=likelihood_std,
        objective=OBJECTIVES["elbo"](beta=beta),
        temperature=temperature,
    )


EXAMPLES = {
    ladder: dict(event=(4,), levels=2, latents=(2, 1), width=4, warmup=10),
    vdvae: dict(event=(4, 4, 1), levels=17, strides=(2, 2), blocks=(1, 1), latents=(1, 2), width=4),
}
