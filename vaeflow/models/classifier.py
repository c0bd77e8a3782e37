"""Classifier p(label | x): a network, a ReLU and a linear layer over the classes.

    h(x) = relu(net((x - shift) / scale))                 the features [B, F], which `encode` gives
    p(label | x) = softmax(W h + b)
    loss = -(1 - s) log p(label | x) - s mean_c log p(c | x)        s the label smoothing (Szegedy et al. 2016, arXiv:1512.00567)

x are intensities in [0, 1] where the data have grey values. shift and scale are the mean and standard deviation of the batch that `init`
sees: of all entries of images, of each entry of other events.

It has no density and draws nothing. `terms`, per example: loss and label_cross_entropy, both -log p(label | x) in nats without smoothing
(`best` is selected by it); accuracy, 1 where the most probable class is the label.

Parameters: `network`; `standardize`, the shift and the scale, which are not trained.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax

from vaeflow.build import Count, Decay, Natural
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Batch, Model, Params, overlay
from vaeflow.nets import Net
from vaeflow.nets.classes import ClassLogits

# An entry with a smaller standard deviation in the first batch is only shifted.
_CONSTANT = 1e-6


def classifier(
    *, event: tuple[Count, ...], levels: Natural = 0, classes: Count, features: Count = 64, net: Net, smoothing: Decay = 0.0
) -> Model:
    """See the module's docstring.

    Args:
        event: the shape of one example.
        levels: number of its grey values; 0: continuous data.
        classes: number of classes; labels are 0 .. classes - 1.
        features: F, the width of the layer below the logits.
        net: the network from x to the features.
        smoothing: s, the share of the target that is spread over all classes, in training only.

    Example:
        model = classifier(event=(8, 8, 1), levels=17, classes=10, net=conv(channels=(16, 32)))
        h = model.encode(params, key, {"x": x})
    """
    network = ClassLogits(lambda: net.module((features,), len(event), False), classes)
    top = max(levels - 1, 1)

    def scaled(x: Any) -> Array:
        x = jnp.asarray(x)
        return (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))) / top

    def outputs(params: Params, batch: Batch) -> tuple[Array, Array]:
        """(features [B, F], logits [B, classes])."""
        own = params["standardize"]["fixed"]
        found: Any = network.apply({"params": params["network"]}, (scaled(batch["x"]) - own["shift"]) / own["scale"])
        return found

    def init(key, batch, given=NO_PARAMS):
        _label(batch)
        x = scaled(batch["x"])
        if x.shape[1:] != tuple(event):
            raise UserError(f"model.event={tuple(event)} does not fit the data, whose examples have the shape {x.shape[1:]}")
        params = overlay({"standardize": {"fixed": standardization(x)}}, given)
        own = params["standardize"]["fixed"]
        return overlay(params | {"network": network.init(key, (x - own["shift"]) / own["scale"])["params"]}, given)

    def loss(params, key, batch, step):
        del key, step
        label, (_, logits) = _label(batch), outputs(params, batch)
        target = optax.smooth_labels(jnp.eye(classes)[label], smoothing) if smoothing else None
        each = _cross_entropy(logits, label) if target is None else optax.softmax_cross_entropy(logits, target)
        total = each.mean()
        return total, {"loss": total, "accuracy": _correct(logits, label).mean()}

    def terms(params, key, batch):
        del key
        label, (_, logits) = _label(batch), outputs(params, batch)
        each = _cross_entropy(logits, label)
        return {"loss": each, "label_cross_entropy": each, "accuracy": _correct(logits, label)}

    def encode(params, key, batch):
        del key
        return outputs(params, batch)[0]

    return Model(init, loss, None, None, "none", encode=encode, terms=terms, event=event, levels=levels, classes=classes)


def standardization(x: Any) -> dict[str, Array]:
    """{shift, scale} of intensities [N, *event], numpy or jax: scalars of images [N, H, W, C], else of the event's shape; float32.

    The scale is 1 where x is constant.
    """
    axis = None if x.ndim == 4 else 0
    shift, scale = x.mean(axis), x.std(axis)
    return {"shift": jnp.asarray(shift, jnp.float32), "scale": jnp.where(scale > _CONSTANT, scale, 1.0).astype(jnp.float32)}


def _label(batch: Batch) -> Array:
    if "label" not in batch:
        raise UserError("a classifier learns labels, and this batch has no label")
    return jnp.asarray(batch["label"])


def _cross_entropy(logits: Array, label: Array) -> Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def _correct(logits: Array, label: Array) -> Array:
    return (logits.argmax(-1) == label).astype(jnp.float32)


_EXAMPLE = dict(event=(4,), classes=3, features=6, net="net")
EXAMPLES = (_EXAMPLE, _EXAMPLE | dict(event=(4, 4, 1), levels=17, net="conv", smoothing=0.1))
