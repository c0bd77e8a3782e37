"""Guidance: scale 1 is none, the exact classifier gives the conditional, inpainting of a Gaussian is its conditional."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import Mixture, path_case, path_of, with_gamma
from vaeflow.diffusion.edits import EDITS, replaced
from vaeflow.diffusion.guidance import classifier_guided, edited, guided, inpainted, inpainted_by_covariance
from vaeflow.diffusion.path import PATHS, Prediction, mix
from vaeflow.diffusion.steps import STEPS
from vaeflow.diffusion.walk import walk
from vaeflow.errors import UserError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


over_paths = pytest.mark.parametrize("name", PATHS)
X = np.array([0.4, -0.9])


def times(name: str):
    return jnp.linspace(path_case(name).low, path_case(name).high, 5)[1:-1]


def component(k: int) -> Mixture:
    whole = Mixture()
    return Mixture((1.0,), whole.mean[k : k + 1], whole.std[k : k + 1])


def gaussian(path, mean, covariance):
    """The exact prediction for data N(mean, covariance) [D]."""

    def predict(x, t):
        alpha, sigma = path.alpha(t), path.sigma(t)
        away = jnp.linalg.solve(alpha**2 * covariance + sigma**2 * jnp.eye(len(mean)), x - alpha * mean)
        return Prediction(mean + alpha * covariance @ away, sigma * away)

    return predict


def agree(path, a, b, ts, x=X):
    x = jnp.asarray(x)
    for t in ts:
        p, q = a(x, t), b(x, t)
        np.testing.assert_allclose(p.data, q.data, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(p.noise, q.noise, rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(mix(path, t, *p[:2]), x, rtol=1e-9)


@over_paths
def test_scale_1_is_none_and_scale_0_the_reference(name):
    path = path_of(name)
    predict, reference = component(0).predict(path), Mixture().predict(path)
    agree(path, guided(predict, reference, 1.0), predict, times(name))
    agree(path, guided(predict, reference, 0.0), reference, times(name))
    agree(path, guided(predict, reference, 3.0, low=2.0), predict, times(name))
    away = guided(predict, reference, 3.0)(X, times(name)[1]).data - predict(X, times(name)[1]).data
    assert float(jnp.max(jnp.abs(away))) > 1e-4


@over_paths
def test_the_exact_classifier_gives_the_conditional(name):
    path, mixture = path_of(name), Mixture()

    def log_prob(x, t):
        return jax.nn.log_softmax(mixture.log_components(path, t, x))[0]

    agree(path, classifier_guided(mixture.predict(path), path, log_prob, 1.0), component(0).predict(path), times(name))
    agree(path, classifier_guided(mixture.predict(path), path, log_prob, 0.0), mixture.predict(path), times(name))


MEAN, COVARIANCE = np.array([0.3, -0.2, 0.5]), np.array([[0.5, 0.3, -0.1], [0.3, 0.4, 0.1], [-0.1, 0.1, 0.3]])
MASK, VALUE = np.array([False, True, False]), np.array([0.0, 0.7, 0.0])


def conditional(path, covariance):
    """The exact prediction for the Gaussian of entries 0 and 2 given that entry 1 is VALUE[1]."""
    rest, known = [0, 2], [1]
    gain = covariance[np.ix_(rest, known)] / covariance[1, 1]
    mean = MEAN[rest] + gain[:, 0] * (VALUE[1] - MEAN[1])
    inner = gaussian(path, jnp.asarray(mean), jnp.asarray(covariance[np.ix_(rest, rest)] - gain @ covariance[np.ix_(known, rest)]))

    def predict(x, t):
        data = jnp.zeros(3).at[jnp.array(rest)].set(inner(x[jnp.array(rest)], t).data).at[1].set(VALUE[1])
        return Prediction(data, (x - path.alpha(t) * data) / path.sigma(t))

    return predict


@over_paths
def test_inpainting_of_a_gaussian_is_its_conditional(name):
    path, x = path_of(name), jnp.array([0.9, -0.4, 0.1])
    predict = gaussian(path, jnp.asarray(MEAN), jnp.asarray(COVARIANCE))
    agree(
        path, inpainted_by_covariance(predict, path, jnp.asarray(MASK), jnp.asarray(VALUE)), conditional(path, COVARIANCE), times(name), x
    )


def test_replacement_is_the_conditional_of_independent_entries_only():
    path, x, t = path_of("vp"), jnp.array([0.9, -0.4, 0.1]), jnp.array(0.4)
    for covariance, exact in ((np.diag(np.diag(COVARIANCE)), True), (COVARIANCE, False)):
        predict = gaussian(path, jnp.asarray(MEAN), jnp.asarray(covariance))
        got = inpainted(predict, path, jnp.asarray(MASK), jnp.asarray(VALUE))(x, t).data
        assert np.allclose(got, conditional(path, covariance)(x, t).data, rtol=1e-10) == exact
        assert got[1] == VALUE[1]


def test_above_64_dimensions_the_covariance_is_isotropic():
    path, x = path_of("vp"), jnp.asarray(np.random.default_rng(0).normal(size=65))
    mask, value, s_d = jnp.arange(65) < 9, jnp.linspace(-1, 1, 65), 0.6
    predict = gaussian(path, jnp.zeros(65), s_d**2 * jnp.eye(65))
    got = inpainted_by_covariance(predict, path, mask, value, sigma_data=s_d)(x, jnp.array(0.3))
    np.testing.assert_allclose(got.data, jnp.where(mask, value, predict(x, jnp.array(0.3)).data), rtol=1e-10)


@pytest.mark.parametrize("kind", STEPS)
def test_samplers_return_the_known_entries(kind):
    """The last step too: Tweedie's formula returns them exactly, and before it they have the law q(x_t | value)."""
    path, ts = path_of("vp"), jnp.linspace(1.0, 0.02, 9)
    predict = inpainted(gaussian(path, jnp.asarray(MEAN), jnp.asarray(COVARIANCE)), path, jnp.asarray(MASK), jnp.asarray(VALUE))
    sampler = STEPS[kind]()
    step = sampler.on(path, predict)
    x, _ = jax.jit(jax.vmap(lambda key: walk(step, key, jnp.ones(3), ts)))(jax.random.split(jax.random.key(0), 4))
    np.testing.assert_allclose(x[:, 1], VALUE[1], rtol=1e-12)
    assert (float(jnp.std(x[:, 0])) > 1e-3) == sampler.noisy


