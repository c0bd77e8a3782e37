"""How far samples are from data that were not trained on: maximum mean discrepancy of x, Frechet distance of a classifier's features.

Both have a floor beside them, the same distance between training and test data at the same n: a perfect model is there, not at 0 (a Frechet
distance is biased upwards by about 1/n). Samples are those of the model's `sample`; where that gives means of p(x|z), as for images, they
have no noise of p(x|z) on them, and distances count that too. Grey values are compared as intensities in [0, 1]. The floor of the
features' distance is a little high: the classifier was trained on one of its sides.

    MMD^2   mean of h_ij over i != j,  h_ij = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i)      (Gretton et al. 2012: unbiased)
    FD      |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), of Gaussians with the features' means and covariances (Heusel et al. 2017)
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from vaeflow.build import Count, Seed
from vaeflow.errors import UserError
from vaeflow.evaluation.information import evenly
from vaeflow.evaluation.measures.classifier import classifier
from vaeflow.evaluation.measures.measure import Finding, Run

# Kernels exp(-d^2 / (2 s^2)) with these multiples s of the median distance, averaged.
WIDTHS = (0.5, 1.0, 2.0)


class QualitySettings(NamedTuple):
    """features, classifier_steps, classifier_seed: of the classifier. mmd_examples: at the most, as the MMD is over pairs."""

    features: Count = 64
    classifier_steps: Count = 1500
    classifier_seed: Seed = 0
    mmd_examples: Count = 2000


def needs(run: Run, settings: QualitySettings) -> None:
    """UserError: the data are the training split, or too few."""
    if run.name == "train":
        raise UserError("samples are compared with data that were not trained on; --split: val or test")
    least = settings.features if run.source.train.label is not None else 2
    if len(run.split.x) <= least or len(run.source.train.x) <= least:
        raise UserError(f"{len(run.split.x)} examples are too few for a covariance of {least} features; raise --examples")


def check(run: Run, settings: QualitySettings) -> dict[str, Finding]:
    """Distances of samples, and of as many training examples, to the run's examples."""
    n = min(len(run.split.x), len(run.source.train.x))
    grey = max(run.source.levels - 1, 1)
    drawn = samples(run, n) / (1 if run.config.data.binarize == "dynamic" else grey)
    held, seen = (np.asarray(evenly(split, n).x, np.float32) / grey for split in (run.split, run.source.train))
    few = np.arange(m := min(n, settings.mmd_examples)) * n // m
    width = median_distance(held[few])
    kernel = f"{m:,} examples, Gaussian kernels of {', '.join(f'{w:g}' for w in WIDTHS)} times the median distance {width:.3g}"
    titles = {"mmd2": f"1000 MMD^2 of samples and {run.name} data; {kernel}"}
    distance = {"mmd2": lambda x: np.multiply(1000, mmd2(x[few], held[few], width))}
    if run.source.train.label is not None:
        own = classifier(run.source, run.config.data, settings.features, settings.classifier_steps, settings.classifier_seed)
        data = own.features(held)
        titles["frechet"] = f"Frechet distance of samples and {run.name} data; {n:,} examples, on {own.name}"
        distance["frechet"] = lambda x: (frechet(own.features(x), data), None)
    out = {}
    for name, of in distance.items():
        for key, x, what in ((name, drawn, titles[name]), (f"{name}_floor", seen, "the same of training data in place of samples")):
            value, se = of(x)
            out[key] = Finding(value, what, se)
    return out if "frechet" in distance else out | {"frechet": Finding("left out", "the data have no labels to train a classifier on")}


def samples(run: Run, n: int) -> np.ndarray:
    """n draws of the model, [n, *event] float32, in batches; conditional models get the contexts of the run's examples."""
    size = min(run.options["batch"], n)
    draw = jax.jit(run.model.sample, static_argnums=2)
    key, parts = jax.random.fold_in(run.key, n), []
    for i, start in enumerate(range(0, n, size)):
        rows = np.arange(start, start + size) % n
        context = None if run.split.context is None else np.asarray(run.split.context[rows])
        parts.append(np.asarray(draw(run.params, jax.random.fold_in(key, i), size, context), np.float32))
    return np.concatenate(parts)[:n]


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a_i - b_j|^2, [N, M] in float64, of examples of any shape."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (a, b))
    return np.maximum((a**2).sum(-1)[:, None] + (b**2).sum(-1) - 2 * a @ b.T, 0)


def median_distance(x: np.ndarray) -> float:
    """The median of |x_i - x_j| over i < j."""
    return float(np.sqrt(np.median(squared_distances(x, x)[np.triu_indices(len(x), 1)])))


def mmd2(a: np.ndarray, b: np.ndarray, width: float) -> tuple[float, float]:
    """(unbiased MMD^2, its standard error) of a and b [N, *event] with the kernels of WIDTHS times `width`.

    The standard error is 2 s / sqrt(N), s the standard deviation over i of mean_j h_ij: that of a U-statistic, too large by sqrt(2) where
    the two distributions are equal.
    """
    n = len(a)

    def kernel(u, v):
        square = squared_distances(u, v)
        return np.mean([np.exp(-square / (2 * (w * width) ** 2)) for w in WIDTHS], axis=0)

    cross = kernel(a, b)
    h = kernel(a, a) + kernel(b, b) - cross - cross.T
    rows = (h.sum(1) - np.diagonal(h)) / (n - 1)
    return float(rows.mean()), float(2 * rows.std(ddof=1) / np.sqrt(n))


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of Gaussians fitted to features a [N, F] and b [M, F], float64."""
    return frechet_gaussian(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))


def frechet_gaussian(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """FD of N(mean_a, cov_a) and N(mean_b, cov_b). The trace of (C_a C_b)^(1/2) is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is
    symmetric: singular covariances (features that are never on) do no harm."""
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov_b @ root)
    cross = np.sqrt(np.maximum(inner, 0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)
