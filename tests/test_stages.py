"""Warm starts from another run's parameters, and what a run needs to resume."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import affine, base, mlp
from tests.commands import FLOW, call, train_only
from tests.runs import state
from vaeflow.errors import RunFailed
from vaeflow.evaluation import evaluate
from vaeflow.model import by_path
from vaeflow.nets.mlp import mlp as mlp_net
from vaeflow.training import setup, step


def batch_norm_flow():
    c = base()
    c.data.update(kind="density", name="moons", size=64, batch=16)
    c.model = dict(kind="flow", layer="flow")
    c.parts = dict(flow=dict(kind="chain", of=("batch_norm", "coupling")), coupling=affine("net", "half", False), net=mlp(4))
    return c.lock()


def test_statistics_that_are_held_fixed_are_not_set():
    x = setup.make_experiment(batch_norm_flow())
    params = x.model.init(jax.random.key(0), setup.first_batch(x))
    frozen = frozenset(path for path in by_path(params) if path[1] == "00")
    assert any("stats" in path for path in frozen)
    for held in (frozenset(), frozen):
        first, fixed = step.init_state(params, x.tx, 0.9, held)
        after, _ = jax.jit(step.make_step(x.model, x.tx, 0.9))(first, fixed, setup.first_batch(x), jax.random.key(1))
        assert jax.tree.structure(after) == jax.tree.structure(first)  # else no loop can carry it
        moved = [bool((a != b).any()) for a, b in zip(jax.tree.leaves(after.stats), jax.tree.leaves(first.stats), strict=True)]
        assert bool(moved) == (not held)


def test_a_run_goes_on_when_the_one_that_it_began_with_is_gone(tmp_path):
    source, workdir = tmp_path / "source", tmp_path / "run"
    train_only(*FLOW, "--config.parts.flow.of=norm", "--config.train.steps=10", f"--workdir={source}")
    for key in ("init_from", "fixed_from"):
        shutil.rmtree(workdir, ignore_errors=True)
        words = (*FLOW, "--config.train.steps=20", f"--config.{key}={source}", f"--workdir={workdir}")
        assert f"{key}=" in train_only(*words)
        whole = state(workdir)
        shutil.rmtree(workdir / "checkpoints" / "last" / "20")
        source.rename(tmp_path / "gone")
        assert "resuming from step 10 of 20" in train_only(*words)
        (tmp_path / "gone").rename(source)
        for name, leaf in state(workdir).items():
            np.testing.assert_array_equal(leaf, whole[name], err_msg=name)


def test_a_validation_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "make_validate", lambda *_: lambda *_: {"loss": float("nan")})
    with pytest.raises(RunFailed, match=r"non-finite at step 10: validation loss=nan"):
        call("train", *FLOW, "--config.train.steps=10", f"--workdir={tmp_path / 'nan'}")
    assert not list((tmp_path / "nan" / "checkpoints").glob("*/[0-9]*"))


def test_context_broadcasts_against_the_rows_of_a_network():
    module = mlp_net(hidden=(4,), activation="tanh", dtype="float32").module((3,), 1, False)
    x, context = jnp.ones((1, 2)), jnp.eye(5)
    params = module.init(jax.random.key(0), x, context)
    out = module.apply(params, x, context)
    assert out.shape == (5, 3)
    np.testing.assert_allclose(out[1:2], module.apply(params, x, context[1:2]), rtol=1e-6)
