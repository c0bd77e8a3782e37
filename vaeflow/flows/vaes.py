"""Premade variational autoencoders, of vectors and images; ladders.py has the hierarchical ones.

The likelihood fits the data unless one is named (`likelihood_for` in ends.py); continuous data should be of about unit scale.
"""

from __future__ import annotations

from typing import Annotated, Literal

from vaeflow import models
from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, TRACED, Count, Natural, NonNegative, Positive
from vaeflow.errors import UserError
from vaeflow.flows.autoregressive import masked_layers
from vaeflow.flows.couplings import affine_layers, spline_layers
from vaeflow.flows.ends import AutoLikelihood, Event, check_splits, likelihood_for
from vaeflow.model import Model
from vaeflow.nets import Net, causal_transformer, conv, deconv, downsample, mlp, upsample
from vaeflow.objectives import OBJECTIVES, Schedule
from vaeflow.record import recorded

Network = Literal["mlp", "conv"]
Prior = Literal["normal", "realnvp", "nsf", "maf"]


def _networks(name: str, net: Network, event: Event, hidden: tuple[int, ...], channels: tuple[int, ...]) -> tuple[Net, Net]:
    """(encoder, decoder), the decoder with the encoder's widths reversed."""
    if net == "mlp":
        return mlp(hidden=hidden), mlp(hidden=hidden[::-1])
    if len(event) != 3:
        raise UserError(f"flows.{name}: net='conv' needs images [H, W, C], and event={event}; use net='mlp'")
    return conv(channels=channels, hidden=hidden), deconv(channels=channels[::-1], hidden=hidden[::-1])


def _prior(name: Prior, latent: int) -> Layer | None:
    """The layer of a VAE's prior on vectors [latent]; None: N(0, I)."""
    if name == "realnvp":
        check_splits("vae with prior='realnvp'", (latent,))
        return affine_layers(4, (64, 64), 2.0)
    if name == "nsf":
        return spline_layers(latent, 4, 8, 4.0, (64, 64))
    return masked_layers(4, (64, 64), 2.0) if name == "maf" else None


@recorded
def vae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latent: Count = 8,
    net: Network = "mlp",
    hidden: tuple[Count, ...] = (256,),
    channels: tuple[Count, ...] = (16, 32),
    beta: Annotated[Schedule | NonNegative, TRACED] = 1.0,
    prior: Prior = "normal",
    likelihood: AutoLikelihood = "auto",
    likelihood_std: Positive = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """VAE with a Gaussian posterior and the prior N(0, I) (Kingma and Welling 2014, arXiv 1312.6114); a beta-VAE for beta other than 1
    (Higgins et al. 2017).

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        latent: number of latent dimensions.
        net: mlp, or conv for images: strided convolutions, then the hidden layers.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed.
        channels: of the encoder's convolutions of stride 2; the decoder has them reversed. Not of an mlp.
        beta: weight of the KL divergence in the loss, a number or a schedule.
        prior: normal, N(0, I), or that flow over it: 4 layers of flows.realnvp, flows.nsf or flows.maf, networks of 2 x 64.
        likelihood: p(x|z); auto: by `levels`, see ends.py.
        likelihood_std: of the likelihood gaussian; the initial one of gaussian_learned.
        temperature: of `sample`: factor of the prior's noise.

    Returns: A Model whose log_prob is a log-weight (its mean is the ELBO).

    Raises:
        UserError: net='conv' and the event is not an image; a likelihood that does not fit `levels`.

    Example:
        model = vae(event=(8, 8, 1), levels=17, latent=8)
    """
    encoder, decoder = _networks("vae", net, event, hidden, channels)
    return models.vae.vae(
        event=event,
        levels=levels,
        latent=latent,
        encoder=encoder,
        decoder=decoder,
        prior=_prior(prior, latent),
        likelihood=likelihood_for(levels, likelihood),
        likelihood_std=likelihood_std,
        objective=OBJECTIVES["elbo"](beta=beta),
        temperature=temperature,
    )


