"""Mutual information, the aggregate posterior's KL and its parts against linear-Gaussian cases; collapse and saturation are said."""

from __future__ import annotations

import json
import math

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.model_cases import BATCH, CASES, case
from vaeflow.data import Split
from vaeflow.distributions import Joint, normal
from vaeflow.evaluation import evaluate, information
from vaeflow.evaluation.information import aggregate, collapse_warnings, evenly, information_terms
from vaeflow.evaluation.results import format_results
from vaeflow.model import Latent, Model

KEY = jax.random.key(11)
STD = np.array([0.6, 0.8], np.float32)


def encoder(weights, std, wrap=lambda q: q, prior=None) -> Model:
    """q(z|x) = N(W x, diag(std)^2), p(z) = N(0, I), p(x|z) = N(z W, 1)."""
    weights, std = jnp.asarray(weights), jnp.asarray(std)

    def posterior(params, x, context=None):
        return wrap(normal(x @ weights.T, std))

    def likelihood(params, z, context=None):
        return normal(z @ weights, jnp.ones(()))

    plain = normal(jnp.zeros(weights.shape[0]), jnp.ones(()))
    return toys.model(None, "none", Latent(prior or (lambda params, context=None: plain), posterior, likelihood))


def terms(model: Model, split: Split) -> dict:
    return information_terms(model, {}, split, KEY, top=1.0, batch=len(split.x))


def gaussian_truth(weights, std) -> dict[str, float]:
    """x ~ N(0, I): q(z) = N(0, C), C = W W^T + diag(std)^2. In nats:
    I = 1/2 log |C| - sum log std, KL(q(z)||p) = 1/2 (tr C - D - log |C|), TC = 1/2 (sum log C_dd - log |C|)."""
    c = weights @ weights.T + np.diag(std**2)
    log_det = np.linalg.slogdet(c)[1]
    return {
        "information": 0.5 * log_det - np.log(std).sum(),
        "aggregate_kl": 0.5 * (np.trace(c) - len(c) - log_det),
        "total_correlation": 0.5 * (np.log(np.diag(c)).sum() - log_det),
        "dimension_kl": 0.5 * (np.diag(c) - 1 - np.log(np.diag(c))).sum(),
    }


