"""The discrete-latent VAE against sums over all its latents: distributions, log p(x), the gradient of every estimator; wrong configs."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from vaeflow.errors import UserError
from vaeflow.models import MODELS, build_model
from vaeflow.models.parts.discrete_latent import Bits, OneHots, kl

BASE = MODELS["discrete_vae"].examples[0]
ONE_HOT = dict(variables=2, categories=3, prior="learned")
DRAWS, ROWS = 8_000, 2


def make(loss: Any = None, **values: Any) -> Any:
    """A model; loss: its objective as a part."""
    c = config("discrete_vae", BASE | ({} if loss is None else {"objective": "objective"}) | values).unlock()
    c.parts.objective = loss or dict(kind="reinforce")
    return build_model(c)


def states(variables: int, categories: int) -> np.ndarray:
    """Every latent, [N, D]."""
    if categories == 2:
        return np.array(list(itertools.product((0.0, 1.0), repeat=variables)), np.float32)
    eye = np.eye(categories, dtype=np.float32)
    return np.array([np.concatenate(rows) for rows in itertools.product(eye, repeat=variables)])


@pytest.mark.parametrize("family, shape", [(Bits, (4,)), (OneHots, (2, 3))])
def test_factorised_distributions_sum_to_one_and_their_kl_and_mean_are_sums(family, shape):
    one, two = 1.5 * jax.random.normal(KEY, (2, 5, *shape))
    q, p, z = family(one), family(two), states(*(shape if len(shape) == 2 else (4, 2)))

    @quick
    def everything():
        log_q, log_p = q.log_prob(z[:, None]), p.log_prob(z[:, None])  # [N, 5]
        draws, log_draws = q.sample_and_log_prob(seed=KEY, sample_shape=(4000,))
        return log_q, log_p, kl(q, p), q.mean(), draws, log_draws, q.log_prob(draws), q.hardened(q.relaxed(KEY, 4000, 0.7))

    log_q, log_p, divergence, mean, draws, log_draws, inverted, hard = map(np.asarray, everything())
    np.testing.assert_allclose(np.exp(log_q).sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(divergence, (np.exp(log_q) * (log_q - log_p)).sum(0), rtol=1e-4)
    np.testing.assert_allclose(mean, np.einsum("nb,nd->bd", np.exp(log_q), z), atol=1e-6)
    np.testing.assert_array_equal(log_draws, inverted)
    for found in (draws, hard):  # rounded relaxed draws are exact ones
        assert found.dtype == np.float32 and set(np.unique(found)) == {0, 1}
        np.testing.assert_array_less(np.abs(found.mean(0) - mean), 4 * (mean * (1 - mean) / 4000) ** 0.5)
        assert len(shape) == 1 or (found.reshape(*found.shape[:-1], *shape).sum(-1) == 1).all()


@functools.cache
def setting(categories: int):
    """(parameters, batch, every latent): a small model whose parameters are away from their start."""
    values = dict(variables=3) if categories == 2 else ONE_HOT
    batch = {"x": jax.random.bernoulli(KEY, 0.4, (ROWS, 6)).astype(jnp.uint8)}
    params = quick(make(**(values | dict(prior="learned"))).init)(KEY, batch)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(KEY, len(leaves))
    params = tree.unflatten([a + 0.4 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)])
    return params, batch, states(*((3, 2) if categories == 2 else (2, 3)))


def exact(params, batch, z, beta=1.0):
    """(mean ELBO at this beta, log p(x) [B]) by a sum over the latents."""
    latent = make(**(dict(variables=3, prior="learned") if z.shape[1] == 3 else ONE_HOT)).latent
    log_q = latent.posterior(params, batch["x"]).log_prob(z[:, None])  # [N, B]
    log_p = latent.prior(params).log_prob(z)[:, None]
    log_x = latent.likelihood(params, jnp.broadcast_to(z[:, None], (len(z), ROWS, z.shape[1]))).log_prob(batch["x"])
    value = jnp.sum(jnp.exp(log_q) * (log_x + beta * (log_p - log_q)), axis=0)
    return jnp.mean(value), jax.nn.logsumexp(log_x + log_p, axis=0)


@functools.cache
def draws(kind, n=DRAWS, categories=2, **of_loss):
    """(gradients {encoder, decoder, prior} [n, size], losses [n]) of the model's loss over keys."""
    params, batch, _ = setting(categories)
    model = make(dict(kind=kind, **of_loss), prior="learned", categories=categories, variables=3 if categories == 2 else 2)

    def one(key):
        (loss, _), g = jax.value_and_grad(lambda params: model.loss(params, key, batch, 3), has_aux=True)(params)
        return {name: jnp.concatenate([a.ravel() for a in jax.tree.leaves(tree)]) for name, tree in g.items()}, loss

    return jax.tree.map(np.asarray, quick(jax.vmap(one))(jax.random.split(KEY, n)))


def error(found, truth) -> tuple[float, float]:
    """(|mean - truth|, what it is expected to be from the draws' variance) of a gradient."""
    return float(np.linalg.norm(found.mean(0) - truth)), float((found.var(0).sum() / len(found)) ** 0.5)


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(a) for a in jax.tree.leaves(tree)])


@pytest.mark.parametrize(
    "values",
    [dict(kind="reinforce", k=2), dict(kind="leave_one_out", k=3, beta=0.5), dict(kind="leave_one_out", k=3, categories=3)],
)
def test_the_gradient_and_the_loss_are_those_of_the_elbo(values):
    params, batch, z = setting(values.get("categories", 2))
    beta = values.get("beta", 1.0)
    (value, _), truth = quick(jax.value_and_grad(lambda params: exact(params, batch, z, beta), has_aux=True))(params)
    gradients, losses = draws(**values)
    for name in ("encoder", "decoder", "prior"):
        distance, expected = error(gradients[name], -flat(truth[name]))
        assert distance < 2 * expected and np.linalg.norm(flat(truth[name])) > 5 * expected, name
    assert losses.mean() == pytest.approx(-float(value), abs=4 * float(losses.std()) / DRAWS**0.5)


