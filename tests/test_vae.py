"""The VAE's and the flow's numbers: against analytic cases, against each other, and what they cost."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import FLOW, KEY, VAE, config, quick
from vaeflow import objectives
from vaeflow.evaluation.sampling import draw
from vaeflow.models import build_model

DATA, LATENT, NOISE = 5, 3, 0.4
LINEAR = dict(kind="mlp", hidden=(), activation="relu", dtype="float32")


def make(name: str = "vae", base: dict[str, Any] = VAE, parts: dict[str, Any] | None = None, loss: Any = None, **values: Any) -> Any:
    """A model; loss: its objective as a part."""
    parts = (parts or {}) | ({} if loss is None else {"objective": loss})
    c = config(name, base | ({} if loss is None else {"objective": "objective"}) | values).unlock()
    for key, part in parts.items():
        c.parts[key] = part
    return build_model(c)


def linear_gaussian(levels: int = 0, **values: Any):
    """(model, parameters, batch, log p(x) [B]): x = W z + b + NOISE e with orthogonal columns of W, the exact posterior in the
    encoder, so every log-weight is log p(x) = log N(b, W W' + NOISE^2 I), less D log(levels-1) for grey values."""
    rng = np.random.default_rng(0)
    w = np.linalg.qr(rng.normal(size=(DATA, LATENT)))[0] * [1.5, 0.7, 0.1]
    b = rng.normal(size=DATA)
    variance = 1 / (1 + (w**2).sum(0) / NOISE**2)
    gain = variance * w / NOISE**2  # [DATA, LATENT]
    params = {
        "decoder": {"head": {"kernel": w.T, "bias": b}},
        "encoder": {"head": {"kernel": np.hstack([gain, 0 * gain]), "bias": np.concatenate([-b @ gain, np.log(variance)])}},
    }
    values = dict(event=(DATA,), latent=LATENT, levels=levels, likelihood="gaussian", likelihood_std=NOISE) | values
    model = make(parts=dict(net=LINEAR), std="log_variance", **values)
    x = rng.integers(0, levels, (64, DATA)).astype(np.uint8) if levels else rng.normal(size=(64, LATENT)) @ w.T + b
    top = max(levels - 1, 1)
    cov = w @ w.T + NOISE**2 * np.eye(DATA)
    r = x / top - b
    log_p = -0.5 * ((r @ np.linalg.inv(cov)) * r).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1] - DATA * np.log(top)
    x = x if levels else x.astype(np.float32)
    return model, jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), params), {"x": jnp.asarray(x)}, log_p


def draws(model, params, batch, n: int, seed: int = 0):
    """[n, B] log-weights."""
    keys = jax.random.split(jax.random.key(seed), n)
    return quick(jax.vmap(model.log_prob, (None, 0, None)))(params, keys, batch)


@pytest.mark.parametrize("levels", [0, 17])
def test_linear_gaussian_log_weights_are_the_marginal_likelihood(levels):
    model, params, batch, log_p = linear_gaussian(levels)
    log_w = draws(model, params, batch, 7)
    np.testing.assert_allclose(log_w, np.broadcast_to(log_p, (7, 64)), rtol=2e-5, atol=2e-4)
    keys = jax.random.split(KEY, 50)
    loss = quick(jax.vmap(lambda key: model.loss(params, key, batch, 0)[0]))(keys).mean()
    assert loss == pytest.approx(-log_p.mean(), abs=0.1)  # analytic KL: the reconstruction's noise remains
    monte_carlo = linear_gaussian(levels, loss=dict(kind="elbo", kl="monte_carlo"))[0]
    assert quick(monte_carlo.loss)(params, KEY, batch, 0)[0] == pytest.approx(-log_p.mean(), rel=2e-5, abs=1e-3)


