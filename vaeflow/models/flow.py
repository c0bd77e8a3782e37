"""Normalizing flow: p(x) is the image of a base under a Layer, on vectors, images or images taken as vectors.

    log p(x|c) = log base(f^-1(x)|c) + log |det d f^-1 / dx|,        c the context (optional), f the layer's `forward`

Grey values (`dequantize`) are made continuous first, see dequantize.py. Scaling and logit are Layers at the data end of `layer`, so that
the density is with respect to the data as loaded.
"""

from __future__ import annotations

import math

from vaeflow.bijectors import Layer
from vaeflow.build import Count, Natural, NonNegative
from vaeflow.model import Model
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.density import model_of, pushforward
from vaeflow.models.parts.dequantize import Dequantize, make_dequantizer


def flow(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    layer: Layer,
    base: Base,
    dequantize: Dequantize,
    dequantizer: Layer | None,
    flatten: bool,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring.

    event        the shape of one example; levels: its number of grey values, 0 for continuous data
    dequantize   uniform or variational for grey values, none for continuous data; dequantizer: the layer of the variational one
    flatten      whether the layer sees vectors [B, D] instead of [B, *event]
    temperature  of `sample`: see bases.py

    `sample` gives data as loaded: of grey values the floor, clipped to 0..levels-1. Parameters: layer, base, dequantizer.
    """
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape, dequantizer)
    return model_of(pushforward(layer, base, shape), grey, event, levels, temperature, shape)


_EXAMPLE = dict(event=(4,), levels=0, layer="layer", base="normal", dequantize="none", dequantizer="", flatten=False, temperature=1.0)
_GREY = _EXAMPLE | dict(event=(2, 2, 1), levels=17, dequantize="uniform", flatten=True)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(layer="norm"),
    _GREY,
    _GREY | dict(dequantize="variational", dequantizer="layer", base="gaussian_mixture"),
    _EXAMPLE | dict(base="context_normal"),
    _EXAMPLE | dict(base="student_t"),
)
