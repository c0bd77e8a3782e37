"""What premade models share: the data end of a flow, the likelihood of a VAE, the network of a continuous-time model, checks of events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from vaeflow.bijectors import Layer, Memory, actnorm, chain, logit, repeat, scale
from vaeflow.distributions import Likelihood
from vaeflow.errors import UserError
from vaeflow.nets import Net, mlp, unet

Event = tuple[int, ...]
AutoLikelihood = Literal["auto", "bernoulli", "bernoulli_intensities", "gaussian", "gaussian_learned", "discretized_logistic"]


def data_end(levels: int) -> tuple[Layer, ...]:
    """The first layers of a flow, from the data on, after which its input is real and of about unit scale: x / levels, a logit and ActNorm
    for dequantised grey values (levels > 0), ActNorm alone for continuous data."""
    return (scale(factor=float(levels)), logit(), actnorm()) if levels else (actnorm(),)


def likelihood_for(levels: int, name: AutoLikelihood) -> Likelihood:
    """The likelihood called `name`; auto: Bernoulli for binary data (levels = 2), a discretised logistic for other grey values, a
    Gaussian with a learned standard deviation for continuous data (levels = 0)."""
    if name != "auto":
        return name
    return "gaussian_learned" if levels == 0 else "bernoulli" if levels == 2 else "discretized_logistic"


def continuous_coordinates(levels: int) -> dict[str, Any]:
    """{"layer", "sigma_data"} of a continuous-time model: grey values scaled to [-1, 1] with the standard deviation of images, 0.5;
    continuous data of unit scale by the first batch."""
    if levels:
        return dict(layer=scale(shift=levels / 2, factor=levels / 2), sigma_data=0.5)
    return dict(layer=actnorm(), sigma_data=1.0)


def network(event: Event, given: Net | None) -> Net:
    """`given`, or else the network of a continuous-time model: a U-Net for images, fully connected otherwise."""
    if given is not None:
        return given
    return unet(channels=32, blocks=1) if len(event) == 3 else mlp(hidden=(128, 128, 128), activation="silu")


def pairs(coupling: Callable[[bool], Layer], layers: int, *before: Layer, memory: Memory = "store") -> Layer:
    """`layers` couplings that move the two parts of an event in turn.

    Args:
        coupling: flip -> the coupling layer.
        layers: number of couplings, at least 1.
        before: layers at the data end of each pair.
        memory: what training keeps of the pairs, see `repeat`.
    """
    both = (repeat(chain(*before, coupling(False), coupling(True)), layers // 2, memory),) if layers > 1 else ()
    return chain(*both, *((*before, coupling(False)) if layers % 2 else ()))


def size_of(event: Event) -> int:
    """Number of dimensions of an event."""
    return math.prod(event)


def check_splits(name: str, event: Event) -> None:
    """UserError: the event is a single number, which a coupling cannot split."""
    if size_of(event) < 2:
        raise UserError(f"flows.{name}: event={event} is a single number, which a coupling cannot split; use nsf, nsf_ar, naf or maf")


def check_image(name: str, event: Event, factor: int = 1, of: str = "") -> None:
    """UserError: the event is not an image [H, W, C], or `factor`, which the argument `of` requires, does not divide H and W."""
    if len(event) != 3:
        raise UserError(f"flows.{name}: event={event} must be an image [H, W, C]")
    if event[0] % factor or event[1] % factor:
        raise UserError(f"flows.{name}: {of} needs a height and a width that are multiples of {factor}; event={event}")
