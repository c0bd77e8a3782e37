"""A network with a linear layer over classes on top: features, and the logits that they give."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from vaeflow.model import Array


class ClassLogits(nn.Module):
    """h = relu(net(x, context)), logits = W h + b: x [..., *event], context [..., C] if any -> (h [..., F], logits [..., classes]).

    net: () -> the module x -> [..., F]. A function, because linen would name a module after the field: its parameters, their initial
        values and the classifiers in users' caches have the name of its class.
    """

    net: Callable[[], nn.Module]
    classes: int

    @nn.compact
    def __call__(self, x: Array, *context: Array) -> tuple[Array, Array]:
        h = nn.relu(self.net()(x, *context))
        return h, nn.Dense(self.classes, name="classes")(h)
