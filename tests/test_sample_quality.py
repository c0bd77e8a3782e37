"""Distances between sets against closed forms; the classifier behind the Frechet distance, its cache and its name; a run in its place."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import scipy.linalg

from tests import toys
from tests.diagnose_toys import number, run
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import measures, sampling, two_sample
from vaeflow.evaluation.measures import classifier, sample_quality, stored_features
from vaeflow.evaluation.measures.sample_quality import SampleQualitySettings


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_the_frechet_distance_of_gaussians(rng):
    """Diagonal: |m - n|^2 + sum (s - t)^2, also with a direction of no variance; others against scipy's matrix square root."""
    m, n, s, t = np.array([1.0, 0, 2]), np.array([0.0, 3, 2]), np.array([1.0, 2, 0]), np.array([0.5, 2, 0])
    assert two_sample.frechet_gaussian(m, np.diag(s**2), n, np.diag(t**2)) == pytest.approx(10 + 0.25)
    a, b = (rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) for _ in range(2))
    root = np.real(np.asarray(scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))))
    truth = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert two_sample.frechet(a, b) == pytest.approx(truth)
    assert two_sample.frechet(a, a) == pytest.approx(0, abs=1e-8)


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
    model = toys.model(None, "none", sample=lambda params, key, n, context=None: {"x": jax.numpy.asarray(samples[:n])})
    found = run(model, pictures(60, 0), pictures(80, 1), levels=17, cache_dir=str(tmp_path))
    return found._replace(**changes) if changes else found


def check(found, settings):
    return sample_quality.prepare(found, settings)(found.params, found.key)


def test_samples_of_the_data_are_at_the_floor_and_others_are_not(tmp_path):
    settings = SampleQualitySettings(features=8, classifier_steps=60)
    good, bad = pictures(60, 2).x, pictures(60, 2).x[::2].repeat(2, axis=0)  # one class of two
    found = {name: check(toy(tmp_path, x), settings) for name, x in (("good", good), ("bad", bad))}
    for name in ("energy", "sliced_wasserstein", "mmd2", "frechet"):
        floor = found["good"][f"{name}_floor"].value
        assert found["bad"][f"{name}_floor"].value == floor
        assert found["bad"][name].value > 2 * max(found["good"][name].value, floor)
    assert found["bad"]["recall"].value < 0.8 < found["good"]["recall"].value
    value, se = number(found["good"]["energy"])
    assert abs(value) < 3 * se
    assert "; 8 features of a 2-layer ConvNet trained here on toy (test accuracy 100.0%)" in found["good"]["frechet"].what
    assert "60 samples, 60 held out" in found["good"]["frechet"].what


def test_a_second_call_compiles_nothing_and_repeats_the_floors(tmp_path):
    traced = []

    def sample(params, key, n, context=None):
        traced.append(1)
        return {"x": jax.numpy.asarray(params)[:n]}

    found = toy(tmp_path, None)._replace(model=toys.model(None, "none", sample=sample))
    measure = sample_quality.prepare(found, SampleQualitySettings(extractor="none", names=("energy", "mmd2")))
    first, again = (measure(pictures(60, seed).x, found.key) for seed in (2, 3))
    assert len(traced) == 1 and first["energy"].value != again["energy"].value
    assert first["energy_floor"] == again["energy_floor"] and set(first) == {"energy", "energy_floor", "mmd2", "mmd2_floor"}


def test_selection_compares_a_thousand_samples_or_more(tmp_path):
    found = toy(tmp_path, None)
    for finding in sample_quality.BETTER:
        settings = SampleQualitySettings(**sample_quality.for_selection(found, finding))
        assert settings.samples == 1000 and not settings.floor and len(settings.names) == 1


def test_the_classifier_is_trained_once_for_a_data_set_and_a_seed(tmp_path, monkeypatch):
    source, calls = toy(tmp_path, None).source, []
    train = classifier._train
    monkeypatch.setattr(classifier, "_train", lambda *arguments: calls.append(1) or train(*arguments))
    data = toy(tmp_path, None).config.data

    def features(source, seed):
        return classifier.trained_classifier(source, data, 8, 20, seed).features(source.test.x / 16)

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
    found = classifier.trained_classifier(toys.source(split), toy(tmp_path, None).config.data, 16, 200, 0)
    assert "1-layer MLP" in found.name and "accuracy 100.0%" in found.name
    assert found.features(split.x).shape == (90, found.count) == (90, 16)


