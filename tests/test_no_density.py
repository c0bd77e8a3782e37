"""Families without a density, with a noisy bound, and with a moving average of their parameters go through every command."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import call, refusal
from vaeflow.build import Positive
from vaeflow.evaluation import evaluate
from vaeflow.evaluation.likelihood import average
from vaeflow.evaluation.results import flat, format_results
from vaeflow.model import Model
from vaeflow.models import MODELS, ModelEntry
from vaeflow.runs.checkpoint_reader import committed_steps
from vaeflow.runs.metrics import read_metrics
from vaeflow.training import dependence

CONFIG = '''"""A family of the tests: --config=configs/FAMILY.py"""
from configs.base import base

ROWS = {"": "as it is"}


def get_config(row=""):
    c = base()
    c.model = dict(kind="KIND", size=1.0)
    c.sample = dict(n=8)
    c.data.update(kind="density", name="rings", size=256, batch=32)
    c.train.update(steps=20, log_every=10, eval_every=10, checkpoint_every=10)
    c.eval.update(k=6, chunk=4)
    return c
'''


def generator(*, size: Positive) -> Model:
    """x = a z + b, z ~ N(0, size^2 I): learned by the moments, without a density."""

    def init(key, batch, given=None):
        d = batch["x"].shape[-1]
        return {"a": jnp.ones(d), "b": jnp.zeros(d)}

    def draw(params, key, n):
        return params["a"] * size * jax.random.normal(key, (n, *params["a"].shape)) + params["b"]

    def loss(params, key, batch, step):
        y, x = draw(params, key, len(batch["x"])), batch["x"]
        total = jnp.sum((y.mean(0) - x.mean(0)) ** 2 + (y.std(0) - x.std(0)) ** 2)
        return total, {"loss": total}

    return Model(init, loss, lambda params, key, n, context=None: {"x": draw(params, key, n)}, None, "none")


def noisy_bound(*, size: Positive) -> Model:
    """N(b, I) minus size |e|, e ~ N(0, 1): a bound whose draws differ; `target` is a moving average of b."""

    def init(key, batch, given=None):
        zero = jnp.zeros(batch["x"].shape[-1])
        return {"b": zero, "stats": {"target": zero}}

    def log_prob(params, key, batch):
        square = jnp.sum((batch["x"] - params["b"]) ** 2, -1)
        return -0.5 * square - jnp.log(2 * jnp.pi) - size * jnp.abs(jax.random.normal(key, square.shape))

    def loss(params, key, batch, step):
        total = -jnp.mean(log_prob(params, key, batch))
        return total, {"loss": total}

    def update(params, key, batch, step):
        target = 0.9 * params["stats"]["target"] + 0.1 * params["b"]
        return params | {"stats": {"target": target}}

    def sample(params, key, n, context=None):
        return {"x": params["b"] + jax.random.normal(key, (n, *params["b"].shape))}

    return Model(init, loss, sample, log_prob, "bound", update=update)


@pytest.fixture
def families(tmp_path, monkeypatch) -> Path:
    for kind, make in (("generator", generator), ("noisy_bound", noisy_bound)):
        monkeypatch.setitem(MODELS, kind, ModelEntry(make, (), context=False))
        (tmp_path / f"{kind}.py").write_text(CONFIG.replace("KIND", kind))
    return tmp_path


def test_a_model_without_a_density(families):
    config, run = families / "generator.py", families / "run"
    text = call("train", f"--config={config}", f"--workdir={run}")
    assert "finished all 20 steps" in text and "no density" in text and "last parameters" in text
    assert committed_steps(run / "checkpoints" / "last") and not committed_steps(run / "checkpoints" / "best")
    assert [row["split"] for row in read_metrics(run)] == ["train", "train"]
    assert "8 samples, seed 3" in call("sample", f"--workdir={run}", "--seed=3")
    assert np.load(run / "samples.npz")["x"].shape == (8, 2)
    assert "samples" in str(flat(json.loads((run / "results.json").read_text()))["figures"])
    assert "run" in call("compare", run, f"--output={families / 'curves.png'}")
    call("explore", f"--workdir={run}")
    assert "has no latents and no density" in refusal("encode", f"--workdir={run}")
    for word, held in (("train.patience=2", "train.patience=2 needs a validation loss"), ("eval.params=best", "eval.params='best' needs")):
        line = refusal("train", f"--config={config}", f"--config.{word}", f"--workdir={families / 'other'}")
        assert held in line and "generator" in line
    assert "finished" in call("train", f"--config={config}", f"--workdir={run}")


def test_a_bound_is_the_mean_of_k_draws(families):
    run = families / "run"
    text = call("train", f"--config={families / 'noisy_bound.py'}", f"--workdir={run}", "--config.eval.k=40", "--config.train.accumulate=2")
    assert "upper bound on the NLL" in text and "the mean of 40 draws: Monte Carlo s.e." in text
    found = flat(json.loads((run / "results.json").read_text()))
    assert found["k"] == 40 and found["estimator"] == "bound, mean of 40 draws"
    # |e| has the variance 1 - 2/pi; every example has its own draws.
    expected = np.sqrt((1 - 2 / np.pi) / 40 / found["examples"])
    assert found["nll_mc_se"] == pytest.approx(expected, rel=0.1)
    again = call("evaluate", f"--workdir={run}", "--config.eval.k=1")
    assert "Monte Carlo s.e." not in again


def test_averages_do_not_depend_on_the_chunk():
    model = noisy_bound(size=1.0)
    params, batch = {"b": jnp.zeros(3)}, {"x": jnp.ones((1, 3))}
    whole, parts = (jax.jit(average(model, 7, chunk))(params, jax.random.key(1), batch) for chunk in (0, 3))
    draws = np.array([model.log_prob(params, jax.random.fold_in(jax.random.key(1), i), batch)[0] for i in range(7)])
    for found in (whole, parts):
        np.testing.assert_allclose(found["log_prob"], draws.mean(), rtol=1e-5)
        np.testing.assert_allclose(found["se"], draws.std(ddof=1) / np.sqrt(7), rtol=1e-4)
    one = average(model, 1)(params, jax.random.key(1), batch)
    np.testing.assert_array_equal(one["log_prob"], draws[0])


def test_what_a_function_reads():
    def f(a, b, c):
        return {"x": a["u"] * 2, "y": jnp.sin(jax.jit(lambda v: v + 1)(c))}

    args = ({"u": jnp.ones(2), "v": jnp.ones(2)}, jnp.ones(3), jnp.ones(1))
    assert [dependence.reads(f, args, i) for i in range(3)] == [True, False, True]
    assert dependence.reads(lambda a, b: b, (1.0, 2.0), 1) and not dependence.reads(lambda a, b: b, (1.0, 2.0), 0)
    assert not dependence.reads(lambda a: jnp.ones(2), (1.0,), 0)


def test_the_density_of_the_plane_is_computed_once(families, monkeypatch):
    from vaeflow.evaluation import density_grid

    calls = []
    real = density_grid.density
    monkeypatch.setattr(density_grid, "density", lambda *args, **options: (calls.append(1), real(*args, **options))[1])
    words = ("--config.train.steps=2", "--config.parts.net.hidden=8", "--config.parts.steps.n=1", "--config.data.size=64")
    call("train", "--config=configs/densities.py", *words, "--config.data.batch=32", f"--workdir={families / 'plane'}")
    assert len(calls) == 1


def test_a_function_with_effects_reads_everything():
    def f(a):
        held = jax.new_ref(jnp.zeros(()))
        held[...] = a
        return held[...]

    assert dependence.reads(f, (1.0,), 0)


def test_an_estimate_is_averaged_outside_the_log_and_not_integrated():
    """log p(x) + e with e of mean 0: the mean of k draws is unbiased, where IWAE-k would be too high by about 1/2 Var e."""
    split, exact = toys.split(400, (2,)), toys.gaussian_flow()

    def log_prob(params, key, batch):
        return exact.log_prob(params, key, batch) + jax.random.normal(key, (len(batch["x"]),))

    model = toys.model(log_prob, "estimate")
    found = evaluate.results(model, {}, toys.source(split), "test", toys.config(k=50, batch=100))
    truth = evaluate.results(exact, {}, toys.source(split), "test", toys.config(batch=100))["nll"]
    assert found["estimator"] == "unbiased estimate, mean of 50 draws" and found["nll_mc_se"] == pytest.approx((50 * 400) ** -0.5, rel=0.1)
    assert abs(found["nll"] - truth) < 4 * found["nll_mc_se"]
    assert "integral" not in found and "ess" not in found
    text = format_results(found)
    assert "an unbiased estimate of the log-likelihood" in text and "NLL (unbiased estimate, mean of 50 draws)" in text
    assert "the mean of 50 draws: Monte Carlo s.e." in text
