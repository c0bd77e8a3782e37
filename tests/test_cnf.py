"""Continuous flows beyond the laws: order of the solver, traces, penalties, gradients, and the layer in a flow and in a VAE."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.bijector_laws import mass, perturbed, quick_jit
from tests.model_cases import PARTS
from vaeflow.bijectors import Layer
from vaeflow.bijectors.cnf import cnf
from vaeflow.diffusion.ode import SOLVERS
from vaeflow.errors import UserError
from vaeflow.models import build_model
from vaeflow.models.flow import flow
from vaeflow.nets.concat_squash import concat_squash
from vaeflow.nets.conv import convnet
from vaeflow.nets.embedding import fourier
from vaeflow.nets.net import Net

SQUASH = concat_squash(hidden=(8, 8), activation="tanh")
KEY = jax.random.key(0)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def started(layer: Layer, shape: tuple[int, ...], context: bool = False, scale: float = 0.8):
    """(parameters far from the identity, x [4, *shape], context [4, 2] or None), of the default precision."""
    draws = np.random.default_rng(0)
    x = jnp.asarray(draws.normal(size=(4, *shape)))
    c = jnp.asarray(draws.normal(size=(4, 2))) if context else None
    return perturbed(quick_jit(layer.init)(KEY, x, c), scale), x, c


@pytest.mark.parametrize(
    "solver, net, shape",
    [("euler", SQUASH, (3,)), ("rk4", SQUASH, (3,)), ("rk4", convnet(channels=(4,), activation="tanh"), (2, 2, 1))],
    ids=["euler on vectors", "rk4 on vectors", "rk4 on images"],
)
def test_errors_fall_at_the_order_of_the_solver(float64, solver, net, shape):
    """Of the round trip, and of log_det against slogdet of the Jacobian of the solved map, by autodiff."""

    def layer_of(steps):
        return cnf(net=net, images=len(shape) == 3, solver=solver, steps=steps)

    params, x, context = started(layer_of(1), shape, context=True)

    @quick_jit
    def errors(params):
        found = []
        for steps in (8, 16):
            bijector = layer_of(steps).bijector(params, context=context)
            z, log_det = bijector.inverse_and_log_det(x)
            back, minus = bijector.forward_and_log_det(z)

            def one(x, c, steps=steps):
                return layer_of(steps).bijector(params, context=c).inverse(x).reshape(-1)

            found.append((jnp.linalg.norm(back - x), jnp.linalg.norm(minus + log_det), log_det, jax.vmap(jax.jacrev(one))(x, context)))
        return found

    (*coarse, log_det, jacobian), (*fine, log_det2, jacobian2) = errors(params)
    coarse, fine = (
        [*pair, np.linalg.norm(value - np.linalg.slogdet(np.asarray(matrix).reshape(4, x[0].size, -1))[1])]
        for pair, value, matrix in ((coarse, log_det, jacobian), (fine, log_det2, jacobian2))
    )
    assert np.abs(log_det).max() > 0.1
    assert np.all(np.log2(np.divide(coarse, fine)) > SOLVERS[solver].order - 0.35), (coarse, fine)


def test_hutchinsons_estimate():
    """In training with a key: unbiased, one probe an example, the same in both directions; above 64 dimensions without being asked."""
    layer = cnf(net=SQUASH, trace="hutchinson", solver="heun", steps=16)
    params, x, _ = started(layer, (3,))
    x = x.at[1].set(x[0])

    @quick_jit
    def run(params, x):
        drawn = jax.vmap(lambda key: layer.bijector(params, key=key, train=True).inverse_and_log_det(x))(jax.random.split(KEY, 4000))
        bijector = layer.bijector(params, key=KEY, train=True)
        z, log_det = bijector.inverse_and_log_det(x)
        alone = layer.bijector(params, key=KEY, train=True).inverse_and_log_det(x[:1])[1]
        exact = [layer.bijector(params, key=key, train=train).inverse_and_log_det(x)[1] for key, train in ((KEY, False), (None, True))]
        return drawn, log_det, bijector.forward_and_log_det(z)[1], alone, exact

    (z, drawn), log_det, back, alone, exact = jax.tree.map(np.asarray, run(params, x))
    assert np.ptp(z, axis=0).max() == 0  # the probe estimates log_det alone
    spread = np.std(drawn, axis=0)
    assert spread.min() > 0.1
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - exact[0]), 4 * spread / 4000**0.5)
    np.testing.assert_array_equal(exact[0], exact[1])
    np.testing.assert_allclose(back, -log_det, atol=1e-3)
    np.testing.assert_allclose(alone, log_det[:1], rtol=1e-5)
    assert abs(log_det[0] - log_det[1]) > 1e-3 and abs(exact[0][0] - exact[0][1]) < 1e-5

    def gap(size, trace):
        wide = cnf(net=linear(), trace=trace, solver="euler", steps=1)
        params = {"net": {"kernel": jnp.ones((size, size))}}
        found: Any = [wide.bijector(params, key=KEY, train=train).inverse_and_log_det(jnp.ones((1, size))) for train in (True, False)]
        log_dets = [float(log_det[0]) for _, log_det in found]
        assert log_dets[1] == size
        return abs(log_dets[0] - log_dets[1])

    assert gap(64, "auto") == gap(65, "exact") == 0 and gap(65, "auto") > 1 and gap(64, "hutchinson") > 1


class Linear(nn.Module):
    """x -> x A, whatever the context."""

    out: tuple[int, ...]

    @nn.compact
    def __call__(self, x, context=None):
        return x @ self.param("kernel", nn.initializers.zeros_init(), (x.shape[-1], *self.out))


def linear() -> Net:
    return Net(lambda out, event_ndims=1, zero_head=False: Linear(tuple(out)))


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_penalties_of_a_linear_field(float64, trace):
    """f = (s I + w R) x with a quarter turn R: |f|^2 = (s^2 + w^2) |x_0|^2 exp(2 s t), ||J||_F^2 = 2 (s^2 + w^2), also by any probe."""
    s, w, kinetic, jacobian = 0.4, 1.1, 0.3, 0.2
    params = {"net": {"kernel": jnp.array([[s, w], [-w, s]])}}
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    layer = cnf(net=linear(), steps=32, trace=trace, kinetic=kinetic, jacobian=jacobian)
    penalty = (s**2 + w**2) * (kinetic * np.sum(x**2, -1) * (np.exp(2 * s) - 1) / (2 * s) + 2 * jacobian)

    train, evaluation = (layer.bijector(params, key=KEY, train=train) for train in (True, False))
    z, log_det = train.inverse_and_log_det(x)
    np.testing.assert_allclose(log_det, 2 * s - penalty, rtol=1e-5)
    back, log_det = train.forward_and_log_det(z)
    np.testing.assert_allclose(log_det, -2 * s - penalty, rtol=1e-5)  # lowered in both directions
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(evaluation.inverse_and_log_det(x)[1], 2 * s, rtol=1e-6)
    np.testing.assert_allclose(evaluation.forward_and_log_det(z)[1], -2 * s, rtol=1e-6)

    model = flow(event=(2,), layer=layer)
    loss, _ = model.loss({"layer": params}, KEY, {"x": x}, 0)
    assert model.log_prob is not None
    np.testing.assert_allclose(loss, -np.mean(model.log_prob({"layer": params}, KEY, {"x": x})) + np.mean(penalty), rtol=1e-5)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_gradients_are_finite_differences(float64, trace):
    layer = cnf(net=SQUASH, solver="midpoint", steps=3, trace=trace, kinetic=0.3, jacobian=0.2)
    params, x, context = started(layer, (3,), context=True)

    def loss(inputs):
        params, x, context = inputs
        z, log_det = layer.bijector(params, context=context, key=KEY, train=True).inverse_and_log_det(x)
        return jnp.mean(jnp.sum(jnp.sin(z), -1) + log_det)

    inputs = params, x, context
    draws, step = np.random.default_rng(1), 1e-6
    direction = jax.tree.map(lambda a: jnp.asarray(draws.normal(size=a.shape)), inputs)
    gradient = quick_jit(jax.grad(loss))(inputs)
    parts = [
        sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, pair), strict=True)) for pair in zip(gradient, direction, strict=True)
    ]
    assert min(map(abs, parts)) > 1e-3
    value = quick_jit(lambda h: loss(jax.tree.map(lambda a, d: a + h * d, inputs, direction)))
    np.testing.assert_allclose(sum(parts), (value(step) - value(-step)) / (2 * step), rtol=1e-7)


def test_densities_integrate_to_1_far_from_the_identity():
    layer = cnf(net=SQUASH, solver="heun", steps=32)
    params = perturbed(layer.init(KEY, jnp.zeros((1, 2)), jnp.ones((1, 3))), 0.8)
    z = layer.bijector(params, context=jnp.ones((1, 3))).inverse(jnp.eye(2))
    assert float(jnp.max(jnp.abs(z - jnp.eye(2)))) > 0.3
    assert abs(mass(layer, params, (2,)) - 1) < 0.01


def test_embedding_shapes_and_jit():
    """Features of the time are fixed parameters; without jit, with leading draws and one context for all, values are the same."""
    layer = cnf(net=SQUASH, embedding=fourier(width=4, scale=0.5), solver="midpoint", steps=8)
    params, x, context = started(layer, (3,), context=True)
    assert params["time"]["fixed"]["frequencies"].shape == (2,)
    assert params["net"]["gate_0"]["kernel"].shape[0] == 4 + 2

    def run(x, c) -> Any:
        return layer.bijector(params, context=c).inverse_and_log_det(x)

    z, log_det = run(x, context)
    for a, b in zip(jax.jit(run)(x, context), (z, log_det), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert context is not None
    draws, log_dets = run(jnp.stack([x, x + 1]), context[:1])
    np.testing.assert_allclose(draws[0, 0], z[0], rtol=1e-5)
    np.testing.assert_allclose(log_dets[0, 0], log_det[0], rtol=1e-5, atol=1e-6)
    assert draws.shape == (2, 4, 3) and log_dets.shape == (2, 4)
    assert float(jnp.max(jnp.abs(run(x, context + 1)[0] - z))) > 1e-3


@pytest.mark.parametrize("images, shape", [(True, (3,)), (False, (2, 2, 1))], ids=str)
def test_events_of_the_other_rank(images, shape):
    with pytest.raises(UserError, match=f"cnf: images={images} needs events"):
        cnf(net=SQUASH, images=images).init(KEY, jnp.zeros((2, *shape)))


def test_prior_and_posterior_of_a_vae():
    """q(z|x) and p(z) integrate to 1, the training loss has the penalties of both, and every parameter has a gradient."""

    def make(weight: float):
        ode = dict(kind="cnf", net="net", solver="heun", steps=8, kinetic=weight, jacobian=weight)
        names = dict(encoder="net", decoder="net", prior="ode", posterior="ode", posterior_context=2, objective="monte_carlo")
        return build_model(
            ConfigDict(
                dict(
                    model=dict(kind="vae", event=(6,), levels=2, latent=2, **names),
                    parts={name: PARTS[name] for name in ("net", "monte_carlo")} | dict(ode=ode),
                    sample={},
                )
            )
        )

    plain, penalised = make(0.0), make(0.1)
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (3, 6)).astype(jnp.uint8)}
    params = perturbed(quick_jit(plain.init)(KEY, batch), 0.1)
    axis = jnp.linspace(-8, 8, 81)
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 1, 2)

    @quick_jit
    def run(params):
        assert plain.latent is not None and plain.log_prob is not None and penalised.log_prob is not None
        q = plain.latent.posterior(params, batch["x"]).log_prob(jnp.broadcast_to(z, (len(z), 3, 2)))
        p = plain.latent.prior(params).log_prob(z)
        losses = plain.loss(params, KEY, batch, 0)[0], penalised.loss(params, KEY, batch, 0)[0]
        weights = plain.log_prob(params, KEY, batch), penalised.log_prob(params, KEY, batch)
        return q, p, losses, weights, jax.grad(lambda p: penalised.loss(p, KEY, batch, 0)[0])(params)

    q, p, losses, weights, gradient = jax.tree.map(np.asarray, run(params))
    cell = 0.2**2
    np.testing.assert_allclose(np.exp(q).sum(0) * cell, 1, atol=1e-2)
    np.testing.assert_allclose(np.exp(p).sum() * cell, 1, atol=1e-2)
    assert losses[1] > losses[0] + 1e-4
    np.testing.assert_array_equal(*weights)
    assert all(np.any(a) and np.all(np.isfinite(a)) for a in jax.tree.leaves(gradient))
