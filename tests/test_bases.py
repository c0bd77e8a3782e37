"""Every base is a density, draws from it, and has a temperature and a one-line refusal."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, PARTS, quick
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.models.parts.bases import BASES, Base

GRID, DRAWS = np.linspace(-80.0, 80.0, 64_001, dtype=np.float32), 4000
CONTEXT = jnp.array([1.0, -0.5, 2.0])


def made(name: str) -> Base:
    return build(PARTS | {name: {"kind": name} | PARTS.get(name, {})}, name, Base)


@functools.cache
def found(name: str):
    """Of a base over one number, its parameters perturbed: log p on a grid, draws at temperatures 1 and 0, the gradient."""
    base = made(name)
    many = jnp.broadcast_to(CONTEXT, (len(GRID), 3))

    @quick
    def everything():
        params = base.init(KEY, (1,), many[:2])
        leaves, tree = jax.tree.flatten(params)
        params = tree.unflatten([a + 0.3 * jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)])

        def draw(temperature):
            return base.sample(params, jax.random.key(1), DRAWS, (1,), temperature, many[:DRAWS])

        def total(params, z):
            return base.log_prob(params, z, many[: len(z)]).sum()

        grads = jax.grad(total, argnums=(0, 1))(params, jnp.array([[-30.0], [0.0], [1e-3], [45.0]]))
        return base.log_prob(params, GRID[:, None], many), draw(1.0), draw(0.0), grads

    return everything()


@pytest.mark.parametrize("name", BASES)
def test_the_density_is_one_and_the_draws_are_its_own(name):
    log_p, z, still, grads = found(name)
    p = np.exp(np.asarray(log_p, np.float64)) * 160 / (len(GRID) - 1)
    assert p.sum() == pytest.approx(1, abs=2e-4)
    assert z.shape == (DRAWS, 1) and log_p.shape == GRID.shape
    points = np.quantile(z, np.linspace(0.05, 0.95, 19))
    np.testing.assert_allclose(np.interp(points, GRID, p.cumsum()), np.linspace(0.05, 0.95, 19), atol=0.03)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    centres = np.unique(np.round(np.asarray(still), 5))
    assert len(centres) <= 3 and (centres >= GRID[0]).all()  # a mixture has three


@pytest.mark.parametrize("name", BASES)
def test_events_of_any_shape_in_float64(name):
    with jax.enable_x64(True):
        base, context = made(name), jnp.ones((5, 3))
        params = base.init(KEY, (2, 3, 1), context)
        z = base.sample(params, KEY, 5, (2, 3, 1), 1.0, context)
        log_p = base.log_prob(params, z, context)
    assert z.shape == (5, 2, 3, 1) and log_p.shape == (5,) and log_p.dtype == jnp.float64 and np.isfinite(log_p).all()


def test_a_mixture_of_one_and_a_gaussian_of_no_context_are_the_normal():
    z, normal = jax.random.normal(KEY, (6, 4)), made("normal")
    mixture = build({"m": dict(kind="gaussian_mixture", components=1, spread=0.0, cap=3.0)}, "m", Base)
    for base, context in ((mixture, None), (made("context_normal"), jnp.ones((6, 2)))):
        params = base.init(KEY, (4,), context)
        np.testing.assert_allclose(base.log_prob(params, z, context), normal.log_prob({}, z), rtol=1e-6)


@pytest.mark.parametrize(
    "part, message",
    [
        (dict(kind="uniform", low=1.0, high=1.0), "low=1 and high=1 are no box"),
        (dict(kind="student_t", df=0.5, learned=True), "df=0.5 is invalid with learned=True"),
        (dict(kind="student_t", df=0.0, learned=False), "parts.b.df=0.0 is invalid"),
        (dict(kind="affine_coupling"), "is a layer, where a base is needed"),
    ],
)
def test_wrong_bases_are_one_line(part, message):
    with pytest.raises(UserError, match=message):
        build({"b": part}, "b", Base)


def test_a_context_normal_without_a_context_is_one_line():
    with pytest.raises(UserError, match=r"needs a context .* set data\.context"):
        made("context_normal").init(KEY, (2,), None)