def test_bounds_are_ordered_below_the_marginal_likelihood():
    model, params, batch, log_p = linear_gaussian()
    params["encoder"]["head"]["bias"] += jnp.array([0.1, -0.1, 0.3, 0.4, -0.2, 0.2])  # a wrong posterior
    elbo, iwae = objectives.elbo, objectives.iwae
    bounds = [float(f(draws(model, params, batch, k, seed=k)).mean()) for f, k in ((elbo, 200), (iwae, 10), (iwae, 5000))]
    assert bounds[0] < bounds[1] - 0.05 and bounds[1] < bounds[2] - 0.01
    assert bounds[2] == pytest.approx(log_p.mean(), abs=0.01)


def test_analytic_kl_is_the_mean_of_the_monte_carlo_kl():
    x = jax.random.normal(KEY, (8, 6))
    found = []
    for kl, k in (("auto", 1), ("monte_carlo", 5000)):
        model = make(levels=0, likelihood="gaussian", loss=dict(kind="elbo", kl=kl, k=k))
        params = quick(model.init)(KEY, {"x": 3 * x})
        found.append(float(quick(model.loss)(params, KEY, {"x": 3 * x}, 0)[1]["kl"]))
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_beta_and_free_bits_change_the_objective_and_not_the_metrics():
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (16, 6)).astype(jnp.uint8)}
    model = make()
    params = quick(model.init)(KEY, batch)
    _, plain = quick(model.loss)(params, KEY, batch, 5)
    _, warm = quick(make(parts=dict(beta=dict(kind="linear", steps=10, end=4.0)), loss=dict(kind="elbo", beta="beta")).loss)(
        params, KEY, batch, 5
    )
    _, free = quick(make(loss=dict(kind="free_bits", nats=2.0)).loss)(params, KEY, batch, 5)
    assert warm["beta"] == 2 and warm["loss"] == pytest.approx(float(plain["recon"] + 2 * plain["kl"]), rel=1e-5)
    assert free["loss"] == pytest.approx(float(plain["recon"] + 2 * 3), rel=1e-5)  # three dimensions at the floor
    for other in (warm, free):
        assert other["kl"] == plain["kl"] and other["recon"] == plain["recon"]
    _, joint = quick(make(loss=dict(kind="free_bits", nats=2.0, kl="monte_carlo")).loss)(params, KEY, batch, 5)
    assert joint["loss"] == pytest.approx(float(joint["recon"] + 2 * 3), rel=1e-5)  # one group of three dimensions


def test_flows_in_posterior_and_prior_are_normalised_and_give_the_marginal_likelihood():
    """On a grid over z: the integrals of q(z|x) and p(z) are 1, and E[w] is that of p(z) p(x|z) whatever q is."""
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (4, 6)).astype(jnp.uint8)}
    model = make(latent=2, prior="layer", posterior="layer", posterior_context=3)
    params = quick(model.init)(KEY, batch)
    for name in ("posterior", "prior"):
        leaves, tree = jax.tree.flatten(params[name])
        keys = jax.random.split(KEY, len(leaves))
        params[name] = tree.unflatten([a + 0.1 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)])
    bias = params["encoder"]["head"]["bias"]
    params["encoder"]["head"]["bias"] = bias.at[2:4].set(1.5)  # q wider than p(z|x): weights of small variance
    axis, cell = jnp.linspace(-12, 12, 241), 0.1**2
    z = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 1, 2)
    q = quick(lambda z: model.latent.posterior(params, batch["x"]).log_prob(z))(jnp.broadcast_to(z, (len(z), 4, 2)))
    p = quick(lambda z: model.latent.prior(params).log_prob(z))(z)
    np.testing.assert_allclose(jnp.exp(q).sum(0) * cell, 1, atol=5e-3)
    np.testing.assert_allclose(jnp.exp(p).sum() * cell, 1, atol=5e-3)
    assert np.abs(p + 0.5 * (z**2).sum(-1) + np.log(2 * np.pi))[jnp.abs(z).max(-1) < 2].max() > 0.05  # the flow does something
    joint = p + quick(lambda z: model.latent.likelihood(params, z).log_prob(batch["x"]))(z)
    expected = jax.scipy.special.logsumexp(joint, axis=0) + np.log(cell)
    np.testing.assert_allclose(objectives.iwae(draws(model, params, batch, 10_000)), expected, atol=0.05)


