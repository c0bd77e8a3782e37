"""Normalizing flow: p(x) is the image of a base under a Layer, on vectors, images or images taken as vectors.

    log p(x|c) = log base(f^-1(x)|c) + log |det d f^-1 / dx|,        c the context (optional), f the layer's `forward`

Grey values (`dequantize`) are made continuous first, see dequantize.py. Scaling and logit are Layers at the data end of `layer`, so that
the density is with respect to the data as loaded.
"""

from __future__ import annotations

import math
from typing import Annotated

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, Count, Decay, Natural, NonNegative
from vaeflow.errors import UserError
from vaeflow.model import Model
from vaeflow.models.parts.bases import Base, normal
from vaeflow.models.parts.density import model_of, pushforward
from vaeflow.models.parts.dequantize import Dequantize, make_dequantizer
from vaeflow.models.parts.noised import noised
from vaeflow.record import recorded


@recorded
def flow(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layer: Layer,
    base: Annotated[Base | None, Bare("normal")] = None,
    dequantize: Dequantize = "auto",
    dequantizer: Layer | None = None,
    flatten: bool = True,
    noise: NonNegative = 0.0,
    label_drop: Decay = 0.0,
    denoise: Annotated[bool, SAMPLING] = True,
    guidance: Annotated[NonNegative, SAMPLING] = 1.0,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. `sample` gives data as loaded: of grey values the floor, clipped to 0..levels-1. Parameters: layer, base,
    dequantizer.

    Args:
        event: the shape of one example.
        levels: number of its grey values; 0: continuous data.
        layer: f, with the data at its data end.
        base: the distribution at the latent end, see bases.py; None: N(0, I).
        dequantize: auto (uniform for grey values, none for continuous data), none, uniform or variational.
        dequantizer: the layer of variational dequantisation; None for every other.
        flatten: whether the layer sees vectors [B, D] instead of [B, *event]; the same for an event that is a vector.
        noise: standard deviation of Gaussian noise that training adds to y; the density is that of noised data then (noised.py).
        label_drop: probability with which training hides the context, for guidance.
        denoise: whether samples of a flow with `noise` are denoised by its score.
        guidance: of samples, by layers that have it (patch_autoregressive); 1: none.
        temperature: of `sample`, see bases.py.

    Example:
        model = flow(event=(2,), layer=chain(actnorm(), affine_coupling(net=mlp(hidden=(64,)), mask="half")))
    """
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape, dequantizer)
    if guidance != 1 and not label_drop:
        raise UserError(f"sample.guidance={guidance:g} needs a model that was trained without its context too: model.label_drop > 0")
    if guidance != 1 and not layer.guided:
        raise UserError(f"sample.guidance={guidance:g} needs a layer that reads it; known: patch_autoregressive")
    density = noised(pushforward(layer, base or normal(), shape, guidance), noise, label_drop, denoise)
    model = model_of(density, grey, event, levels, temperature, shape)
    return model._replace(remark=f"of data with Gaussian noise of standard deviation {noise:g}, at data without it") if noise else model


_EXAMPLE = dict(event=(4,), layer="layer")
_GREY = _EXAMPLE | dict(event=(2, 2, 1), levels=17)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(layer="norm"),
    _GREY,
    _GREY | dict(dequantize="variational", dequantizer="layer", base="gaussian_mixture"),
    _EXAMPLE | dict(base="context_normal"),
    _EXAMPLE | dict(base="student_t"),
    _GREY | dict(layer="patches", flatten=False, noise=0.5, label_drop=0.2, guidance=2.0),
)
