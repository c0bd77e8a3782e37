"""Estimators of log p(x) against known values: exactness, independence of batch and chunk, memory, Pareto-k."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import bound, importance, log_likelihood, mean_se, pareto_k, tail_size
from vaeflow.evaluation.map_split import gather, map_split
from vaeflow.training import configure, setup

KEY = jax.random.key(7)


def estimate(model, split, **options):
    return log_likelihood(model, {}, split, KEY, **{"k": 40, "chunk": 8, "batch": 6, **options})


def test_against_a_plain_sum_over_the_same_draws():
    """logsumexp, ELBO, ESS and Monte Carlo error over draws with the documented keys; 11 examples fill no batch."""
    split, k = toys.split(11), 40
    found = estimate(toys.noisy(1.5), split)
    for i in range(11):
        key = jax.random.fold_in(jax.random.fold_in(KEY, 1), i)
        noise = jax.vmap(lambda j, key=key: jax.random.normal(jax.random.fold_in(key, j), (1,))[0])(jnp.arange(k))
        log_w = split.x[i].sum(dtype=np.float64) + 1.5 * np.asarray(noise, np.float64)
        w = np.exp(log_w - log_w.max())
        ess = w.sum() ** 2 / (w**2).sum()
        expected = dict(log_prob=np.log(w.mean()) + log_w.max(), elbo=log_w.mean(), ess=ess, se=np.sqrt(1 / ess - 1 / k))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][i], value, rtol=2e-5, atol=2e-5, err_msg=name)
    assert all(len(values) == 11 for values in found.values())


def test_independent_of_batch_and_chunk_and_in_several_dispatches(monkeypatch):
    split = toys.split(11)
    reference = estimate(toys.noisy(1.0), split, batch=11, chunk=40)
    for batch, chunk in ((6, 8), (4, 7), (1, 40)):  # 7 does not divide 40
        found = estimate(toys.noisy(1.0), split, batch=batch, chunk=chunk)
        for name, value in reference.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=f"{name} {batch} {chunk}")
    monkeypatch.setattr("vaeflow.evaluation.map_split.DISPATCH_DRAWS", 40)  # one batch a dispatch
    found = estimate(toys.noisy(1.0), split, batch=4)
    np.testing.assert_allclose(found["log_prob"], reference["log_prob"], rtol=1e-5)


def test_linear_gaussian_converges_and_its_bounds_are_ordered():
    split = toys.split(40)
    truth = toys.linear_gaussian_log_p(split.x)
    exact = estimate(toys.linear_gaussian(1.0), split, k=2)  # the true posterior: every weight is p(x)
    np.testing.assert_allclose(exact["log_prob"], truth, rtol=1e-4)
    np.testing.assert_allclose(exact["ess"], 2, rtol=1e-3)
    few, many = (estimate(toys.linear_gaussian(1.4), split, k=k, chunk=100) for k in (5, 2000))
    assert many["elbo"].mean() < few["log_prob"].mean() < many["log_prob"].mean()
    error = many["log_prob"] - truth
    assert np.abs(error.mean()) < 4 * np.sqrt((many["se"] ** 2).sum()) / 40
    assert 0.5 < (error / many["se"]).std() < 1.6  # the Monte Carlo error says how far it is off
    elbo, se = bound(toys.linear_gaussian(1.4), {}, split, KEY, draws=200, batch=40)
    assert abs(elbo - many["elbo"].mean()) < 0.05 and 0 < se < 1


def test_weights_of_zero_and_nan():
    """Weights may be zero (log w = -inf), all of them too; a NaN is not hidden."""

    def log_prob(params, key, batch):
        x = batch["x"][:, 0]
        return jnp.where(x > 1, -jnp.inf, jnp.where(x < -1, jnp.nan, jnp.where(jax.random.bernoulli(key), 0.0, -jnp.inf)))

    split = toys.split(3)
    split.x[:, 0] = 0, 2, -2
    found = estimate(toys.model(log_prob), split, k=400)
    assert abs(np.exp(found["log_prob"][0]) - 0.5) < 0.15
    assert found["log_prob"][1] == -np.inf and np.isnan(found["log_prob"][2])


def test_exact_densities_ignore_k_and_no_density_is_an_error():
    split = toys.split(5, (2,))
    found = estimate(toys.gaussian_flow(), split, k=10**9)
    assert set(found) == {"log_prob"}
    with pytest.raises(UserError, match="no density"):
        estimate(toys.model(None, "none"), split)
    with pytest.raises(UserError, match=r"eval\.k=0"):
        estimate(toys.noisy(1.0), split, k=0)


def test_mean_and_its_standard_error():
    values = np.random.default_rng(0).normal(3, 2, 4000)
    mean, se = mean_se(values)
    assert abs(mean - 3) < 4 * se and abs(se - 2 / np.sqrt(4000)) < 0.001


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.2])
def test_pareto_k_finds_the_tail(shape):
    """Weights from a generalized Pareto distribution of known shape; the prior pulls towards 1/2 by 10 / (M + 10)."""
    k = 20000
    u = np.random.default_rng(1).uniform(size=(60, k))
    log_w = np.log(np.sort((u**-shape - 1) / shape, axis=1)[:, ::-1])
    size = tail_size(k)
    assert size == 425
    found = pareto_k(log_w[:, : size + 1])
    expected = (shape * size + 5) / (size + 10)
    assert abs(found.mean() - expected) < 0.04 and found.std() < 0.12


def test_pareto_k_of_degenerate_tails():
    flat = np.zeros((1, 30))
    huge = np.linspace(0, -1e5, 30)[None]
    assert pareto_k(flat)[0] == 0 and pareto_k(huge)[0] == np.inf
    assert np.isnan(pareto_k(np.full((1, 30), np.nan))[0]) and np.isnan(pareto_k(np.zeros((1, 3)))[0])
    assert tail_size(20) == 0 and tail_size(25) == 5 and tail_size(5000) == 213


def vae(width: int):
    """An expensive encoder, a cheap decoder."""

    def log_prob(params, key, batch):
        h = jnp.tanh(batch["x"] @ params["in"])
        h = jnp.tanh(h @ params["deep"])
        z = h[:, :2] + jax.random.normal(key, (len(h), 2))
        return -((z @ params["out"] - batch["x"]) ** 2).sum(-1)

    shapes = {"in": (32, width), "deep": (width, width), "out": (2, 32)}
    return toys.model(log_prob), {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}


def compiled(model, params, k: int, chunk: int, batch: int = 8):
    fn = importance(model, k, chunk)
    run = jax.jit(jax.vmap(lambda p, key, x: fn(p, key, {"x": x[None]}), in_axes=(None, 0, 0)))
    keys = jax.eval_shape(lambda: jax.random.split(KEY, batch))
    return run.lower(params, keys, jax.ShapeDtypeStruct((batch, 32), jnp.float32)).compile()


def test_encoder_runs_once_per_chunk_and_memory_does_not_grow_with_k():
    model, params = vae(128)
    encoder = 2 * 8 * (32 * 128 + 128 * 128)
    flops = compiled(model, params, k=64, chunk=64).cost_analysis()["flops"]
    assert encoder < flops < 4 * encoder, "64 draws must not run the encoder 64 times"
    small, large = (compiled(model, params, k=k, chunk=10).memory_analysis().temp_size_in_bytes for k in (10, 1000))
    top = 4 * 8 * (tail_size(1000) + 1 + 10)  # the kept log-weights, [batch, M + 1 + chunk]
    assert large - small < 6 * top, (small, large)


def test_a_pass_binarizes_each_example_once():
    """The same picture for every k, batch size and estimator; the right probability."""
    split = Split(np.full((50, 400), 4, np.uint8))
    options = dict(levels=17)
    seen = [
        gather(map_split(lambda p, key, one: {"x": one["x"][0]}, split, KEY, batch=batch, draws=draws, **options)({}))["x"]
        for batch, draws in ((50, 1), (7, 100))
    ]
    np.testing.assert_array_equal(seen[0], seen[1])
    assert set(np.unique(seen[0])) == {0, 1} and abs((seen[0] > 0).mean() - 0.25) < 0.02
    assert len(np.unique(seen[0], axis=0)) == 50


def test_the_digits_vae_runs_its_encoder_once_for_all_draws():
    """The program of 64 draws of the default experiment holds 64 decoders, but one encoder."""
    x = setup.make_experiment(configure.load("configs/digits_vae.py"))
    params = jax.eval_shape(x.model.init, KEY, setup.first_batch(x))
    image = jax.ShapeDtypeStruct((8, 8, 8, 1), jnp.uint8)
    fn = importance(x.model, 64, 64)
    run = jax.jit(jax.vmap(lambda p, key, x: fn(p, key, {"x": x[None]}), in_axes=(None, 0, 0)))
    flops = run.lower(params, jax.eval_shape(lambda: jax.random.split(KEY, 8)), image).compile().cost_analysis()["flops"]
    encoder, decoder = (2 * 8 * sum(a.size for a in jax.tree.leaves(params[name])) for name in ("encoder", "decoder"))
    assert 64 * decoder < flops < 64 * decoder * 1.5, "a second encoder would add half as much again"
    assert 64 * encoder > 0.5 * 64 * decoder
