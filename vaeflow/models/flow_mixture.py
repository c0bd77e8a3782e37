"""Mixture of flows: K copies of one flow with their own parameters and learned weights.

    log p(x|c) = logsumexp_k (log pi_k + log p_k(x|c)),        p_k the image of the base under the k-th copy of the layer

The copies run under one vmap, so compile time does not grow with K; a sample chooses its component. What one flow must connect by thin
bridges of density, separate components need not.
"""

from __future__ import annotations

import math

from vaeflow.bijectors import Layer
from vaeflow.build import Count, Natural, NonNegative
from vaeflow.model import Model
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.density import mixture, model_of, pushforward
from vaeflow.models.parts.dequantize import Dequantize, make_dequantizer


def flow_mixture(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    layer: Layer,
    base: Base,
    components: Count,
    dequantize: Dequantize,
    dequantizer: Layer | None,
    flatten: bool,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring. components: K; the rest as in flow.py. Parameters: weights, components (stacked), dequantizer."""
    shape = (math.prod(event),) if flatten else event
    grey = make_dequantizer(dequantize, levels, event, shape, dequantizer)
    return model_of(mixture(pushforward(layer, base, shape), components), grey, event, levels, temperature, shape)


_EXAMPLE = dict(event=(4,), levels=0, layer="layer", base="normal", components=3, dequantize="none", dequantizer="", flatten=False)
EXAMPLES = (
    _EXAMPLE | dict(temperature=1.0),
    _EXAMPLE | dict(temperature=1.0, event=(2, 2, 1), levels=17, layer="norm", dequantize="uniform", flatten=True),
)