def test_ancestral_steps_move_known_entries_along_the_forward_process():
    path, ts, n = path_of("vp"), jnp.linspace(1.0, 0.3, 4), 4000
    predict = inpainted(gaussian(path, jnp.asarray(MEAN), jnp.asarray(COVARIANCE)), path, jnp.asarray(MASK), jnp.asarray(VALUE))
    step = STEPS["ancestral"]().on(path, predict)

    def draw(key):
        start, key = jax.random.split(key)
        x = mix(path, ts[0], jnp.asarray(VALUE), jax.random.normal(start, (3,)))
        return walk(step, key, x, ts, denoise=False)[0]

    x = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), n))[:, 1]
    sigma = path.sigma(ts[-1])
    assert abs(jnp.mean(x) - path.alpha(ts[-1]) * VALUE[1]) < 4 * sigma / np.sqrt(n)
    assert abs(jnp.var(x) / sigma**2 - 1) < 4 * np.sqrt(2 / n)


SHAPES = {"colorize": (2, 4, 3), "super_resolve": (4, 2, 3)}


@pytest.mark.parametrize("kind, options", [*((kind, {}) for kind in EDITS), ("left", dict(share=0.3)), ("random", dict(share=0.25))])
def test_bases_of_edits_are_orthonormal(kind, options):
    event = SHAPES.get(kind, (6, 4, 2))
    known = EDITS[kind](**options).on(event)
    size = int(np.prod(event))
    basis = jax.vmap(lambda x: known.into(x.reshape(event)).reshape(-1))(jnp.eye(size))
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-12)
    x, data = jax.random.normal(jax.random.key(0), (2, *event))
    np.testing.assert_allclose(known.back(known.into(x)), x, atol=1e-12)
    got = replaced(known, data, x)
    assert known.mask.shape == known.into(x).shape and 0 < known.mask.sum() < size
    np.testing.assert_allclose(np.where(known.mask, known.into(x), known.into(data)), known.into(got), atol=1e-12)


