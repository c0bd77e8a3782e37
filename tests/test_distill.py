"""Distillation: the KL is the KL, the teacher comes from another run and stays as it is."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands import FLOW, call, refusal, train_only
from tests.model_cases import FLOW as FLOW_VALUES
from tests.model_cases import KEY, config, group
from vaeflow.evaluation.results import flat
from vaeflow.model import split_params
from vaeflow.models import MODELS, build_model
from vaeflow.training.warm_start import load_params

TEACHER = FLOW_VALUES | dict(event=(2,), layer="nice_scaling")
GAUSS = MODELS["distill"].examples[0] | dict(layer="nice_scaling", teacher=group("flow", TEACHER))
SMALL = (*FLOW[1:], "--config.train.steps=10", "--config.data.size=320")
STUDENT = """
from configs import densities
from ml_collections import ConfigDict

ROWS = {"": "a student of a flow in the plane"}

def get_config(row=""):
    c = densities.get_config()
    c.model = ConfigDict(dict(kind="distill", teacher="configs/densities.py", layer="flow", base="normal", flatten=False))
    return c
"""


def test_the_loss_is_the_divergence_of_two_gaussians():
    """KL(N(0, s^2) || N(0, t^2)) = log t/s + s^2 / (2 t^2) - 1/2 per dimension."""
    m = build_model(config("distill", GAUSS))
    batch = {"x": jnp.zeros((4000, 2))}
    params = m.init(KEY, batch)
    assert set(params) == {"layer", "fixed"} and set(split_params(params)[2]) == {"fixed"}
    fixed = jax.tree.map(lambda a: a + 0.2, params["fixed"])
    params = params | {"layer": jax.tree.map(lambda a: a + 0.4, params["layer"]), "fixed": fixed}
    s, t = jnp.exp(0.4), jnp.exp(0.2)
    exact = 2 * (jnp.log(t / s) + s**2 / (2 * t**2) - 0.5)
    loss, metrics = m.loss(params, KEY, batch, 0)
    terms = m.terms(params, KEY, {"x": batch["x"][:500]})  # type: ignore[misc]
    assert terms["kl_to_teacher"].shape == (500,)
    for found in (loss, metrics["cross_entropy"] - metrics["entropy"], terms["kl_to_teacher"].mean()):
        assert abs(float(found - exact)) < 0.1
    assert metrics["entropy"] == pytest.approx(2 * (0.5 * np.log(2 * np.pi * np.e) + 0.4), abs=0.1)


def test_a_student_learns_from_a_run(tmp_path):
    teacher, student, config = tmp_path / "teacher", tmp_path / "student", tmp_path / "student.py"
    config.write_text(STUDENT)
    train_only(*FLOW[:1], *SMALL, f"--workdir={teacher}")
    words = (f"--config={config}", *SMALL, f"--workdir={student}")
    assert "then add --config.model.teacher=runs/densities" in refusal("train", *words)
    words = (*words, f"--config.model.teacher={teacher}")
    assert "kl_to_teacher" in call("train", *words)
    results = flat(json.loads((student / "results.json").read_text()))
    assert results["kl_to_teacher"] == pytest.approx(results["cross_entropy"] - results["entropy"], abs=1e-3)
    assert results["kl_to_teacher_se"] > 0 and np.isfinite(results["nll"]) and "loss" not in results
    held = load_params(student)["fixed"]["teacher"]
    for a, b in zip(jax.tree.leaves(load_params(teacher)), jax.tree.leaves(held), strict=True):
        np.testing.assert_array_equal(a, b)
