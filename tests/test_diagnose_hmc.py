"""The HMC estimator against a known marginal likelihood, and the transitions that it stands on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.diagnose_toys import run
from tests.model_cases import quick
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import hmc
from vaeflow.evaluation.measures.chains import log_mean
from vaeflow.hmc import blackjax, move

FEW = hmc.HMCSettings(chains=8, warmup=50, samples=80, leapfrog=4, k=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Every pass here runs once."""
    blackjax()  # its functions are decorated with jax.jit when it is imported
    monkeypatch.setattr("vaeflow.evaluation.map_split.jax.jit", quick)


def test_the_numbers_and_what_watches_the_chains():
    r = run(toys.linear_gaussian(1.4), toys.split(24))
    found = hmc.check(r, FEW)
    truth = toys.linear_gaussian_log_p(r.split.x)
    assert abs(found["log_p"].value - truth.mean()) < 4 * found["mc_se"].value < 0.1
    assert found["rhat"].value < 1.2 and 0.6 < found["acceptance"].value < 0.95 and found["ess"].value > 30


@pytest.mark.parametrize("density, inside", [("full", 0.8), ("diagonal", 0.0)])
def test_the_fitted_density_is_the_gaussian_of_the_samples(density, inside):
    rng = np.random.default_rng(0)
    cov = np.array([[1.0, inside], [inside, 2.0]])
    z = rng.multivariate_normal([1.0, -1.0], cov, 20_000).astype(np.float32)
    at = np.array([[0.0, 0.0], [2.0, -3.0]], np.float32)
    expected = [-0.5 * (d @ np.linalg.solve(cov, d) + np.linalg.slogdet(2 * np.pi * cov)[1]) for d in at - [1.0, -1.0]]
    np.testing.assert_allclose(hmc.fit(jnp.asarray(z), density)(jnp.asarray(at)), expected, atol=0.05)
    one = hmc.fit(jnp.asarray(z[:, :1]), density)(jnp.zeros((3, 1)))  # a latent of one dimension
    np.testing.assert_allclose(one, -0.5 * (1 + np.log(2 * np.pi)), atol=0.05)


def test_large_latents_are_refused_in_one_line():
    r = run(toys.linear_gaussian(), toys.split(4))
    hmc.needs(r, hmc.HMCSettings(limit=2))
    with pytest.raises(UserError, match=r"has 2 dimensions.*hmc\.limit=1") as error:
        hmc.needs(r, hmc.HMCSettings(limit=1))
    with pytest.raises(UserError, match="leave 2 points to fit a density of 2 dimensions"):
        hmc.needs(r, hmc.HMCSettings(samples=2, chains=2))
    assert "\n" not in str(error.value)


@quick
def normal_chain(key, jitter):
    """|z| of a chain on N(0, 1) whose trajectories last half a period."""

    def step(z, key):
        z, _ = move(key, z, lambda z: -0.5 * (z**2).sum(), jnp.asarray(jnp.pi / 20), 20, jitter)
        return z, jnp.abs(z[0])

    return jax.lax.scan(step, jnp.array([2.0]), jax.random.split(key, 1000))[1]


def test_jitter_breaks_the_period_of_a_gaussian():
    still, moving = (np.asarray(normal_chain(jax.random.key(0), jitter)) for jitter in (0.0, 0.2))
    assert still.std() < 0.1  # z -> -z for ever
    assert np.mean(moving**2) == pytest.approx(1, abs=0.25)


def test_the_error_of_a_log_mean():
    """Against the spread of many log means of log-normal weights."""
    log_w = 0.5 * jax.random.normal(jax.random.key(1), (4000, 50))
    value, ess, se = jax.vmap(log_mean)(log_w)
    assert np.mean(value) == pytest.approx(0.125, abs=0.01)
    assert np.mean(se) == pytest.approx(float(value.std()), rel=0.05)
    assert np.mean(ess) == pytest.approx(50 * np.exp(-0.25), rel=0.03)
