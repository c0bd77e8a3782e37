"""Mixture of flows: K copies of one flow with their own parameters and learned weights.

    log p(x|c) = logsumexp_k (log pi_k + log p_k(x|c)),        p_k the image of the base under the k-th copy of the layer

The copies run under one vmap, so compile time does not grow with K; a sample chooses its component. What one flow must connect by thin
bridges of density, separate components need not.
"""

from __future__ import annotations

import math
from typing import Annotated

from vaeflow.bijectors import Layer
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative
from vaeflow.model import Model
from vaeflow.models.parts.bases import Base, normal
from vaeflow.models.parts.density import mixture, model_of, pushforward
from vaeflow.models.parts.dequantize import Dequantize, make_dequantizer
from vaeflow.record import recorded


@recorded
def flow_mixture(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    layer: Layer,
    base: Annotated[Base | None, Bare("normal")] = None,
    components: Count = 8,
    dequantize: Dequantize = "auto",
    dequantizer: Layer | None = None,
    flatten: bool = True,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring. Parameters: weights, components (stacked), dequantizer.

    Args:
        event: the shape of one example.
        levels: number of its grey values; 0: continuous data.
        layer: f; every component has its own copy of the parameters.
        base: the distribution at the latent end, see bases.py; None: N(0, I).
        components: K.
        dequantize: auto (uniform for grey values, none for continuous data), none, uniform or variational.
        dequantizer: the layer of variational dequantisation; None for every other.
        flatten: whether the layer sees vectors [B, D] instead of [B, *event]; the same for an event that is a vector.
        temperature: of `sample`, see bases.py.
    """
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape, dequantizer)
    return model_of(mixture(pushforward(layer, base or normal(), shape), components), grey, event, levels, temperature, shape)


_EXAMPLE = dict(event=(4,), layer="layer", components=3)
EXAMPLES = (_EXAMPLE, _EXAMPLE | dict(event=(2, 2, 1), levels=17, layer="norm"))
