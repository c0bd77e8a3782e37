"""Whole-split numbers: the ELBO's terms, active units, validation, the grid's integral, and the table that is printed."""

from __future__ import annotations

import json
import subprocess
import sys

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.runs import ROOT, environment
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import density_grid, elbo, evaluate
from vaeflow.evaluation.results import format_results
from vaeflow.model import Latent

KEY = jax.random.key(3)


def test_terms_of_the_elbo_and_active_units():
    """With q the posterior, -ELBO = -log p(x); the second latent unit is never used, so its KL is that of its width: 0."""
    x = toys.split(1500).x
    split = Split((x[:, :1] @ toys.W[:, :1].T + 0.5 * x).astype(np.float32))  # of the model's kind
    model = toys.linear_gaussian()
    found = elbo.latent_terms(model, {}, split, KEY, batch=256)
    truth = -toys.linear_gaussian_log_p(split.x).mean()
    assert abs(found["neg_elbo"] - truth) < 4 * found["neg_elbo_se"]
    assert found["neg_elbo"] == pytest.approx(found["recon"] + found["kl"])
    assert found["kl_kind"] == "analytic" and found["kl"] == pytest.approx(sum(found["kl_per_dim"]), rel=1e-5)
    assert found["kl_per_dim"][1] == pytest.approx(0, abs=1e-6)
    assert (found["active_units"], found["latent_units"]) == (1, 2)
    variance = elbo.posterior_mean_variance(model, {}, split, KEY, batch=100)
    np.testing.assert_allclose(found["unit_variance"], variance, rtol=1e-5, atol=1e-8)  # whatever the batches
    mean = split.x @ toys.W @ np.linalg.inv(np.eye(2) + toys.W.T @ toys.W / 0.25) / 0.25
    np.testing.assert_allclose(variance, mean.var(0, ddof=1), rtol=1e-4, atol=1e-6)


def shifted(model):
    """The same posterior behind a bijector: no formula for its mean or for the KL."""
    latent = model.latent

    def posterior(params, x, context=None):
        return distrax.Transformed(latent.posterior(params, x), distrax.Block(distrax.ScalarAffine(0.0, 1.0), 1))

    return model._replace(latent=Latent(latent.prior, posterior, latent.likelihood))


def test_monte_carlo_kl_and_means_agree_with_the_analytic_ones():
    split = toys.split(600)
    plain = toys.linear_gaussian(1.2)
    ours, theirs = (elbo.latent_terms(m, {}, split, KEY, batch=300) for m in (plain, shifted(plain)))
    assert theirs["kl_kind"] == "Monte Carlo" and "kl_per_dim" not in theirs
    assert abs(ours["kl"] - theirs["kl"]) < 0.2
    assert theirs["active_units"] == ours["active_units"] == 1
    exact, estimated = (elbo.posterior_mean_variance(m, {}, split, KEY, batch=300) for m in (plain, shifted(plain)))
    np.testing.assert_allclose(estimated, exact, atol=0.006)


def test_validate_is_one_function_of_params():
    """Fixed keys: the same params give the same number at any batch size; nothing is compiled a second time."""
    split, traced = toys.split(23), []

    def log_prob(params, key, batch):
        traced.append(1)
        return params["shift"] + batch["x"].sum(-1) + jax.random.normal(key, (len(batch["x"]),))

    values = []
    for batch in (23, 8):
        validate = evaluate.make_validate(toys.model(log_prob), split, 0, "none", 5, batch)
        values.append(validate({"shift": jnp.zeros(())}))
        assert set(values[-1]) == {"loss"}
    assert values[0]["loss"] == pytest.approx(values[1]["loss"], rel=1e-6)
    before = len(traced)
    assert validate({"shift": jnp.ones(())})["loss"] == pytest.approx(values[0]["loss"] - 1, rel=1e-5)
    assert len(traced) == before
    terms = evaluate.make_validate(toys.linear_gaussian(), split, 0, "none", 5, 8)({})
    assert set(terms) == {"loss", "recon", "kl"} and abs(terms["loss"] - terms["recon"] - terms["kl"]) < 3


def test_encode_gives_arrays_of_examples():
    split = toys.split(7)
    found = evaluate.encode(toys.linear_gaussian(), {}, split, toys.source(split), toys.config(batch=4))
    assert {name: a.shape for name, a in found.items()} == {"mean": (7, 2), "std": (7, 2), "log_prob": (7,)}
    np.testing.assert_allclose(found["log_prob"], toys.linear_gaussian_log_p(split.x), rtol=1e-4)
    drawn = evaluate.encode(shifted(toys.linear_gaussian()), {}, split, toys.source(split), toys.config(batch=4))
    assert drawn["z"].shape == (7, 2)