@pytest.mark.parametrize(
    ("changes", "settings", "line"),
    [
        ({"name": "train"}, {}, "--split: val or test"),
        ({}, {"features": 64, "extractor": "classifier"}, "60 held-out examples are too few: more than 64 are needed"),
        ({}, {"features": 8, "names": ("energie",)}, "sample_quality.names='energie' is unknown"),
        ({}, {"extractor": "efficientnet"}, "more than 1280 are needed"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, changes, settings, line):
    with pytest.raises(UserError, match=line):
        sample_quality.needs(toy(tmp_path, None, **changes), SampleQualitySettings(**settings))


def test_without_labels_the_frechet_distance_is_of_x_where_that_is_small(tmp_path):
    found = toy(tmp_path, pictures(60, 2).x)
    plain = found._replace(source=found.source.map(lambda _, split: split._replace(label=None)))
    sample_quality.needs(plain, SampleQualitySettings())
    assert "frechet" not in check(plain, SampleQualitySettings())  # 60 examples of 36 dimensions
    with pytest.raises(UserError, match="needs labels"):
        sample_quality.needs(plain, SampleQualitySettings(extractor="classifier", features=8))


def test_draws_come_in_batches_with_the_contexts_in_turn(monkeypatch):
    monkeypatch.setattr(sampling, "_DRAWS", 3)
    context = np.arange(7, dtype=np.float32)[:, None]
    seen = toys.model(None, "none", sample=lambda params, key, n, context: {"x": context + 0 * jax.random.normal(key, (n, 1))})
    draws = sampling.draw(seen, {}, jax.random.key(0), 9, {"context": context})["x"]
    np.testing.assert_array_equal(draws, np.concatenate([context, context[:2]]))
    noise = toys.model(None, "none", sample=lambda params, key, n, context=None: {"x": jax.random.normal(key, (n, 1))})
    assert len(np.unique(sampling.draw(noise, {}, jax.random.key(0), 7)["x"])) == 7


def test_features_of_another_program_are_compared_by_their_file(tmp_path, rng):
    found, path = toy(tmp_path, None), tmp_path / "inception.npz"
    arrays = {name: rng.normal(size=(n, 4)) + shift for name, n, shift in (("samples", 80, 1.0), ("test", 60, 0.0), ("train", 70, 0.0))}
    np.savez(path, **arrays)
    settings = stored_features.StoredFeaturesSettings(str(path))
    stored_features.needs(found, settings)
    given = stored_features.check(found, settings)
    assert given["frechet"].value == pytest.approx(two_sample.frechet(arrays["samples"], arrays["test"]))
    assert given["frechet"].value > 3 > given["frechet_floor"].value and "inception.npz, sha256" in given["frechet"].what
    assert abs(given["frechet_extrapolated_floor"].value) < given["frechet_floor"].value
    for changes, line in (({"sha256": "0" * 64}, "is expected"), ({"path": ""}, "names no .npz file"), ({"path": "no.npz"}, "no.npz")):
        with pytest.raises(UserError, match=line):
            stored_features.needs(found, settings._replace(**changes))
    with pytest.raises(UserError, match="has no array 'val'"):
        stored_features.needs(found._replace(name="val"), settings)


def test_what_draws_cost():
    """Evaluations where the draws count them; the seconds are those of a second call: the first one compiles."""

    def sample(params, key, n, context=None):
        return {"x": jax.numpy.zeros((n, 3)), "nfe": jax.numpy.arange(n) % 2 * 10 + 10}

    def cost(model):
        found = run(model, toys.split(20))
        return measures.MEASURES["sampling"].prepare(found, measures.settings_of("sampling", found.config.eval, {"samples": 8}))(
            found.params, found.key
        )

    found = cost(toys.model(None, "none", sample=sample))
    assert {name: found[name].value for name in ("nfe", "nfe_max")} == {"nfe": 15, "nfe_max": 20}
    assert 0 < found["seconds"].value < 10 and "8 draws" in found["seconds"].what
    assert set(cost(toys.gaussian_flow())) == {"seconds"}
    assert measures.lacking("sampling", run(toys.model(None, "none"), toys.split(20)), None) == "this model draws no samples"
