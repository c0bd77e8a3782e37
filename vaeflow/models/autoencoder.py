"""Autoencoder of images whose latent is a smaller image: stage 1 of a latent diffusion (Rombach et al. 2022, 2112.10752, section 3.1).

    q(z|x) = N(m(x), diag s(x)^2), z an image [h, w, latent];    p(z) = N(0, I);    p(x|z) from the decoder
    loss = -E_q[log p(x|z)] + kl_weight KL(q(z|x) || p(z)) [+ perceptual + adversarial terms, models/parts/reconstruction.py]

A `vae` with a small KL weight, which keeps the scale of z from growing without end, and of which p(z) is no good prior. A `vq` is the same
with codes. Both are what `two_stage` builds on.
"""

from __future__ import annotations

from typing import Annotated

from vaeflow import objectives
from vaeflow.build import SAMPLING, Count, Natural, NonNegative, Positive
from vaeflow.distributions import Likelihood
from vaeflow.errors import UserError
from vaeflow.model import Frozen, Model
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.reconstruction import reconstruction
from vaeflow.models.vae import vae_of
from vaeflow.nets import Net
from vaeflow.objectives import Adversarial
from vaeflow.record import recorded


@recorded
def autoencoder(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latent: Count,
    grid: tuple[Count, ...],
    encoder: Net,
    decoder: Net,
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    kl_weight: NonNegative = 1e-6,
    perceptual: Frozen | None = None,
    perceptual_weight: NonNegative = 1.0,
    critic: Net | None = None,
    patches: tuple[Count, ...] = (),
    adversarial: Adversarial | None = None,
    critic_weight: NonNegative = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. Parameters: encoder, decoder, critic, fixed["perceptual"].

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        latent, grid: numbers of z per position; the positions (h, w).
        encoder, decoder: networks x -> [h, w, 2 latent] and [h, w, latent] -> x, such as downsample and upsample.
        likelihood, likelihood_std: p(x|z), see vaeflow/distributions.py.
        kl_weight: of the KL, in nats.
        perceptual, perceptual_weight: a run of a classifier of these data, whose features of x and its reconstruction are compared.
        critic, patches: a network image -> scores on the grid `patches`, by which reconstructions are told from data; None: no such term.
        adversarial, critic_weight: the game of both, of scores of single patches; None: hinge. Weight of its term.
        temperature: of `sample`: factor of the noise of N(0, I).

    Raises:
        UserError: the grid is empty; a term does not fit, see models/parts/reconstruction.py.

    Example:
        model = autoencoder(event=(8, 8, 1), levels=17, latent=2, grid=(4, 4), encoder=downsample(channels=(32,)),
                            decoder=upsample(channels=(32,)), likelihood="discretized_logistic")
    """
    if not grid:
        raise UserError("model.grid=() is invalid; it must be (height, width)")
    data = observation_model(event, levels, likelihood, likelihood_std)
    return vae_of(
        event=event,
        levels=levels,
        latent=latent,
        encoder=encoder,
        decoder=decoder,
        std="softplus",
        std_bound=10.0,
        likelihood=likelihood,
        likelihood_std=likelihood_std,
        temperature=temperature,
        objective=objectives.OBJECTIVES["elbo"](beta=kl_weight),
        grid=grid,
        sharp=reconstruction(data, event, levels, perceptual, perceptual_weight, critic, patches, adversarial, critic_weight),
    )


_EXAMPLE = dict(event=(4, 4, 1), levels=17, latent=2, grid=(2, 2), encoder="downsample", decoder="upsample")
EXAMPLES = (_EXAMPLE | dict(likelihood="discretized_logistic", critic="downsample", patches=(2, 2), adversarial="lsgan"),)
