"""Classifier p(label | x): a network, a ReLU and a linear layer over the classes.

    h(x) = relu(net((x - shift) / scale))                 the features [B, F], which `encode` gives
    p(label | x) = softmax(W h + b)
    loss = -(1 - s) log p(label | x) - s mean_c log p(c | x)        s the label smoothing (Szegedy et al. 2016, arXiv:1512.00567)

With a `path` it is a classifier of noised data, by whose gradient a continuous-time model of the same path is guided (Dhariwal and Nichol
2021, arXiv 2105.05233), `Model.noised`:

    x_t = alpha(t) x + sigma(t) e,   h(x_t, t) = relu(net((x_t - alpha shift) / r, features of t)),   r^2 = alpha^2 scale^2 + sigma^2

in the coordinates x of such a model. The loss is the mean over t in [t_min, 1]; label_cross_entropy, accuracy and features are at t_min.

Without one, x are intensities in [0, 1] where the data have grey values. shift and scale are the mean and standard deviation of the batch
that `init` sees: of all entries of images, of each entry of other events.

It has no density and draws nothing. `terms`, per example: loss and label_cross_entropy, both -log p(label | x) in nats without smoothing
(`best` is selected by the loss); accuracy, 1 where the most probable class is the label.

Parameters: `network`; `standardize`, the shift and the scale, which are not trained; with a path `time` (the embedding's), fixed/layer.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from vaeflow.bijectors import Layer
from vaeflow.build import Bare, Count, Decay, Natural, Positive
from vaeflow.diffusion import ProbabilityPath
from vaeflow.diffusion.path import mix
from vaeflow.diffusion.times import stratified, uniform
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Batch, Model, Noised, Params, overlay
from vaeflow.models.parts.continuous_time import coordinates
from vaeflow.nets import Embedding, Net
from vaeflow.nets.classes import ClassLogits
from vaeflow.nets.embedding import fourier
from vaeflow.record import recorded

# An entry with a smaller standard deviation in the first batch is only shifted.
_CONSTANT = 1e-6


@recorded
def classifier(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    classes: Count,
    features: Count = 64,
    net: Net,
    smoothing: Decay = 0.0,
    path: ProbabilityPath | None = None,
    embedding: Annotated[Embedding | None, Bare("fourier")] = None,
    layer: Layer | None = None,
    t_min: Positive = 1e-3,
) -> Model:
    """See the module's docstring.

    Args:
        event: the shape of one example.
        levels: number of its grey values; 0: continuous data.
        classes: number of classes; labels are 0 .. classes - 1.
        features: F, the width of the layer below the logits.
        net: the network from x to the features.
        smoothing: s, the share of the target that is spread over all classes, in training only.
        path: of x_t, a fixed one from Gaussian noise; None: the data are not noised.
        embedding: features of t, the context of the network; with a path only.
        layer: f, data = f(x), at its initial values, as in a continuous-time model; with a path only. Grey values are dequantised first.
        t_min: the smallest time, with a path only.

    Example:
        model = classifier(event=(8, 8, 1), levels=17, classes=10, net=conv(channels=(16, 32)))
        h = model.encode(params, key, {"x": x})
    """
    network = ClassLogits(lambda: net.module((features,), len(event), False), classes)
    top = max(levels - 1, 1)
    embedding, space = embedding or fourier(), coordinates(tuple(event), levels, layer, False, "auto")
    if path is None and layer is not None:
        raise UserError("model.layer has no use in a classifier without model.path")
    if path is not None and t_min >= 1:
        raise UserError(f"model.t_min={t_min:g} is invalid; it must be below 1")
    if path is not None and (path.gamma is not None or path.init is not None):
        raise UserError("model.path of a classifier must be a fixed path without gamma, from Gaussian noise")

    def scaled(x: Any) -> Array:
        x = jnp.asarray(x)
        return (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))) / top

    def read(params: Params, x: Array, t: Array | None) -> tuple[Array, tuple[Array, ...]]:
        """What the network is given of x [B, *event]: x_t at the times t [B], or where there is no path x itself."""
        own = params["standardize"]["fixed"]
        if path is None or t is None:
            return (x - own["shift"]) / own["scale"], ()
        wide = t.reshape(-1, *(1 for _ in event))
        alpha, sigma = path.alpha(wide), path.sigma(wide)
        r = jnp.sqrt(jnp.square(alpha * own["scale"]) + jnp.square(sigma))
        return (x - alpha * own["shift"]) / r, (embedding.features(params["time"], t),)

    def outputs(params: Params, x: Array, t: Array | None) -> tuple[Array, Array]:
        """(features [B, F], logits [B, classes])."""
        x, context = read(params, x, t)
        found: Any = network.apply({"params": params["network"]}, x, *context)
        return found

    def noised(params: Params, key: Array, batch: Batch, everywhere: bool = False) -> tuple[Array, Array | None]:
        """(x_t [B, *event], t [B]) with t in strata of [t_min, 1] or all t_min; without a path (x, None)."""
        if path is None:
            return scaled(batch["x"]), None
        key_u, key_t, key_e = jax.random.split(key, 3)
        x, _ = space.pull(params, space.dequantize(key_u, batch["x"])[0])
        t = stratified(key_t, uniform(), path, len(x), t_min, 1.0).astype(x.dtype) if everywhere else jnp.full(len(x), t_min, x.dtype)
        return jax.vmap(partial(mix, path))(t, x, jax.random.normal(key_e, x.shape, x.dtype)), t

    def start(key: Array, batch: Batch, given: Params) -> tuple[Params, Array]:
        """(the parameters of the coordinates and of the time, x)."""
        if path is None:
            return {}, scaled(batch["x"])
        key_u, key_layer, key_time = jax.random.split(jax.random.fold_in(key, 1), 3)
        y, _ = space.dequantize(key_u, batch["x"])
        params = overlay({"time": embedding.init(key_time)} | space.init(key_layer, y), given)
        return params, space.pull(params, y)[0]

    def init(key, batch, given=NO_PARAMS):
        _label(batch)
        if (shape := jnp.shape(batch["x"])[1:]) != tuple(event):
            raise UserError(f"model.event={tuple(event)} does not fit the data, whose examples have the shape {shape}")
        params, x = start(key, batch, given)
        params = overlay(params | {"standardize": {"fixed": standardization(x)}}, given)
        x, context = read(params, x, None if path is None else jnp.full(len(x), t_min))
        return overlay(params | {"network": network.init(key, x, *context)["params"]}, given)

    def loss(params, key, batch, step):
        del step
        label, (_, logits) = _label(batch), outputs(params, *noised(params, key, batch, everywhere=True))
        target = optax.smooth_labels(jnp.eye(classes)[label], smoothing) if smoothing else None
        each = _cross_entropy(logits, label) if target is None else optax.softmax_cross_entropy(logits, target)
        total = each.mean()
        return total, {"loss": total, "accuracy": _correct(logits, label).mean()}

    def terms(params, key, batch):
        label, (_, logits) = _label(batch), outputs(params, *noised(params, key, batch))
        each = _cross_entropy(logits, label)
        over_t = each if path is None else _cross_entropy(outputs(params, *noised(params, key, batch, everywhere=True))[1], label)
        return {"loss": over_t, "label_cross_entropy": each, "accuracy": _correct(logits, label)}

    def encode(params, key, batch):
        return outputs(params, *noised(params, key, batch))[0]

    def log_prob(params, x, t):
        return jax.nn.log_softmax(outputs(params, x[None], t[None])[1][0])

    own = None if path is None else Noised(log_prob, path, space, t_min)
    return Model(init, loss, None, None, "none", encode=encode, terms=terms, event=event, levels=levels, classes=classes, noised=own)


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
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(event=(4, 4, 1), levels=17, net="conv", smoothing=0.1),
    _EXAMPLE | dict(path="vp", layer="actnorm"),
)
