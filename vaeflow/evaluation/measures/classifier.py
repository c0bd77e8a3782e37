"""The classifier whose features a Frechet distance compares unless another one is named, trained here on the labels of the training split.

    images   two strided convolutions, a Dense layer of F features, ReLU; vectors: one hidden layer in place of the convolutions
    head     softmax over the classes, cross-entropy, Adam with a cosine schedule

The model is that of vaeflow/models/classifier.py, of intensities. Kept in the user's cache folder (or data.cache_dir) under a name made of
the data themselves, the seed and the architecture, so that all runs on a data set are measured with one classifier. It is no Inception
network: distances by it compare with each other alone.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from vaeflow.data import Source, Split
from vaeflow.data.cache import open_cache
from vaeflow.evaluation.features import Extractor
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.trained_features import CHUNK, digest, features_of
from vaeflow.model import Array, Model, Params, merge_params, split_params
from vaeflow.models.classifier import classifier, standardization
from vaeflow.nets import conv, mlp

CHANNELS, HIDDEN = (16, 32), (128,)
BATCH, RATE = 128, 2e-3
# Examples that accuracy is measured on, and that the scale of x is taken from, at the most.
_TESTED, _STANDARDIZED = 10_000, 5_000


def trained_classifier(source: Source, data: Any, features: int, steps: int, seed: int) -> Extractor:
    """The classifier of a training split with labels, from the cache or trained now; `data` is the section config.data."""
    train, names = source.train, source.label_names
    assert train.label is not None and names is not None
    known = np.flatnonzero(train.label >= 0)
    x, label = np.asarray(train.x[known]), train.label[known]
    event, top = x.shape[1:], max(source.levels - 1, 1)
    model = _model(event, len(names), features)
    given = {"standardize": {"fixed": standardization(evenly(Split(x), _STANDARDIZED).x / top)}}
    one = {"x": jnp.zeros((1, *event)), "label": jnp.zeros(1, jnp.int32)}
    first, _, fixed = split_params(jax.jit(model.init)(jax.random.key(seed), one, given))
    flat, unravel = ravel_pytree(first)

    def trained() -> list[np.ndarray]:
        return [np.asarray(ravel_pytree(_train(model, first, fixed, x, label, top, steps, seed))[0])]

    architecture = ["conv", *CHANNELS] if len(event) == 3 else ["mlp", *HIDDEN]
    key = json.dumps([architecture, features, len(names), steps, BATCH, RATE, seed, x.shape, top])
    kept = hashlib.sha256(key.encode() + x.tobytes() + label.tobytes()).hexdigest()[:16]
    title = data_name(data)
    cache = open_cache(data["cache_dir"], "classifier")
    own = unravel(jnp.asarray(cache.array(f"{title.replace(' ', '-')}-{kept}", flat.shape, np.float32, trained)))
    params = merge_params(own, fixed)
    kind = f"{len(CHANNELS)}-layer ConvNet" if len(event) == 3 else f"{len(HIDDEN)}-layer MLP"
    name = f"{features} features of a {kind} trained here on {title} ({_accuracy(model, params, source, top)})"
    return Extractor(name, digest(architecture, params), features_of(model, params, 0), features)


def _model(event: tuple[int, ...], classes: int, features: int) -> Model:
    """The classifier of intensities."""
    if len(event) == 3:
        net = conv(channels=CHANNELS, kernel=3, stride=2, hidden=(), activation="relu", dtype="float32")
    else:
        net = mlp(hidden=HIDDEN, activation="relu", dtype="float32")
    return classifier(event=event, levels=0, classes=classes, features=features, net=net, smoothing=0.0)


def data_name(data: Any) -> str:
    """What a person calls the data of the section config.data: mnist, digits, a file's name; and a binarization that is fixed."""
    name = data["name"] or (Path(data["path"]).stem if data["path"] else data["kind"])
    return name.replace("/", "-") + (f" {data['binarize']}" if data["binarize"] in ("threshold", "static") else "")


def _accuracy(model: Model, params: Params, source: Source, top: int) -> str:
    """The accuracy on the test split (the validation or training split where that has no labels), in words."""
    tested = next(name for name in ("test", "val", "train") if name in source.splits() and source.split(name).label is not None)
    held, terms = evenly(source.split(tested), _TESTED), model.terms
    assert terms is not None and held.label is not None

    @jax.jit
    def correct(params: Params, rows: dict[str, Array]) -> Array:
        def one(row: dict[str, Array]) -> Array:
            return terms(params, jax.random.key(0), {name: value[None] for name, value in row.items()})["accuracy"][0]

        return jax.lax.map(one, rows, batch_size=CHUNK)

    found = correct(params, {"x": jnp.asarray(held.x / top, jnp.float32), "label": jnp.asarray(held.label)})
    return f"{tested} accuracy {np.asarray(found, np.float64)[held.label >= 0].mean():.1%}"


def _train(model: Model, params: Params, fixed: Params, x: np.ndarray, label: np.ndarray, top: int, steps: int, seed: int) -> Params:
    """Parameters after `steps` batches drawn with replacement, in one program."""
    tx = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    key = jax.random.fold_in(jax.random.key(seed), 1)

    def loss(params: Params, rows: Array, x: Array, label: Array) -> Array:
        batch = {"x": x[rows].astype(jnp.float32) / top, "label": label[rows]}
        return model.loss(merge_params(params, fixed), key, batch, 0)[0]

    @jax.jit
    def run(params, x, label):
        def step(carry, i):
            params, state = carry
            rows = jax.random.randint(jax.random.fold_in(key, i), (BATCH,), 0, len(x))
            updates, state = tx.update(jax.grad(loss)(params, rows, x, label), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))[0][0]

    return run(params, x, label)
