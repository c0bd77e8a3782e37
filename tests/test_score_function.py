"""Score-function estimators and wake-sleep against exact gradients: latents so small that every state is summed over."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import quick
from vaeflow import objectives as o

BITS, ROWS, DRAWS = 3, 2, 20_000
STATES = np.array(list(itertools.product((0.0, 1.0), repeat=BITS)), np.float32)  # [8, BITS]
# q: logits [ROWS, BITS]; p: log p(x, z) of every state [ROWS, 8]
PARAMS = {
    "q": jnp.array([[0.5, -1.0, 0.2], [1.5, 0.3, -0.4]]),
    "p": jax.random.normal(jax.random.key(7), (ROWS, len(STATES))) - 4.5,
}


def log_q(params, z):
    return jnp.sum(z * params["q"] - jax.nn.softplus(params["q"]), axis=-1)


def state_of(z):
    """The row of STATES that z is."""
    return jnp.sum(z * 2 ** jnp.arange(BITS)[::-1], axis=-1).astype(int)


def log_p(params, z):
    return params["p"][jnp.arange(ROWS), state_of(z)]


def elbo(estimator, held=False):
    """The surrogate of an estimator of log_w and log_q; held: without the score of q inside log_w."""

    def surrogate(params, z):
        ours = log_q(params, z)
        return estimator(log_p(params, z) - (jax.lax.stop_gradient(ours) if held else ours), ours)

    return surrogate


@functools.cache
def gradients(surrogate, k):
    """The gradient at DRAWS independent sets of k draws of q: {q, p}, [DRAWS, ...]."""

    def one(key):
        z = jax.random.bernoulli(key, jax.nn.sigmoid(PARAMS["q"]), (k, ROWS, BITS)).astype(jnp.float32)
        return jax.grad(lambda params: surrogate(params, z).sum())(PARAMS)

    return jax.tree.map(np.asarray, quick(jax.vmap(one))(jax.random.split(jax.random.key(k), DRAWS)))


@functools.cache
def tuples(k):
    """Every set of k states, z [k, 8^k, 1, BITS] against the rows."""
    return np.stack(list(itertools.product(STATES, repeat=k)), axis=1)[:, :, None]


def expectation(params, k, f):
    """E_q[f(z_1 .. z_k)] exactly, by row: f of log_w and log_q [k, 8^k, ROWS] -> [8^k, ROWS]."""
    z = tuples(k)
    ours = log_q(params, z)
    return jnp.sum(jnp.exp(ours.sum(0)) * f(log_p(params, z) - ours, ours), axis=0)


@functools.cache
def exact(k):
    """d E[log 1/k sum_i w_i], of which k = 1 is the ELBO's."""
    return quick(jax.grad(lambda params: expectation(params, k, lambda log_w, _: o.iwae(log_w)).sum()))(PARAMS)


def assert_mean(draws, truth):
    """The mean of the draws is the truth to 4 standard errors, which are small against it."""
    mean, se = draws.mean(0, dtype=np.float64), draws.std(0, dtype=np.float64) / len(draws) ** 0.5
    assert np.linalg.norm(truth) > 10 * np.linalg.norm(se) > 0
    np.testing.assert_array_less(np.abs(mean - truth), 4 * se + 1e-6)


def trace(draws):
    """The trace of the covariance."""
    return draws.var(0, dtype=np.float64).sum()


def constant_baseline(log_w, log_q):
    return o.reinforce(log_w, log_q, jnp.array([-2.5, -3.0]))


PLAIN, BASELINE, OTHERS = elbo(o.reinforce, held=True), elbo(constant_baseline, held=True), elbo(o.leave_one_out, held=True)
VIMCO, WAKE_P, WAKE_Q = elbo(o.vimco), elbo(o.wake_p), elbo(o.wake_q)


@pytest.mark.parametrize(
    "surrogate, k, bound",
    [(PLAIN, 3, 1), (BASELINE, 3, 1), (OTHERS, 3, 1), (OTHERS, 2, 1), (elbo(o.reinforce), 2, 1), (elbo(o.leave_one_out), 3, 1)]
    + [(VIMCO, 2, 2), (VIMCO, 3, 3)],
)
def test_the_mean_over_draws_is_the_exact_gradient(surrogate, k, bound):
    found, truth = gradients(surrogate, k), exact(bound)
    for name in ("q", "p"):
        assert_mean(found[name], truth[name])


@pytest.mark.parametrize("k", [1, 3])
def test_without_the_score_the_gradient_is_another(k):
    """What the comparison above would find."""
    draws, truth = gradients(elbo(lambda log_w, _: o.iwae(log_w)), k)["q"], exact(k)["q"]
    assert np.abs((draws.mean(0) - truth) / (draws.std(0) / DRAWS**0.5)).max() > 20


def test_baselines_lower_the_variance():
    assert max(trace(gradients(s, 3)["q"]) for s in (OTHERS, BASELINE)) < trace(gradients(PLAIN, 3)["q"]) / 4
    assert trace(gradients(OTHERS, 3)["q"]) < trace(gradients(elbo(o.leave_one_out), 3)["q"])  # the score inside log w is noise
    naive = elbo(lambda log_w, log_q: o.iwae(log_w) + o.iwae(log_w) * jnp.sum(o.silent(log_q), axis=0))  # one signal for all draws
    assert trace(gradients(VIMCO, 3)["q"]) < trace(gradients(naive, 3)["q"]) / 4


