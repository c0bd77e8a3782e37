"""The optimiser of a config: schedules at given steps, every method, clipping, the moving average."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.toys import sections
from vaeflow.build import call
from vaeflow.config import plain
from vaeflow.errors import UserError
from vaeflow.training import optimizer


def section(**changes) -> optimizer.OptimConfig:
    return call(optimizer.OptimConfig, plain(sections().optim) | changes, "optim")


@pytest.mark.parametrize(
    ("changes", "step", "fraction"),
    [
        (dict(schedule="constant"), 70, 1.0),
        (dict(schedule="constant", warmup=10), 0, 0.1),
        (dict(schedule="constant", warmup=10), 4, 0.5),
        (dict(schedule="constant", warmup=10), 50, 1.0),
        (dict(schedule="cosine"), 0, 1.0),
        (dict(schedule="cosine"), 50, 0.5),
        (dict(schedule="cosine"), 100, 0.0),
        (dict(schedule="cosine", final_fraction=0.1), 100, 0.1),
        (dict(schedule="cosine", warmup=20), 60, 0.5),
        (dict(schedule="step", decay_every=30, decay_rate=0.5), 59, 0.5),
        (dict(schedule="step", decay_every=30, decay_rate=0.5), 60, 0.25),
        (dict(schedule="exponential", decay_every=30, decay_rate=0.5), 45, 0.5**1.5),
        (dict(schedule="stages", decay_every=7, decay_rate=0.5), 6, 1.0),  # stages of 7, 21, 63 steps
        (dict(schedule="stages", decay_every=7, decay_rate=0.5), 7, 0.5),
        (dict(schedule="stages", decay_every=7, decay_rate=0.5), 27, 0.5),
        (dict(schedule="stages", decay_every=7, decay_rate=0.5), 28, 0.25),
        (dict(schedule="stages", decay_every=7, decay_rate=0.5, warmup=10), 38, 0.25),
        (dict(schedule="stages", decay_every=7, decay_rate=0.5), 99, 0.125),
    ],
)
def test_schedules(changes, step, fraction):
    rate = optimizer.schedule(section(learning_rate=0.02, **changes), 100)
    assert float(rate(jnp.int32(step))) == pytest.approx(0.02 * fraction, abs=1e-8)


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "nadam", "radam", "lamb", "lion", "rmsprop", "sgd"])
def test_every_method_descends(name):
    tx = optimizer.make_optimizer(section(name=name, learning_rate=0.02), 200)
    params = {"w": jnp.array([1.0, -2.0])}

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(lambda p: (p["w"] ** 2).sum())(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (end, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, length=300))(params)
    assert float((end["w"] ** 2).sum()) < 1.0  # 5 at the start


def test_clipping_bounds_the_global_norm():
    tx = optimizer.make_optimizer(section(name="sgd", b1=0.0, learning_rate=1.0, clip=0.5), 10)
    grads = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5)
    np.testing.assert_allclose(updates["a"] / updates["b"], 0.75, rtol=1e-6)


def test_weight_decay_is_decoupled():
    tx = optimizer.make_optimizer(section(name="adamw", learning_rate=0.1, weight_decay=0.3), 10)
    params = {"w": jnp.array([2.0])}
    updates, _ = tx.update({"w": jnp.zeros(1)}, tx.init(params), params)
    assert float(updates["w"][0]) == pytest.approx(-0.1 * 0.3 * 2.0)


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion"])
def test_weight_decay_of_kernels_alone(name):
    tx = optimizer.make_optimizer(section(name=name, learning_rate=0.1, weight_decay=0.3, decay_on="kernels"), 10)
    params = {"net": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}, "log_scale": jnp.array([2.0])}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert float(updates["net"]["kernel"][0]) < 0 == float(updates["net"]["bias"][0]) == float(updates["log_scale"][0])


def test_the_moving_average_forgets_the_start_and_then_decays():
    ema = {"w": jnp.array(0.0)}
    for step in range(2000):
        ema = optimizer.ema_update(ema, {"w": jnp.array(1.0)}, jnp.int32(step), 0.99)
        if step == 3:
            assert float(ema["w"]) > 1 - math.prod((1 + t) / (10 + t) for t in range(4)) - 1e-6
    assert float(ema["w"]) == pytest.approx(1.0, abs=1e-4)
    late = optimizer.ema_update({"w": jnp.array(0.0)}, {"w": jnp.array(1.0)}, jnp.int32(10_000), 0.99)
    assert float(late["w"]) == pytest.approx(0.01, rel=1e-4)


def test_impossible_values_are_named():
    with pytest.raises(UserError, match=r"optim.warmup=100.*train.steps=100"):
        optimizer.make_optimizer(section(warmup=100), 100)
    with pytest.raises(UserError, match=r"optim.weight_decay=0.1.*adamw"):
        optimizer.make_optimizer(section(weight_decay=0.1), 100)
    for key, value in (("learning_rate", float("nan")), ("learning_rate", -1.0), ("b1", 1.0), ("clip", -0.5), ("name", "adm")):
        with pytest.raises(UserError, match=f"optim.{key}="):
            section(**{key: value})
