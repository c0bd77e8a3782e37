"""Refinement of q(z|x): it closes the amortisation gap and leaves the approximation gap, where both are known."""

from __future__ import annotations

import distrax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.diagnose_toys import run
from tests.model_cases import quick
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import refine

SETTINGS = refine.RefineSettings(steps=150, learning_rate=0.05, draws=8, k=300)
# x = W z + noise with columns that are not orthogonal: the coordinates of the posterior depend on each other.
CORRELATED = np.array([[1.0, 0.8], [-0.5, 0.3], [1.0, 1.0]], np.float32)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Every pass here runs once."""
    monkeypatch.setattr("vaeflow.evaluation.map_split.jax.jit", quick)


def test_the_gaps_of_a_linear_gaussian_model(monkeypatch):
    """The encoder is twice as wide as the best diagonal Gaussian, whose precisions are those of the posterior's diagonal."""
    monkeypatch.setattr(toys, "W", CORRELATED)
    r = run(toys.linear_gaussian(2.0), toys.split(24))
    refine.needs(r, SETTINGS)
    precision = np.eye(2) + CORRELATED.T @ CORRELATED / toys.SIGMA**2
    approximation = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])  # KL(q* || p(z|x))
    amortisation = 2 * (0.5 * (2.0**2 - 1) - np.log(2.0))  # KL(q0 || p(z|x)) - KL(q* || p(z|x)), of two dimensions
    found = refine.check(r, SETTINGS)
    assert approximation > 0.2
    for name, expected in (("amortisation_gap", amortisation), ("approximation_gap", approximation)):
        value, se = found[name].value, found[name].se
        assert se is not None and abs(value - expected) < 4 * se < 0.3, name
    log_p = toys.linear_gaussian_log_p(r.split.x).mean()
    assert abs(found["log_p"].value - log_p) < 4 * found["log_p_mc_se"].value < 0.2
    total = found["amortisation_gap"].value + found["approximation_gap"].value
    assert found["inference_gap"].value == pytest.approx(total, abs=1e-4)


def test_only_a_diagonal_gaussian_can_be_refined():
    whole = toys.linear_gaussian()
    own = whole.latent
    assert own is not None
    full = own._replace(posterior=lambda params, x, context=None: distrax.MultivariateNormalTri(x[:, :2], jnp.eye(2)))
    with pytest.raises(UserError, match="no diagonal Gaussian"):
        refine.needs(run(whole._replace(latent=full), toys.split(4)), SETTINGS)