def test_leave_one_out_has_no_gradient_for_q_at_the_posterior():
    params = {"q": PARAMS["q"], "p": PARAMS["q"] @ STATES.T - 4}  # log p(x, z) = <z, logits> - 4: the posterior is q
    z = jax.random.bernoulli(jax.random.key(0), 0.5, (5, ROWS, BITS)).astype(jnp.float32)
    g = jax.grad(lambda params: OTHERS(params, z).sum())(params)
    np.testing.assert_allclose(g["q"], 0, atol=1e-5)
    assert np.abs(jax.grad(lambda params: PLAIN(params, z).sum())(params)["q"]).max() > 0.1


def test_values_are_the_bounds():
    log_w, log_q = 3 * jax.random.normal(jax.random.key(0), (2, 4, ROWS))
    for f in (o.reinforce, constant_baseline, o.leave_one_out):
        np.testing.assert_array_equal(f(log_w, log_q), o.elbo(log_w))
    for f in (o.vimco, o.wake_p):
        np.testing.assert_array_equal(f(log_w, log_q), o.iwae(log_w))
    np.testing.assert_array_equal(o.wake_q(log_w, log_q), 0)
    np.testing.assert_array_equal(o.sleep_q(log_q), 0)


def test_vimco_is_stable_when_one_weight_is_all():
    log_w = jnp.array([[-500.0], [-1000.0], [-1e4]])
    signals = jax.grad(lambda log_q: o.vimco(log_w, log_q).sum())(jnp.zeros_like(log_w))
    # Without the first draw the bound is that of -1000; without another one it is what it was.
    np.testing.assert_allclose(signals[:, 0], [500, 0, 0], atol=1e-3)


def test_a_baseline_learns_the_mean_and_nothing_else_does():
    log_w = jax.random.normal(jax.random.key(0), (4, ROWS))
    by_w, by_b = jax.grad(lambda w, b: o.baseline_loss(w, b).sum(), (0, 1))(log_w, jnp.zeros(ROWS))
    np.testing.assert_array_equal(by_w, 0)
    np.testing.assert_allclose(by_b, -2 * log_w.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(lambda b: o.reinforce(log_w, log_w, b).sum())(jnp.zeros(ROWS)), 0)


@pytest.mark.parametrize("k", [2, 3])
def test_the_wake_phase_of_p_is_that_of_the_bound_and_has_no_gradient_for_q(k):
    found = gradients(WAKE_P, k)
    assert_mean(found["p"], exact(k)["p"])
    np.testing.assert_allclose(found["q"], 0, atol=1e-5)


@quick
def wake_gradient(z):
    """E_q[sum_i v_i d log q(z_i|x)] over all sets of draws [k, 8^k, 1, BITS] by hand: the score of a bit is z - sigmoid(logit)."""
    ours = log_q(PARAMS, z)
    v = jax.nn.softmax(log_p(PARAMS, z) - ours, axis=0)
    return jnp.einsum("tr,ktr,ktrd->rd", jnp.exp(ours.sum(0)), v, z - jax.nn.sigmoid(PARAMS["q"]))


def test_the_wake_phase_of_q_nears_the_posterior_as_k_grows():
    exactly = {k: np.asarray(wake_gradient(tuples(k))) for k in (1, 2, 3)}
    assert_mean(gradients(WAKE_Q, 3)["q"], exactly[3])
    np.testing.assert_array_equal(gradients(WAKE_Q, 3)["p"], 0)
    limit = jax.nn.softmax(PARAMS["p"]) @ STATES - jax.nn.sigmoid(PARAMS["q"])  # -d KL(p(z|x) || q(z|x)) = E_p[z|x] - sigmoid(logits)
    gaps = [np.linalg.norm(g - limit) for g in exactly.values()]
    assert gaps[0] > 1.2 * gaps[1] > 1.2**2 * gaps[2]
    np.testing.assert_allclose(exactly[1], 0, atol=1e-6)


def test_the_sleep_phase_follows_the_divergence_from_the_models_posterior():
    prior, given = jnp.array([0.4, -0.8, 1.0]), 1.5 * jax.random.normal(jax.random.key(3), (8,))  # logits of z, and of x in {0, 1} given z

    def divergence(logits):  # E_p(x)[KL(p(z|x) || q(z|x))], logits [2, BITS]
        x = jnp.arange(2.0)[:, None]
        joint = jnp.sum(STATES * prior - jax.nn.softplus(prior), -1) + x * given - jax.nn.softplus(given)  # [2, 8]
        return jnp.sum(jnp.exp(joint) * (jax.nn.log_softmax(joint) - log_q({"q": logits[:, None]}, STATES)))

    def one(key):
        key_z, key_x = jax.random.split(key)
        z = jax.random.bernoulli(key_z, jax.nn.sigmoid(prior)).astype(jnp.float32)
        x = jax.random.bernoulli(key_x, jax.nn.sigmoid(given[state_of(z)])).astype(int)
        return jax.grad(lambda logits: o.sleep_q(log_q({"q": logits[x]}, z)))(PARAMS["q"])

    found = np.asarray(quick(jax.vmap(one))(jax.random.split(jax.random.key(5), DRAWS)))
    assert_mean(found, -jax.grad(divergence)(PARAMS["q"]))