def test_a_linear_gaussian_encoder_has_the_known_terms():
    weights = np.array([[0.9, 0.3, 0.0], [0.7, 0.0, 0.4]], np.float32)
    split = toys.split(3000)  # x ~ N(0, I)
    found, truth = terms(encoder(weights, STD), split), gaussian_truth(weights, STD)
    for name, value in truth.items():
        assert abs(found[name] - value) < 4 * found[f"{name}_se"], name
    assert truth["total_correlation"] > 5 * found["total_correlation_se"]
    rate = 0.5 * (STD**2 + (split.x @ weights.T) ** 2 - 1 - 2 * np.log(STD)).sum(-1).mean()
    assert found["information"] + found["aggregate_kl"] == pytest.approx(rate, rel=1e-5)
    assert sum(found["dimension_kl_per_dim"]) == pytest.approx(found["dimension_kl"], rel=1e-5)
    assert found["information_examples"] == 3000 and found["marginal_examples"] == 2000 and not found["saturated"]
    error = np.mean((split.x - split.x @ weights.T @ weights) ** 2, -1)
    assert found["recon_mse"] == pytest.approx(error[np.arange(2000) * 3000 // 2000].mean(), rel=1e-5)


def full_covariance(q):
    """The same N(m, s^2) as a distribution that no formula is known of."""
    return distrax.Transformed(q, distrax.Block(distrax.ScalarAffine(0.0, 1.0), 1))


def levels(q):
    """The same as a hierarchy of two levels."""
    normals = q.distribution
    return Joint(
        lambda key, n: (z := normals.sample(seed=key, sample_shape=(n,)), normals.log_prob(z)), normals.log_prob, (1, 1), q.batch_shape
    )


@pytest.mark.parametrize("wrap", [full_covariance, levels])
def test_any_posterior_gives_the_numbers_of_a_diagonal_gaussian(wrap):
    weights, split = np.array([[1.0, 0.3, 0.0], [0.7, 0.0, 0.4]], np.float32), toys.split(150)
    plain, other = terms(encoder(weights, STD), split), terms(encoder(weights, STD, wrap), split)
    assert other["information"] == pytest.approx(plain["information"], rel=1e-4)
    assert other["own_share"] == pytest.approx(plain["own_share"], rel=1e-4)
    assert abs(other["aggregate_kl"] - plain["aggregate_kl"]) < 4 * other["aggregate_kl_se"]
    assert "total_correlation" in plain and "total_correlation" not in other


def test_separate_posteriors_are_at_the_bound_and_said_to_be():
    model, split = encoder(np.eye(2, 3), np.full(2, 1e-3, np.float32)), toys.split(400)
    found = terms(model, split)
    assert found["information"] == pytest.approx(math.log(400), abs=0.05) and found["saturated"]
    assert found["own_share"] > 0.95
    text = format_results(results(model, split))
    assert "at most their log 5.99" in text and "saturated" in text and "warning" not in text


def results(model: Model, split: Split) -> dict:
    return json.loads(json.dumps(evaluate.results(model, {}, toys.source(split), "test", toys.config(batch=200))))


def test_a_collapsed_posterior_has_no_information_and_a_warning():
    found = results(encoder(np.zeros((2, 3)), np.ones(2, np.float32)), toys.split(400))
    assert found["information"] == pytest.approx(0, abs=1e-5) and found["aggregate_kl"] == pytest.approx(0, abs=1e-5)
    assert found["own_share"] == pytest.approx(1 / 400, rel=1e-3)
    assert found["warnings"] == ["posterior collapse: 0 of 2 units are active, KL 0.00 nats"]
    assert "warning: posterior collapse: 0 of 2 units" in format_results(found)


def test_warnings_name_what_is_dead():
    healthy = dict(kl=20.0, active_units=30, latent_units=64)
    assert not collapse_warnings(healthy)
    assert not collapse_warnings(dict(kl=3.0))  # codes have no units
    assert collapse_warnings(healthy | dict(active_units=5)) == ["most units are not used: 5 of 64 units are active, KL 20.00 nats"]
    collapsed = dict(kl=0.13, active_units=2, latent_units=8)  # what configs/collapse.py gives, and its cures
    assert collapse_warnings(collapsed) == ["most units are not used: 2 of 8 units are active, KL 0.13 nats"]
    assert not collapse_warnings(dict(kl=1.51, active_units=7, latent_units=8))
    assert collapse_warnings(healthy | dict(kl=0.05)) == ["posterior collapse: 30 of 64 units are active, KL 0.05 nats"]
    assert collapse_warnings(healthy | dict(kl_per_level=[19.95, 0.01, 5.0, 0.04])) == [
        "posterior collapse: level 2 of 4 (KL 0.01 nats), level 4 of 4 (KL 0.04 nats)"
    ]


def test_the_aggregate_density_against_a_plain_sum():
    """Narrow and wide posteriors, far from the origin: three products in float32 against float64."""
    rng = np.random.default_rng(0)
    mean = (rng.normal(size=(50, 3)) + 20).astype(np.float32)
    std = np.exp(rng.uniform(-3, 0.5, size=(50, 3))).astype(np.float32)
    z = (mean + std * rng.normal(size=(50, 3))).astype(np.float32)
    pairs = -0.5 * (((z[:, None].astype(np.float64) - mean) / std) ** 2) - np.log(std) - 0.5 * np.log(2 * np.pi)
    pairs = pairs.sum(-1)
    truth = np.log(np.exp(pairs).mean(1))
    np.testing.assert_allclose(aggregate(z, mean, std, np.diag(pairs).astype(np.float32)), truth, atol=2e-3)


def test_a_prior_that_depends_on_the_context_leaves_the_aggregate_kl_out():
    def prior(params, context):
        return normal(context, jnp.ones(()))

    split = toys.split(60)._replace(context=np.zeros((60, 2), np.float32))
    found = terms(encoder(np.eye(2, 3), STD, prior=prior), split)
    assert "aggregate_kl" not in found and "dimension_kl" not in found and "depends on the context" in found["information_note"]
    assert found["information"] > 0 and found["total_correlation_se"] > 0


def test_what_would_take_too_long_is_left_out_and_says_so(monkeypatch):
    monkeypatch.setattr(information, "PAIR_FLOPS", 1e3)
    found = terms(encoder(np.eye(2, 3), STD, full_covariance), toys.split(60))
    assert "information" not in found and "left out" in found["information_note"] and found["recon_mse"] > 0


def test_codes_have_an_information_too():
    """z: one of four symbols, told by the signs of x with certainty: I = their entropy."""

    def posterior(params, x, context=None):
        return distrax.Categorical(logits=1e3 * jax.nn.one_hot(2 * (x[:, 0] > 0) + (x[:, 1] > 0), 4))

    model = encoder(np.eye(2, 3), STD)
    assert model.latent is not None
    prior = distrax.Categorical(logits=jnp.zeros(4))
    latent = Latent(
        lambda params, context=None: prior, posterior, lambda params, z, context=None: normal(jnp.zeros((len(z), 3)), jnp.ones(()))
    )
    split = toys.split(500)
    found = terms(model._replace(latent=latent), split)
    share = np.bincount(2 * (split.x[:, 0] > 0) + (split.x[:, 1] > 0)) / 500
    assert found["information"] == pytest.approx(-(share * np.log(share)).sum(), rel=1e-4)
    assert found["information"] + found["aggregate_kl"] == pytest.approx(math.log(4), rel=1e-4)


@pytest.mark.full
@pytest.mark.parametrize("name, i", CASES)
def test_every_latent_has_an_information(name, i):
    c = case(name, i)
    if c.model.latent is None:
        return
    split = Split(*(np.asarray(a) for a in c.batch.values()))
    found = information_terms(c.model, c.params, split, KEY, top=1.0, batch=BATCH)
    assert found["own_share"] * BATCH > 0.999 and found["own_share"] < 1.001
    assert found["information"] < math.log(BATCH) + 1e-3 and found["recon_mse"] > 0
    assert ("aggregate_kl" in found) != ("depends on the context" in found.get("information_note", ""))


def test_evenly_spaced_examples_keep_what_belongs_together():
    split = toys.split(10)._replace(context=np.arange(10, dtype=np.float32)[:, None])
    some = evenly(split, 4)
    assert some.context is not None and some.context[:, 0].tolist() == [0, 2, 5, 7]
    np.testing.assert_array_equal(some.x, split.x[[0, 2, 5, 7]])
