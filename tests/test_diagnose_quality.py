"""Distances between sets against closed forms; the classifier behind the Frechet distance, its cache and its name."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.linalg

from tests import toys
from tests.diagnose_toys import number, run
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import classifier, quality


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_the_frechet_distance_of_gaussians(rng):
    """Diagonal: |m - n|^2 + sum (s - t)^2, also with a direction of no variance; others against scipy's matrix square root."""
    m, n, s, t = np.array([1.0, 0, 2]), np.array([0.0, 3, 2]), np.array([1.0, 2, 0]), np.array([0.5, 2, 0])
    assert quality.frechet_gaussian(m, np.diag(s**2), n, np.diag(t**2)) == pytest.approx(10 + 0.25)
    a, b = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) for _ in range(2))
    root = np.real(np.asarray(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))))
    truth = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert quality.frechet(a, b) == pytest.approx(truth)
    assert quality.frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_mmd_is_the_plain_sum_without_the_pairs_of_equal_indices(rng):
    a, b, width = rng.normal(size=(6, 2)), rng.normal(size=(6, 2)), 1.3

    def k(u, v):
        return np.mean([np.exp(-((u - v) ** 2).sum() / (2 * (w * width) ** 2)) for w in quality.WIDTHS])

    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    truth = np.mean([k(a[i], a[j]) + k(b[i], b[j]) - k(a[i], b[j]) - k(a[j], b[i]) for i, j in pairs])
    assert quality.mmd2(a, b, width)[0] == pytest.approx(truth)
    assert quality.median_distance(np.array([[0.0], [1.0], [3.0]])) == 2


def test_mmd_has_mean_zero_for_equal_sets_and_is_positive_for_others(rng):
    repeats, n = 200, 40
    equal, errors = np.transpose([quality.mmd2(rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), 1.5) for _ in range(repeats)])
    assert abs(equal.mean()) < 4 * equal.std() / np.sqrt(repeats)
    assert equal.std() < errors.mean() < 2 * equal.std()  # sqrt(2) times
    shifted, errors = np.transpose([quality.mmd2(rng.normal(size=(n, 2)), 2 + rng.normal(size=(n, 2)), 1.5) for _ in range(repeats)])
    assert shifted.mean() > 5 * errors.mean()
    assert np.sqrt((errors**2).mean()) == pytest.approx(shifted.std(), rel=0.2)


def pictures(n: int, seed: int) -> Split:
    """Classes 0, 1: the upper or the lower half of 6x6 images is bright; 17 grey values."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    x = rng.integers(0, 8, (n, 6, 6, 1))
    x[label == 0, :3] += 8
    x[label == 1, 3:] += 8
    return Split(x.astype(np.uint8), None, label.astype(np.int32))


def toy(tmp_path, samples, **changes):
    """A run whose samples are the pictures of `samples`."""
    model = toys.model(None, "none", sample=lambda params, key, n, context=None: jax.numpy.asarray(samples[:n]))
    found = run(model, pictures(60, 0), pictures(80, 1), levels=17, cache_dir=str(tmp_path))
    return found._replace(**changes) if changes else found


def test_samples_of_the_data_are_at_the_floor_and_others_are_not(tmp_path):
    settings = quality.QualitySettings(features=8, classifier_steps=60)
    good, bad = pictures(60, 2).x, pictures(60, 2).x[::2].repeat(2, axis=0)  # one class of two
    found = {name: quality.check(toy(tmp_path, x), settings) for name, x in (("good", good), ("bad", bad))}
    for name in ("mmd2", "frechet"):
        floor = found["good"][f"{name}_floor"].value
        assert found["bad"][f"{name}_floor"].value == floor
        assert found["bad"][name].value > 5 * max(found["good"][name].value, floor)
    value, se = number(found["good"]["mmd2"])
    assert abs(value) < 3 * se
    assert "on 8 features of a 2-layer ConvNet trained here on toy (test accuracy 100.0%)" in found["good"]["frechet"].what
    assert "60 examples" in found["good"]["frechet"].what and "median distance" in found["good"]["mmd2"].what


def test_the_classifier_is_trained_once_for_a_data_set_and_a_seed(tmp_path, monkeypatch):
    source, calls = toy(tmp_path, None).source, []
    train = classifier._train
    monkeypatch.setattr(classifier, "_train", lambda *arguments: calls.append(1) or train(*arguments))
    data = toy(tmp_path, None).config.data

    def features(source, seed):
        return classifier.classifier(source, data, 8, 20, seed).features(source.test.x / 16)

    first = features(source, 0)
    assert first.shape == (60, 8) and first.dtype == np.float64
    np.testing.assert_array_equal(features(source, 0), first)
    assert len(calls) == 1
    assert not np.array_equal(features(source, 1), first) and len(calls) == 2
    features(source._replace(train=pictures(80, 9)), 0)
    assert len(calls) == 3


def test_vectors_have_a_classifier_too(tmp_path, rng):
    label = np.arange(90) % 3
    x = rng.normal(size=(90, 3)) + 10 * np.eye(3)[label]
    split = Split(x.astype(np.float32), None, label.astype(np.int32))
    found = classifier.classifier(toys.source(split), toy(tmp_path, None).config.data, 16, 200, 0)
    assert found.accuracy == 1 and "MLP" in found.name and found.features(split.x).shape == (90, 16)


def test_what_cannot_be_compared_says_so(tmp_path):
    settings, plain = quality.QualitySettings(features=8), toy(tmp_path, pictures(60, 2).x)
    with pytest.raises(UserError, match="--split: val or test"):
        quality.needs(plain._replace(name="train"), settings)
    with pytest.raises(UserError, match="60 examples are too few for a covariance of 64 features; raise --examples"):
        quality.needs(plain, quality.QualitySettings())
    source = plain.source.map(lambda _, split: split._replace(label=None))
    found = quality.check(plain._replace(source=source), settings)
    assert found["frechet"].value == "left out" and "no labels" in found["frechet"].what and number(found["mmd2"])[1] > 0


def test_samples_come_in_batches_with_the_contexts_of_the_examples():
    context = np.arange(7, dtype=np.float32)[:, None]
    seen = toys.model(None, "none", sample=lambda params, key, n, context: context + 0 * jax.random.normal(key, (n, 1)))
    found = run(seen, toys.split(7)._replace(context=context))
    found = found._replace(options=found.options | dict(batch=3))
    np.testing.assert_array_equal(quality.samples(found, 7), context)
    noise = toys.model(None, "none", sample=lambda params, key, n, context=None: jax.random.normal(key, (n, 1)))
    assert len(np.unique(quality.samples(found._replace(model=noise, split=toys.split(7)), 7))) == 7
