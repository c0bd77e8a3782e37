"""The quadratic objective, learned paths and the measure of trajectories, against closed forms."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, quick
from tests.test_diffusion_model import CLOCK, gaussian, net_of
from vaeflow.data.source import Split
from vaeflow.diffusion.path import PATHS, at, derivative
from vaeflow.evaluation.measures import MEASURES, lacking
from vaeflow.evaluation.measures.measure import Evaluation
from vaeflow.models.diffusion import diffusion
from vaeflow.nets.mlp import mlp

S = 0.5  # the data's standard deviation, whose mean is 0


@pytest.mark.parametrize("options", [{}, dict(path=PATHS["cosine"](gamma=1.0), t_max=0.9), dict(path=PATHS["vp"](), paired=True)])
def test_the_quadratic_objective_has_the_gradient_of_the_regression(options):
    """|F|^2 - 2 F target differs from |F - target|^2 by |target|^2, which no parameter of the network changes."""
    batch = {"x": jax.random.normal(KEY, (16, 3)), "x0": jax.random.normal(jax.random.key(5), (16, 3))}
    values, gradients = [], []
    for objective in ("regression", "quadratic"):
        model = diffusion(event=(3,), net=mlp(hidden=(8,), activation="tanh"), objective=objective, **options)
        params = model.init(KEY, batch)
        own = jax.tree.map(lambda a: a + 0.1, params["net"])
        value, gradient = quick(jax.value_and_grad(lambda net, m=model, p=params: m.loss(p | {"net": net}, KEY, batch, 0)[0]))(own)
        values.append(float(value))
        gradients.append(gradient)
    assert abs(values[0] - values[1]) > 0.1
    for one, other in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def variance_rate(path, t):
    """(variance of x_t, its derivative / 2) for x ~ N(0, S^2), e ~ N(0, 1)."""
    alpha, sigma, rates = path.alpha(t), path.sigma(t), (derivative(path.alpha, t), derivative(path.sigma, t))
    return alpha**2 * S**2 + sigma**2, alpha * rates[0] * S**2 + sigma * rates[1]


def kinetic_energy(params, low=0.05, n=200):
    """The mean over t in [low, 1 - low] of E|v|^2 per dimension, v(t, x) = (half rate / variance) x."""
    t = low + (1 - 2 * low) * (jnp.arange(n) + 0.5) / n
    variance, half = jax.vmap(lambda t: variance_rate(at(PATHS["fourier"](terms=3), params), t))(t)
    return jnp.mean(half**2 / variance)


def test_the_gradient_of_a_learned_path_descends_the_kinetic_energy():
    """At the exact velocity the path's gradient, which is reversed, is that of E|v|^2: the envelope of max over paths, min over v."""
    path = PATHS["fourier"](terms=3)
    own = {"alpha": jnp.array([0.3, -0.2, 0.1]), "sigma": jnp.array([-0.4, 0.1, 0.2])}

    def exact(x, context, dropout):
        variance, half = jax.vmap(lambda t: variance_rate(at(path, own), t))(context[:, 0])
        return (half / variance)[:, None] * x

    model = diffusion(event=(2,), net=net_of(exact), embedding=CLOCK, path=path, objective="quadratic", t_min=0.05)
    batch = {"x": S * jax.random.normal(KEY, (4000, 2))}
    params = model.init(KEY, batch)
    assert set(params["path"]) == {"alpha", "sigma"} and not np.any(params["path"]["alpha"])

    def loss(key, path):
        x = S * jax.random.normal(jax.random.fold_in(key, 1), (4000, 2))
        return model.loss(params | {"path": path}, key, {"x": x}, 0)[0]

    keys = jax.random.split(jax.random.key(1), 60)
    values, gradients = jax.lax.map(lambda key: jax.value_and_grad(loss, 1)(key, own), keys)
    energy, want = jax.value_and_grad(kinetic_energy)(own)
    np.testing.assert_allclose(values.mean(), -energy, atol=5 * float(values.std()) / np.sqrt(60))
    for name in want:
        mean, se = gradients[name].mean(0), gradients[name].std(0) / np.sqrt(60)
        assert (np.abs(mean - want[name]) < 5 * se).all() and float(jnp.max(jnp.abs(want[name]))) > 20 * float(se.max())


def test_a_learned_path_keeps_its_ends_and_takes_its_coefficients():
    for start in ("cosine", "ot"):
        path = PATHS["fourier"](terms=4, start=start)
        assert path.init is not None
        np.testing.assert_array_equal(at(path, path.init(KEY)).sigma(jnp.array([0.1, 0.7])), path.sigma(jnp.array([0.1, 0.7])))
        own = at(path, {"alpha": jnp.arange(4.0), "sigma": -jnp.arange(4.0)})
        ends = jnp.array([0.0, 1.0])
        np.testing.assert_array_equal([own.alpha(ends), own.sigma(ends)], [[1, 0], [0, 1]])
        extra = own.alpha(jnp.array(0.75)) - path.alpha(jnp.array(0.75))
        np.testing.assert_allclose(extra, sum(m * np.sin(np.pi * (m + 1) * 0.75) for m in range(4)) / 4, rtol=1e-5)
    assert at(PATHS["vp"](), {}).init is None


def measured(model, x0=None, batch: int = 50, **settings):
    """{finding} of the measure transport, 300 trajectories."""
    split = Split(np.zeros((300, 3), np.float32), x0=x0)
    config = SimpleNamespace(model={"kind": "diffusion"}, seed=0)
    params = model.init(KEY, {"x": jnp.zeros((2, 3))})
    run = Evaluation(model, params, config, None, split, "test", KEY, dict(batch=batch))  # type: ignore[arg-type]
    measure = MEASURES["transport"]
    assert lacking("transport", run, measure.defaults) == ""
    return measure.prepare(run, measure.defaults._replace(**settings))(params, KEY)


@pytest.mark.parametrize("paired", [False, True])
def test_transport_of_a_gaussian_is_the_closed_form(paired):
    """From N(0, I) to N(0, s^2 I) on the linear path x(t) = r(t) x(1), r^2 = (1 - t)^2 s^2 + t^2: with |x(1)|^2 = D,
    transport D (r_1 - r_0)^2, kinetic energy D int r'^2."""
    std = 0.8
    x0 = 1 + 2 * np.asarray(jax.random.normal(jax.random.key(9), (300, 3)), np.float32) if paired else None
    model, _ = gaussian("ot", std, paired=paired)  # data = 1 + 2 x
    found = measured(model, x0, steps=20)
    r = lambda t: np.sqrt((1 - t) ** 2 * std**2 + t**2)  # noqa: E731
    t = 0.01 + 0.99 * (np.arange(4000) + 0.5) / 4000
    speed = ((t - (1 - t) * std**2) / r(t)) ** 2
    square = found["transport_cost"].value / (1 - r(0.01)) ** 2  # the mean of |x(1)|^2 over these trajectories
    assert abs(square - 3) < 5 * found["transport_cost"].se / (1 - r(0.01)) ** 2
    if x0 is not None:
        np.testing.assert_allclose(square, np.mean(np.sum(((x0 - 1) / 2) ** 2, 1)), rtol=1e-4)
    np.testing.assert_allclose(found["kinetic_energy"].value, square * 0.99 * speed.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["straightness"].value, square * (0.99 * speed.mean() - (1 - r(0.01)) ** 2 / 0.99), rtol=1e-3)
    again = measured(model, x0, batch=300, steps=20)
    for name, finding in found.items():
        assert again[name].value == pytest.approx(finding.value, rel=1e-5) and "300 trajectories" in finding.what and finding.se > 0