def test_log_prob_is_a_weight_of_the_exact_likelihood_and_multi_sample_bounds_lie_below_it():
    params, batch, z = setting(2)
    elbo, log_p = quick(exact)(params, batch, z)
    log_w = quick(jax.vmap(make(variables=3, prior="learned").log_prob, (None, 0, None)))(params, jax.random.split(KEY, DRAWS), batch)
    weight = np.exp(np.asarray(log_w) - np.asarray(log_p))
    np.testing.assert_array_less(np.abs(weight.mean(0) - 1), 4 * weight.std(0) / DRAWS**0.5)
    vimco = -draws("vimco", k=3)[1]
    assert elbo + 0.01 < vimco.mean() < log_p.mean() - 0.001
    assert elbo == pytest.approx(-float(draws("straight_through", temperature=0.5)[1].mean()), abs=0.03)


def test_wake_sleep_trains_p_by_the_bound_and_q_by_its_phases():
    """The bound's gradient for p is also VIMCO's, and the two phases of q add up."""
    wake, sleep, both = (draws("wake_sleep", 100, k=3, wake_q=a, sleep_q=b)[0] for a, b in ((True, False), (False, True), (True, True)))
    vimco = draws("vimco", 100, k=3)[0]
    for name in ("decoder", "prior"):
        np.testing.assert_array_equal(wake[name], sleep[name])
        np.testing.assert_array_equal(wake[name], both[name])
        np.testing.assert_allclose(wake[name], vimco[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both["encoder"], wake["encoder"] + sleep["encoder"], rtol=1e-4, atol=1e-5)
    assert np.abs(wake["encoder"] - sleep["encoder"]).max() > 0.1


def test_a_baseline_starts_at_the_mean_log_weight_and_follows_its_own_squared_error():
    batch = setting(2)[1]
    model = make(dict(kind="reinforce", baseline="net", k=4))
    params = quick(model.init)(KEY, batch)
    log_w = quick(jax.vmap(model.log_prob, (None, 0, None)))(params, jax.random.split(KEY, 500), batch)
    baseline = params["objective"]["baseline"]
    assert baseline["constant"] == pytest.approx(float(log_w.mean()), abs=4 * float(log_w.std()) / ROWS**0.5)
    shifted = params | {"objective": {"baseline": baseline | {"constant": baseline["constant"] + 3}}}
    g, moved = (quick(jax.grad(lambda params: model.loss(params, KEY, batch, 0)[0]))(p) for p in (params, shifted))
    slopes = [grads["objective"]["baseline"]["constant"] for grads in (g, moved)]
    assert slopes[1] - slopes[0] == pytest.approx(2 * 3, rel=1e-4)
    np.testing.assert_array_equal(flat(g["decoder"]), flat(moved["decoder"]))
    assert np.abs(flat(g["encoder"]) - flat(moved["encoder"])).max() > 1e-3  # a signal of another variance and the same mean


def test_the_relaxed_models_temperature_falls_and_low_temperatures_of_sampling_choose_the_mode():
    batch = setting(3)[1]
    model = make(objective="gumbel_softmax", **ONE_HOT)  # whose temperature is the schedule of model_cases.py
    params = quick(model.init)(KEY, batch)
    heat = [float(quick(model.loss)(params, KEY, batch, step)[1]["temperature"]) for step in (0, 5, 20)]
    np.testing.assert_allclose(heat, [2.0, 1.0, 0.5], rtol=1e-5)
    params["prior"]["logits"] = jnp.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cold = make(objective="gumbel_softmax", **ONE_HOT, temperature=0.01)
    expected = model.latent.likelihood(params, jnp.array([0, 1, 0, 0, 0, 1.0])).mean()
    np.testing.assert_allclose(quick(cold.sample, static_argnums=2)(params, KEY, 20)["x"], jnp.broadcast_to(expected, (20, 6)), rtol=1e-5)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(objective="reinforced"), "model.objective='reinforced' is unknown .did you mean 'reinforce'"),
        (dict(categories=1), "model.categories=1 is invalid; it must be >= 2"),
        (
            dict(objective="elbo"),
            "'elbo' is for reparameterised latents, and those of a discrete_vae are discrete; for them: gumbel_softmax",
        ),
        (dict(loss=dict(kind="vimco", baseline="net")), "parts.objective: the key='baseline' is unknown"),
        (dict(loss=dict(kind="wake_sleep", wake_q=False)), "parts.objective: wake_q=False and sleep_q=False leave q untrained"),
        (dict(loss=dict(kind="wake_sleep", k=1)), "parts.objective: k=1 is too few for wake_q=True"),
        (dict(loss=dict(kind="leave_one_out", k=1)), "parts.objective.k=1 is invalid; it must be >= 2"),
        (dict(loss=dict(kind="vimco", k=1)), "parts.objective.k=1 is invalid; it must be >= 2"),
        (dict(loss=dict(kind="vimco", beta=0.5)), "parts.objective: the key='beta' is unknown"),
        (dict(loss=dict(kind="gumbel_softmax", temperature=0.0)), "parts.objective.temperature=0.0 is invalid"),
        (dict(levels=17), "needs binary data"),
        (dict(temperature=0.0), "sample.temperature=0.0 is invalid"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as found:
        make(**values)
    assert "\n" not in str(found.value)