@pytest.mark.parametrize("density", ["exact", "weight"])
def test_the_grid_integrates_to_one(density):
    model = toys.gaussian_flow()
    if density == "weight":  # weights of mean p(x): exp of log p + 0.3 e - 0.045

        def log_prob(params, key, batch):
            noise = 0.3 * jax.random.normal(key, (len(batch["x"]),)) - 0.045
            return toys.gaussian_flow().log_prob(params, key, batch) + noise

        model = toys.model(log_prob)
    found = density_grid.density(model, {}, toys.split(2000, (2,)), KEY)
    assert found.integral == pytest.approx(1, abs=1e-3 if density == "exact" else 1e-2)
    assert found.log_p.shape == (len(found.ys), len(found.xs))


def test_the_grid_mixes_contexts_by_their_frequency():
    """x | c ~ N(c, 0.7^2 I): the mixture integrates to 1 and has its mass where the contexts are frequent."""

    def log_prob(params, key, batch):
        return distrax.MultivariateNormalDiag(batch["context"], 0.7 * jnp.ones(2)).log_prob(batch["x"])

    split = toys.split(400, (2,), context=np.repeat([[-2.0, 0], [2.0, 0]], [100, 300], axis=0).astype(np.float32))
    split = split._replace(x=split.x + split.context)
    found = density_grid.density(toys.model(log_prob, "exact"), {}, split, KEY)
    assert found.integral == pytest.approx(1, abs=2e-3)
    cell = (found.xs[1] - found.xs[0]) * (found.ys[1] - found.ys[0])
    assert np.exp(found.log_p)[:, found.xs < 0].sum() * cell == pytest.approx(0.25, abs=0.01)
    with pytest.raises(UserError, match="two-dimensional"):
        density_grid.density(toys.linear_gaussian(), {}, toys.split(5), KEY)


def test_results_of_a_vae_and_their_table():
    """Everything is JSON; the table names the estimator; bits/dim only for grey values that are a likelihood."""
    model = toys.linear_gaussian(1.2, event=(4, 4, 1))
    split = toys.split(30, (4, 4, 1))
    split = split._replace(x=np.clip(np.round(split.x + 2), 0, 4).astype(np.uint8))
    found = json.loads(json.dumps(evaluate.results(model, {}, toys.source(split, 5), "test", toys.config(k=30))))
    assert found["estimator"] == "IWAE-30" and found["examples"] == 30 and found["latent_units"] == 2
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / (16 * np.log(2)))
    assert found["nll"] < found["neg_elbo"] + 3 * found["neg_elbo_se"]
    text = format_results(found)
    for word in ("-ELBO", "reconstruction", "KL (analytic)", "NLL (IWAE-30)", "bits/dim", "active units", "of 2", "Pareto-k", "±"):
        assert word in text, word
    noted = evaluate.results(model._replace(note="BCE on intensities, not a likelihood"), {}, toys.source(split, 5), "test", toys.config())
    assert "bits_per_dim" not in noted and "not a likelihood" in format_results(noted) and "NLL" not in format_results(noted)


def test_results_of_a_flow_against_the_true_density():
    split = toys.split(3000, (2,))

    def truth(x):
        return -0.5 * (x**2).sum(-1) - np.log(2 * np.pi)

    found = evaluate.results(toys.gaussian_flow(0.7), {}, toys.source(split, density=truth), "test", toys.config(batch=1000))
    assert found["estimator"] == "exact" and found["integral"] == pytest.approx(1, abs=1e-3)
    kl = 2 * (np.log(0.7) + 0.5 / 0.49 - 0.5)  # KL(N(0, I) || N(0, 0.49 I))
    assert abs(found["kl_to_truth"] - kl) < 4 * found["kl_to_truth_se"]
    assert found["true_nll"] == pytest.approx(1 + np.log(2 * np.pi), abs=0.06)
    assert "KL(truth || model)" in format_results(found) and "NLL (exact)" in format_results(found)
    with pytest.raises(UserError, match="known: test, train"):
        evaluate.results(toys.gaussian_flow(), {}, toys.source(split), "val", toys.config())


def test_a_bound_is_called_one():
    found = evaluate.results(toys.noisy(1.0)._replace(density="bound"), {}, toys.source(toys.split(9)), "test", toys.config())
    assert "bound on the NLL (bound)" not in format_results(found) and "bound on the NLL" in format_results(found)


EIGHT = """
from tests import toys
from vaeflow.evaluation import evaluate
from vaeflow.training.devices import DevicesConfig, make_devices
devices = make_devices(DevicesConfig("shard_map"))
split = toys.split(21)
plain, mapped = (evaluate.make_validate(toys.linear_gaussian(), split, 0, "none", 5, 10, d)({}) for d in (None, devices))
assert devices.count == 8 and all(abs(plain[n] - mapped[n]) < 1e-5 * abs(plain[n]) for n in plain), (plain, mapped)
"""


def test_eight_devices_give_the_numbers_of_one():
    subprocess.run([sys.executable, "-c", EIGHT], check=True, timeout=120, env=environment(8) | {"PYTHONPATH": str(ROOT)}, cwd=ROOT)
