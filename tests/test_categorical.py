"""Laws of discrete diffusion over CORRUPTIONS, in float64: marginals, posteriors, the bound of a perfect model, continuous time, masks."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vaeflow.build import build
from vaeflow.diffusion import CORRUPTIONS, NOISE_SCHEDULES, Corruption
from vaeflow.diffusion.categorical import Chain, log_denoised, log_reverse, prior_term, rate_term, term
from vaeflow.errors import UserError

K, T = 5, 6
DATA = np.array([0.4, 0.05, 0.3, 0.2, 0.05])  # frequencies of the categories
X = np.random.default_rng(0).choice(K, (400, 8), p=DATA)
CASES = {name: {} for name in CORRUPTIONS} | {
    "gaussian": dict(schedule="wide"),  # the default is for many more categories
    "grey": dict(kind="absorbing", state="middle"),
    "uniform_information": dict(kind="uniform", schedule="mutual_information"),
    "neighbours_cosine": dict(kind="neighbours", schedule="cosine"),
}


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def corruption(name: str) -> Corruption:
    return build({name: {"kind": name} | CASES[name], "wide": dict(kind="linear", start=0.1, stop=1.0)}, name, Corruption)


def made(name: str, times: tuple[int, ...] = tuple(range(T + 1)), steps: int = T) -> tuple[Corruption, Chain]:
    own = corruption(name)
    return own, own.chain(own.init(jnp.asarray(X), K, steps), K, steps, np.array(times))


def matrices(chain: Chain, n: int) -> np.ndarray:
    """Q_1 .. Q_n [n, S, S], from the columns that `step` gives."""
    states = jnp.arange(len(chain.prior))
    return np.stack([np.asarray(chain.step(states, i)).T for i in range(1, n + 1)])


@pytest.mark.parametrize("name", CASES)
def test_the_marginal_is_the_product_of_the_one_step_matrices(name):
    _, chain = made(name)
    product, states = np.eye(len(chain.prior)), jnp.arange(len(chain.prior))
    for i, q in enumerate(matrices(chain, T), 1):
        assert (q > -1e-12).all()
        np.testing.assert_allclose(q.sum(1), 1, atol=1e-10)
        product = product @ q
        np.testing.assert_allclose(chain.marginal(jnp.eye(len(states)), i), product, atol=1e-8)
        np.testing.assert_allclose(chain.from_data(states, i).T, product, atol=1e-8)
    np.testing.assert_allclose(chain.prior @ product, chain.prior, atol=1e-8)  # stationary
    assert np.abs(matrices(chain, T) - np.eye(len(states))).max((1, 2)).min() > 1e-5


@pytest.mark.parametrize("name", CASES)
def test_a_chain_of_fewer_steps_has_the_products_of_the_steps_between(name):
    times = (0, 2, 3, 6)
    full, few = matrices(made(name)[1], T), matrices(made(name, times)[1], 3)
    for i, (start, end) in enumerate(itertools.pairwise(times)):
        np.testing.assert_allclose(few[i], np.linalg.multi_dot([np.eye(full.shape[1]), np.eye(full.shape[1]), *full[start:end]]), atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_the_posterior_is_bayes_rule_and_sums_to_one(name):
    _, chain = made(name)
    size, q = len(chain.prior), matrices(made(name)[1], T)
    w = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(K)))
    w = jnp.pad(w, (0, size - K))
    for i in (1, 2, 4):
        before = np.linalg.multi_dot([np.eye(size), np.eye(size), *q[: i - 1]])  # q(x_(i-1) | x_0)
        for x0 in range(K):
            joint = before[x0][:, None] * q[i - 1]  # x_(i-1), x_i
            for x in np.flatnonzero(joint.sum(0) > 1e-9):
                found = np.exp(log_reverse(chain, jnp.eye(size)[x0], jnp.asarray(x), i))
                np.testing.assert_allclose(found, joint[:, x] / joint[:, x].sum(), atol=1e-7)
        for x in range(size):
            reverse = np.exp(log_reverse(chain, w, jnp.asarray(x), i))
            mixed = np.asarray(w)[:K] @ before[:K] * q[i - 1][:, x]
            np.testing.assert_allclose(reverse.sum(), 1, atol=1e-10)
            np.testing.assert_allclose(reverse, mixed / mixed.sum(), atol=1e-7)
            np.testing.assert_allclose(np.exp(log_denoised(chain, w, jnp.asarray(x), i)).sum(), 1, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_the_bound_of_a_perfect_model_is_the_entropy_and_the_priors_term(name):
    """One entry: E over x_0 and x_i by sums. What the prior does not know of x_T is KL(q(x_T) || prior)."""
    _, chain = made(name)
    size, p = len(chain.prior), jnp.asarray(DATA)
    w, x0, x = jnp.pad(p, (0, size - K)), jnp.arange(K)[:, None], jnp.arange(size)

    def total(w):
        bound = jnp.sum(p * prior_term(chain, jnp.arange(K), T))
        for i in range(1, T + 1):
            joint = p[:, None] * chain.marginal(jnp.eye(size)[:K], i)  # x_0, x_i
            terms = term(chain, jnp.broadcast_to(w, (K, size, size)), jnp.broadcast_to(x0, (K, size)), jnp.broadcast_to(x, (K, size)), i)
            bound += jnp.sum(jnp.where(joint > 0, joint * terms, 0))
        return bound

    end = chain.marginal(w, T)
    rest = jnp.sum(jnp.where(end > 1e-15, end * (jnp.log(jnp.maximum(end, 1e-300)) - jnp.log(jnp.maximum(chain.prior, 1e-300))), 0))
    entropy = -jnp.sum(p * jnp.log(p))
    assert float(total(w)) == pytest.approx(float(entropy + rest), rel=1e-6)
    other = jnp.pad(jnp.full(K, 1 / K), (0, size - K))
    assert total(other) > entropy + rest + 0.01  # and it is a bound


@pytest.mark.parametrize("name", ["uniform", "absorbing"])
def test_continuous_time_is_the_limit_of_many_steps(name):
    """sum_i E term_i -> int E rate_term dt, of a model that changes with time."""
    own = build({"own": dict(kind=name, schedule="cosine")}, "own", Corruption)
    prior, alphabar = jnp.asarray(own.prior(K)), own.alphabar
    assert alphabar is not None
    size, p = len(prior), jnp.asarray(DATA)[:, None]
    x0, x = jnp.meshgrid(jnp.arange(K), jnp.arange(size), indexing="ij")

    def model(t):
        w = jax.nn.softmax(5 * jnp.sin(3 * t) * jnp.arange(K))
        return jnp.broadcast_to(jnp.pad(w, (0, size - K)), (*x.shape, size))

    def continuous(t):
        q = alphabar(t) * jnp.eye(size)[:K] + (1 - alphabar(t)) * prior
        return jnp.sum(p * q * rate_term(alphabar, prior, model(t), x0, x, t))

    points, weights = np.polynomial.legendre.leggauss(60)
    integral = float(jax.vmap(continuous)(jnp.asarray((points + 1) / 2)) @ jnp.asarray(weights / 2))

    def discrete(steps):
        chain = own.chain({}, K, 0, np.linspace(0, 1, steps + 1))

        def one(i):
            q = chain.marginal(jnp.eye(size)[:K], i)
            return jnp.sum(p * jnp.where(q > 0, q * term(chain, model(i / steps), x0, x, i), 0))

        return float(jnp.sum(jax.lax.map(one, jnp.arange(1, steps + 1))))

    coarse, fine = (abs(discrete(steps) - integral) for steps in (50, 400))
    assert 1e-9 < fine < 0.01 * integral and fine < coarse / 4


MASKS = np.array(list(itertools.product((0, 1), repeat=3)))


def masked_bound(schedule: str, ce: np.ndarray) -> float:
    """int_0^1 E rate_term dt over sets of masked entries, of a model whose cross-entropy of each set and entry is ce [8, 3]."""
    own = build({"own": dict(kind="absorbing", schedule=schedule)}, "own", Corruption)
    prior, alphabar = jnp.asarray(own.prior(2)), own.alphabar
    assert alphabar is not None
    w = jnp.stack([jnp.exp(-ce), -jnp.expm1(-ce), jnp.zeros_like(ce)], -1)  # all data are category 0
    x = jnp.where(MASKS == 1, 2, 0)

    def at(t):
        chance = jnp.prod(jnp.where(MASKS == 1, 1 - alphabar(t), alphabar(t)), 1)
        return jnp.sum(chance[:, None] * rate_term(alphabar, prior, w, jnp.zeros_like(x), x, t))

    points, weights = np.polynomial.legendre.leggauss(60)
    return float(jax.vmap(at)(jnp.asarray((points + 1) / 2)) @ jnp.asarray(weights / 2))


def in_any_order(ce: np.ndarray) -> float:
    """sum_n 1/n E_(n of 3 entries masked) sum_masked ce: a masked language model, each number of masks as likely."""
    masked = (ce * MASKS).sum(1)
    return sum(masked[MASKS.sum(1) == n].mean() / n for n in (1, 2, 3))


@pytest.mark.parametrize("schedule", ["cosine", "mutual_information"])
def test_masked_diffusion_is_a_masked_language_model_whatever_the_schedule(schedule):
    ce = np.random.default_rng(2).uniform(0.5, 2, (8, 3))
    assert masked_bound(schedule, ce) == pytest.approx(in_any_order(ce), rel=1e-6)


def test_the_masked_bound_of_the_true_conditionals_is_the_entropy():
    """Of three dependent entries: every order of them is a factorisation."""
    p = np.random.default_rng(3).dirichlet(np.full(27, 0.5)).reshape(3, 3, 3)
    ce = np.zeros((8, 3))
    for j, mask in enumerate(MASKS):
        known = p.sum(tuple(np.flatnonzero(mask)), keepdims=True)
        for i in np.flatnonzero(mask):
            both = p.sum(tuple(k for k in np.flatnonzero(mask) if k != i), keepdims=True)
            ce[j, i] = -(both * np.log(both / known)).sum()
    assert masked_bound("mutual_information", ce) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-6)


def test_masking_again_changes_no_marginal():
    own = corruption("absorbing")
    times = np.array([0.0, 0.3, 0.7, 1.0])
    chain = own.chain({}, K, 0, times)
    assert chain.remask is not None
    for i, eta in itertools.product((1, 2, 3), (0.0, 0.4, 1.0)):
        q = np.asarray(chain.marginal(jnp.eye(K + 1)[2], i))
        back = np.asarray(chain.remask(jnp.broadcast_to(jnp.eye(K + 1)[2], (K + 1, K + 1)), jnp.arange(K + 1), i, eta))
        np.testing.assert_allclose(q @ back, chain.marginal(jnp.eye(K + 1)[2], i - 1), atol=1e-10)
        shown = np.exp(log_reverse(chain, jnp.eye(K + 1)[2], jnp.asarray(2), i))
        assert back[2, K] == pytest.approx(eta * min(1, (1 - (1 - times[i - 1])) / max(1 - times[i], 1e-30)), abs=1e-9) and shown[2] > 0.999


def test_schedules_have_the_values_of_the_papers():
    left = {name: np.cumprod(1 - make().betas(1000)) for name, make in NOISE_SCHEDULES.items()}
    np.testing.assert_allclose(left["mutual_information"], 1 - np.arange(1, 1001) / 1000, atol=1e-12)
    np.testing.assert_allclose(left["linear"][-1], 4.0358e-05, rtol=1e-4)  # DDPM's alphabar_1000
    assert left["cosine"][499] == pytest.approx(np.cos(0.508 / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2))
    for name in ("cosine", "mutual_information"):
        alphabar = NOISE_SCHEDULES[name]().alphabar
        assert alphabar is not None
        np.testing.assert_allclose(alphabar(jnp.arange(1, 1000) / 1000), left[name][:-1], atol=1e-6)


@pytest.mark.parametrize("name", ["neighbours", "uniform_information"])
def test_every_step_of_the_mutual_information_schedule_loses_the_same(name):
    _, chain = made(name)
    p = np.bincount(X.ravel(), minlength=K) / X.size

    def information(i):
        q = np.asarray(chain.marginal(jnp.eye(K), i))
        return (p[:, None] * q * np.log(np.maximum(q, 1e-300) / (p @ q))).sum()

    np.testing.assert_allclose([information(i) for i in range(T + 1)] / information(0), 1 - np.arange(T + 1) / T, atol=0.03)


def test_neighbours_are_categories_with_like_neighbours():
    """Sequences of two kinds: 0 and 1 stand between 4s, 2 and 3 between 5s."""
    rng, four = np.random.default_rng(0), np.arange(1000) < 500
    middle = np.where(four, rng.integers(0, 2, 1000), rng.integers(2, 4, 1000))
    x = np.stack([np.where(four, 4, 5), middle, np.where(four, 4, 5)], 1)
    own = build({"own": dict(kind="neighbours", k=1, anywhere=0.0)}, "own", Corruption)
    params = own.init(jnp.asarray(x), 6, T)
    rates = params["basis"] * params["rates"] @ params["basis"].T
    off = np.asarray(rates) - np.diag(np.diag(rates))
    np.testing.assert_allclose(np.asarray(rates).sum(1), 0, atol=1e-9)
    assert off[0].argmax() == 1 and off[1].argmax() == 0 and off[2].argmax() == 3 and off[3].argmax() == 2


def test_wrong_corruptions_are_one_line():
    with pytest.raises(UserError, match="schedule='mutual_information' is invalid"):
        CORRUPTIONS["gaussian"](schedule=NOISE_SCHEDULES["mutual_information"]())
    with pytest.raises(UserError, match="k=7 must be below the number of categories, 5"):
        CORRUPTIONS["neighbours"](k=7).prior(5)
    with pytest.raises(UserError, match="must both be > 0"):
        NOISE_SCHEDULES["linear"](start=0.0)