def test_the_encoder_runs_once_for_many_draws():
    wide = dict(kind="mlp", hidden=(512, 512), activation="relu", dtype="float32")
    model = make(parts=dict(wide=wide), encoder="wide")
    batch = {"x": jnp.zeros((8, 6), jnp.uint8)}
    params = quick(model.init)(KEY, batch)

    def flops(n):
        keys = jax.random.split(KEY, n)
        lowered: Any = jax.jit(jax.vmap(model.log_prob, (None, 0, None))).lower(params, keys, batch)
        return lowered.compile().cost_analysis()["flops"]

    one = flops(1)
    assert one > 2 * 8 * 512 * 512  # the encoder is counted
    assert flops(20) < 1.5 * one


@pytest.mark.parametrize("name, base", [("vae", VAE | dict(prior="layer", posterior="layer")), ("flow", FLOW)])
def test_bfloat16_networks_leave_float32_numbers(name, base):
    half = dict(kind="mlp", hidden=(16,), activation="tanh", dtype="bfloat16")
    model, same = make(name, base, parts=dict(net=half)), make(name, base)
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (16, *base["event"])).astype(jnp.uint8 if base.get("levels") else jnp.float32)}
    params = quick(model.init)(KEY, batch)
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    (loss, _), grads = quick(jax.value_and_grad(model.loss, has_aux=True))(params, KEY, batch, 0)
    log_w = quick(model.log_prob)(params, KEY, batch)
    assert loss.dtype == log_w.dtype == jnp.float32 and {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert loss == pytest.approx(float(quick(same.loss)(params, KEY, batch, 0)[0]), rel=0.02)


def test_temperature_scales_the_noise_of_samples():
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (16, 6)).astype(jnp.uint8)}
    params = make(prior="layer").init(KEY, batch)
    assert np.ptp(make(prior="layer", temperature=0.0).sample(params, KEY, 9)["x"], axis=0).max() == 0
    x = {"x": jax.random.normal(KEY, (256, 4)) * 5 + 2}
    params = make("flow", FLOW).init(KEY, x)
    stds = [float(make("flow", FLOW, temperature=t).sample(params, KEY, 2000)["x"].std()) for t in (0.0, 0.5, 1.0)]
    assert stds[0] < 1e-5 and 0.4 < stds[1] / stds[2] < 0.6


def test_one_context_serves_many_samples():
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (16, 6)).astype(jnp.uint8), "context": jnp.eye(16, 3)}
    model = make(prior="layer")
    params = quick(model.init)(KEY, batch)
    one, many = (draw(model, params, KEY, 5, {"context": c})["x"] for c in (jnp.eye(3)[1], jnp.tile(jnp.eye(3)[1], (5, 1))))
    np.testing.assert_array_equal(one, many)


def test_a_dequantised_flow_is_a_probability():
    """One pixel, 4 levels: the estimates of P(x) sum to 1."""
    scale = dict(kind="actnorm")
    model = make("flow", FLOW | dict(event=(1,), levels=4, dequantize="uniform", layer="scale"), parts=dict(scale=scale))
    params = model.init(KEY, {"x": jnp.array([[0], [1], [1], [2], [3], [1]], jnp.uint8)})
    log_w = draws(model, params, {"x": jnp.arange(-8, 12, dtype=jnp.float32)[:, None]}, 4000)
    assert jnp.exp(objectives.iwae(log_w)).sum() == pytest.approx(1.0, abs=0.01)
    x = model.sample(params, KEY, 500)["x"]
    assert set(np.unique(x)) <= {0, 1, 2, 3}
