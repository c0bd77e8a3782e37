"""The classifier whose features a Frechet distance compares: trained here, on the labels of the run's training split.

    images   two strided convolutions, a Dense layer of F features, ReLU; vectors: one hidden layer in place of the convolutions
    head     softmax over the classes, cross-entropy, Adam with a cosine schedule

Kept in the user's cache folder (or data.cache_dir) under a name made of the data themselves, the seed and the architecture, so that all
runs on a data set are measured with one classifier. It is no Inception network: distances by it compare with each other alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from vaeflow.data import Source, Split
from vaeflow.data.cache import open_cache
from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.model import Array
from vaeflow.nets import conv, mlp

CHANNELS, HIDDEN = (16, 32), (128,)
BATCH, RATE = 128, 2e-3
# Examples at a time where features are computed; examples that accuracy is measured on, at the most.
_CHUNK, _TESTED = 500, 10_000


class Classifier(NamedTuple):
    """features: x [N, *event] as intensities -> [N, F] float64; accuracy: on `tested`; name: what it is, for every number made with it."""

    features: Callable[[np.ndarray], np.ndarray]
    accuracy: float
    name: str


class Network(nn.Module):
    """x [B, *event] -> (features [B, F], logits [B, classes])."""

    event_ndims: int
    features: int
    classes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        if self.event_ndims == 3:
            net = conv(channels=CHANNELS, kernel=3, stride=2, hidden=(), activation="relu", dtype="float32")
        else:
            net = mlp(hidden=HIDDEN, activation="relu", dtype="float32")
        h = nn.relu(net.module((self.features,), self.event_ndims, False)(x))
        return h, nn.Dense(self.classes, name="classes")(h)


def require_labels(source: Source) -> int:
    """The number of classes. UserError: the training split has no labels."""
    if source.train.label is None or source.label_names is None:
        raise UserError("the training split has no labels")
    return len(source.label_names)


def classifier(source: Source, data: Any, features: int, steps: int, seed: int) -> Classifier:
    """The classifier of a run's training split, from the cache or trained now; `data` is the section config.data."""
    classes, train = require_labels(source), source.train
    assert train.label is not None
    known = np.flatnonzero(train.label >= 0)
    x, label = np.asarray(train.x[known]), train.label[known]
    event_ndims, top = x.ndim - 1, max(source.levels - 1, 1)
    network = Network(event_ndims, features, classes)
    axis, some = None if event_ndims == 3 else 0, evenly(Split(x), _CHUNK * 10).x / top
    shift, scale = some.mean(axis), np.maximum(some.std(axis), 1e-6)

    def apply(params, x):
        return network.apply({"params": params}, ((x - shift) / scale).astype(jnp.float32))

    first: Any = jax.jit(network.init)(jax.random.key(seed), jnp.zeros((1, *x.shape[1:])))["params"]
    flat, unravel = ravel_pytree(first)

    def trained() -> list[np.ndarray]:
        return [np.asarray(ravel_pytree(_train(apply, first, x, label, top, steps, seed))[0])]

    architecture = ["conv", *CHANNELS] if event_ndims == 3 else ["mlp", *HIDDEN]
    key = json.dumps([architecture, features, classes, steps, BATCH, RATE, seed, x.shape, top])
    digest = hashlib.sha256(key.encode() + x.tobytes() + label.tobytes()).hexdigest()[:16]
    title = data_name(data)
    cache = open_cache(data["cache_dir"], "classifier")
    params = unravel(jnp.asarray(cache.array(f"{title.replace(' ', '-')}-{digest}", flat.shape, np.float32, trained)))

    @jax.jit
    def outputs(params, x):
        return jax.lax.map(lambda one: jax.tree.map(lambda a: a[0], apply(params, one[None])), x, batch_size=_CHUNK)

    def of(x: np.ndarray) -> np.ndarray:
        return np.asarray(outputs(params, np.asarray(x, np.float32))[0], np.float64)

    tested = next(name for name in ("test", "val", "train") if name in source.splits() and source.split(name).label is not None)
    held = evenly(source.split(tested), _TESTED)
    found = np.asarray(outputs(params, np.asarray(held.x / top, np.float32))[1]).argmax(-1)
    accuracy = float((found == held.label)[np.asarray(held.label) >= 0].mean())
    kind = f"{len(CHANNELS)}-layer ConvNet" if event_ndims == 3 else f"{len(HIDDEN)}-layer MLP"
    return Classifier(of, accuracy, f"{features} features of a {kind} trained here on {title} ({tested} accuracy {accuracy:.1%})")


def data_name(data: Any) -> str:
    """What a person calls the data of the section config.data: mnist, digits, a file's name; and a binarization that is fixed."""
    name = data["name"] or (Path(data["path"]).stem if data["path"] else data["kind"])
    return name.replace("/", "-") + (f" {data['binarize']}" if data["binarize"] in ("threshold", "static") else "")


def _train(apply, params, x, label, top, steps, seed):
    """Parameters after `steps` batches drawn with replacement, in one program."""
    tx = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    key = jax.random.fold_in(jax.random.key(seed), 1)

    def loss(params, rows, x, label):
        _, logits = apply(params, x[rows].astype(jnp.float32) / top)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label[rows]).mean()

    @jax.jit
    def run(params, x, label):
        def step(carry, i):
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(x))
            updates, state = tx.update(jax.grad(loss)(params, rows, x, label), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0][0]

    return run(params, x, label)
