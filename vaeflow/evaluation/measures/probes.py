"""What labels can be read off the latents: accuracy of a linear probe and of nearest neighbours, beside that on x itself.

    linear   multinomial logistic regression with an L2 penalty 1 / (2 C) |W|^2 on standardised inputs
    kNN      the majority among the nearest training examples, Euclidean distance of the inputs as they are

Inputs are posterior means E[z|x] (of the mean of 64 draws where it has no formula), or the x of the same examples. Both learn from evenly
spaced examples of the training split and are tried on the run's; standard errors are binomial, sqrt(p (1 - p) / N).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import Count, Positive
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.elbo import posterior_means
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures.measure import Evaluation, Finding, first, latent, over


class ProbesSettings(NamedTuple):
    """train: examples to learn from, at the most. neighbours: k of kNN. c: C above. iterations: of the regression, at the most."""

    train: Count = 5000
    neighbours: Count = 10
    c: Positive = 1.0
    iterations: Count = 1000


def needs(run: Evaluation, settings: ProbesSettings) -> None:
    """UserError: no latent or one without a mean, no labels, the training examples themselves."""
    posterior = latent(run).posterior
    z = jax.eval_shape(lambda p, one: posterior(p, one["x"], one.get("context")).sample(seed=run.key), run.params, first(run))
    if not jnp.issubdtype(z.dtype, jnp.inexact):
        raise UserError(f"the latent is codes ({z.dtype}), which have no mean")
    if run.name == "train":
        raise UserError("probes learn from the training split; --split: val or test")
    if run.split.label is None or run.source.train.label is None:
        raise UserError(f"data.kind={run.config.data.kind!r} has no labels here")
    if settings.neighbours > min(settings.train, len(run.source.train.x)):
        raise UserError(f"probes.neighbours={settings.neighbours} is more than there are training examples")


def check(run: Evaluation, settings: ProbesSettings) -> dict[str, Finding]:
    """Accuracies on latents and on x."""
    train, test = labelled(evenly(run.source.train, settings.train)), labelled(run.split)
    told = ", of an encoder that is given the label" if run.config.data.context == "label" else ""
    inputs = {"latents": (means(run, train), means(run, test), f"posterior means{told}"), "x": (flat(train), flat(test), "x itself")}
    c, k, steps = settings.c, settings.neighbours, settings.iterations
    probes = {
        "linear": (f"a linear probe (C = {c:g})", partial(linear, c=c, steps=steps)),
        "knn": (f"{k} neighbours", partial(nearest, k=k)),
    }
    n, out = len(test.x), {}
    for probe, (title, predict) in probes.items():
        for name, (seen, held, what) in inputs.items():
            p = float((predict(seen, train.label, held) == test.label).mean())
            words = f"accuracy of {title} on {what}; learnt from {len(train.x):,}, tried on {n:,}"
            out[f"{probe}_{name}"] = Finding(p, words, (p * (1 - p) / n) ** 0.5)
    largest = float(np.bincount(np.asarray(test.label)).max() / n)
    return out | {"largest_class": Finding(largest, "its share of the examples, the accuracy of always naming it")}


def linear(x: np.ndarray, label: Any, other: np.ndarray, c: float, steps: int) -> np.ndarray:
    """Labels of `other` [M, D] by the linear probe of x [N, D], label [N]."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=steps)).fit(x, label).predict(other)


def nearest(x: np.ndarray, label: Any, other: np.ndarray, k: int) -> np.ndarray:
    """Labels of `other` [M, D] by the k nearest of x [N, D], label [N]."""
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(k).fit(x, label).predict(other)


def labelled(split: Split) -> Split:
    """The examples of a split that have a label."""
    assert split.label is not None
    rows = np.flatnonzero(split.label >= 0)
    return Split(*(None if a is None else np.asarray(a[rows]) for a in split))  # type: ignore[arg-type]


def means(run: Evaluation, split: Split) -> np.ndarray:
    """Posterior means [N, D] of a split."""
    found = over(run, "probes", posterior_means(run.model), draws=2, split=split)
    return (found["a"] + found["b"]) / 2


def flat(split: Split) -> np.ndarray:
    """x as vectors, [N, size of an example]."""
    return np.asarray(split.x, np.float32).reshape(len(split.x), -1)