@recorded
def iwae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latent: Count = 8,
    k: Count = 5,
    net: Network = "mlp",
    hidden: tuple[Count, ...] = (256,),
    channels: tuple[Count, ...] = (16, 32),
    likelihood: AutoLikelihood = "auto",
    likelihood_std: Positive = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """Importance-weighted autoencoder (Burda et al. 2016, arXiv 1509.00519): the networks of `vae`, trained by the bound of k draws.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        latent: number of latent dimensions.
        k: number of draws of the bound in training.
        net: mlp, or conv for images: strided convolutions, then the hidden layers.
        hidden: widths of the encoder's hidden layers; the decoder has them reversed.
        channels: of the encoder's convolutions of stride 2; the decoder has them reversed. Not of an mlp.
        likelihood: p(x|z); auto: by `levels`, see ends.py.
        likelihood_std: of the likelihood gaussian; the initial one of gaussian_learned.
        temperature: of `sample`: factor of the prior's noise.

    Returns: A Model whose log_prob is a log-weight: the log of a mean of exp of k of them is the bound.

    Raises:
        UserError: net='conv' and the event is not an image; a likelihood that does not fit `levels`.

    Example:
        model = iwae(event=(8, 8, 1), levels=17, k=50)
    """
    encoder, decoder = _networks("iwae", net, event, hidden, channels)
    return models.vae.vae(
        event=event,
        levels=levels,
        latent=latent,
        encoder=encoder,
        decoder=decoder,
        likelihood=likelihood_for(levels, likelihood),
        likelihood_std=likelihood_std,
        objective=OBJECTIVES["iwae"](k=k),
        temperature=temperature,
    )


@recorded
def vq(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    codes: Count = 64,
    width: Count = 8,
    channels: tuple[Count, ...] = (16, 32),
    tokens: Count = 4,
    hidden: tuple[Count, ...] = (256,),
    prior_width: Count = 32,
    prior_depth: Count = 1,
    commitment: NonNegative = 0.0625,
    likelihood: AutoLikelihood = "auto",
    likelihood_std: Positive = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """VQ-VAE (van den Oord et al. 2017, arXiv 1711.00937): convolutional for images, fully connected for vectors; a causal transformer is
    the prior of the codes, trained at the same time.

    Args:
        event, levels: the shape of one example; number of its grey values, 0 for continuous data.
        codes: size of the codebook.
        width: dimensions of a code's vector.
        channels: of the encoder's convolutions of stride 2: n of them give an image [ceil(H / 2^n), ceil(W / 2^n)] of codes.
        tokens: number of codes of a vector.
        hidden: widths of the networks of vectors.
        prior_width, prior_depth: of the transformer.
        commitment: weight of the commitment term; the likelihood is a sum over the event, in nats.
        likelihood: p(x|codes); auto: by `levels`, see ends.py.
        likelihood_std: of the likelihood gaussian; the initial one of gaussian_learned.
        temperature: of `sample`: factor of the Gumbel noise of the prior's draws.

    Returns: A Model whose log_prob is a lower bound; it trains on one device.

    Example:
        model = vq(event=(8, 8, 1), levels=17, codes=64)
    """
    if image := len(event) == 3:
        encoder, decoder = downsample(channels=channels), upsample(channels=channels[::-1])
    else:
        encoder, decoder = mlp(hidden=hidden), mlp(hidden=hidden[::-1])
    return models.vq.vq(
        event=event,
        levels=levels,
        grid=tuple(-(-side // 2 ** len(channels)) for side in event[:2]) if image else (tokens,),
        codes=codes,
        width=width,
        encoder=encoder,
        decoder=decoder,
        prior=causal_transformer(width=prior_width, depth=prior_depth),
        likelihood=likelihood_for(levels, likelihood),
        likelihood_std=likelihood_std,
        commitment=commitment,
        temperature=temperature,
    )


_GREY = dict(event=(4, 4, 1), levels=17)
EXAMPLES = {
    vae: _GREY | dict(latent=2, net="conv", hidden=(4,), channels=(2,)),
    iwae: dict(event=(4,), latent=2, k=2, hidden=(8,)),
    vq: _GREY | dict(codes=4, width=2, channels=(4,), prior_width=4),
}