def test_what_edits_keep():
    x, data = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    kept = {kind: replaced(edit().on(x.shape), data, x) for kind, edit in EDITS.items()}
    same = {kind: np.asarray(got == x) for kind, got in kept.items()}
    np.testing.assert_array_equal(np.argwhere(~same["left"].all((0, 2)))[:, 0], [0, 1, 2])
    np.testing.assert_array_equal(np.argwhere(~same["right"].all((0, 2)))[:, 0], [3, 4, 5])
    np.testing.assert_array_equal(np.argwhere(~same["top"].all((1, 2)))[:, 0], [0, 1])
    np.testing.assert_array_equal(np.argwhere(~same["bottom"].all((1, 2)))[:, 0], [2, 3])
    assert (~same["center"]).all(2).sum() == 6 and not same["center"][1:3, 2:4].any() and not same["center"][1:3, 1].any()
    assert (~same["random"]).all(2).sum() == 12 and same["random"].all(2).sum() == 12
    np.testing.assert_allclose(kept["colorize"].mean(-1), x.mean(-1), atol=1e-12)
    patches = [a.reshape(2, 2, 3, 2, 3).mean((1, 3)) for a in (kept["super_resolve"], x)]
    np.testing.assert_allclose(*patches, atol=1e-12)


@pytest.mark.parametrize(
    "kind, options, event, message",
    [
        ("top", {}, (4,), "needs images"),
        ("left", {}, (4, 4), "needs images .* or vectors"),
        ("left", {}, (1, 1, 1), "share=0.5 of 1 is 0; something must be missing"),
        ("colorize", {}, (4, 4, 1), "three channels"),
        ("super_resolve", dict(size=3), (4, 4, 1), "multiples of size"),
    ],
)
def test_edits_refuse_other_events(kind, options, event, message):
    with pytest.raises(UserError, match=message):
        EDITS[kind](**options).on(event)


@pytest.mark.parametrize("kind", ["colorize", "super_resolve"])
def test_samplers_return_what_is_known_in_another_basis(kind):
    path, event = path_of("vp"), SHAPES[kind]
    known, value = EDITS[kind]().on(event), jax.random.normal(jax.random.key(2), event)

    def predict(x, t):  # of N(0, 1) data
        alpha, sigma = path.alpha(t), path.sigma(t)
        return Prediction(alpha * x / (alpha**2 + sigma**2), sigma * x / (alpha**2 + sigma**2))

    for method in ("replacement", "covariance"):
        step = STEPS["ancestral"]().on(path, edited(predict, path, known, value, method, sigma_data=1.0))
        x, _ = walk(step, jax.random.key(0), jax.random.normal(jax.random.key(1), event), jnp.linspace(1.0, 0.05, 9))
        z, want = known.into(x), known.into(value)
        np.testing.assert_allclose(z[known.mask], want[known.mask], rtol=1e-10, atol=1e-12)
        assert float(jnp.min(jnp.abs(z - want)[~known.mask])) > 1e-4


def test_guidance_refuses_gamma():
    path = with_gamma()
    predict = Mixture().predict(path)
    for change in (
        lambda: classifier_guided(predict, path, lambda x, t: jnp.sum(x), 1.0),
        lambda: inpainted(predict, path, X > 0, X),
        lambda: inpainted_by_covariance(predict, path, X > 0, X),
    ):
        with pytest.raises(UserError, match="without gamma"):
            change()
