"""Annealed importance sampling and its sandwich, against a model whose marginal likelihood is known and against IWAE elsewhere."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.diagnose_toys import run
from tests.model_cases import KEY, config, make_batch, quick
from vaeflow.data import Split
from vaeflow.distributions import Joint, normal
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import mean_se
from vaeflow.evaluation.measures import ais, hmc, iwae
from vaeflow.evaluation.measures.chains import log_mean, target
from vaeflow.evaluation.measures.measure import latent, posterior_shape
from vaeflow.hmc import blackjax
from vaeflow.model import Latent, Model
from vaeflow.models import MODELS, build_model

WIDTH = 1.4
FEW = ais.AISSettings(chains=8, steps=30, leapfrog=4, pilot=2, k=0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Every pass here runs once."""
    blackjax()  # its functions are decorated with jax.jit when it is imported
    monkeypatch.setattr("vaeflow.evaluation.map_split.jax.jit", quick)


def toy(n: int = 24):
    return run(toys.linear_gaussian(WIDTH), toys.split(n))


@functools.cache
def annealed(start: str = "prior") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(AIS of the toy's examples, its error)."""
    found = ais.annealed(toy(), FEW._replace(start=start))
    return found, found["lower"] - toys.linear_gaussian_log_p(toy().split.x)


def traced(name: str, i: int):
    """A run of a registered model with the shapes of its parameters in their place: nothing can be compiled."""
    entry = MODELS[name]
    model = build_model(config(name, entry.examples[i]))
    batch = make_batch(model, entry.context)
    rows = {key: np.asarray(a[:1]) for key, a in batch.items()}
    r = run(model, Split(rows["x"], rows.get("context")), levels=model.levels or 0)
    return r._replace(params=jax.eval_shape(model.init, KEY, batch)), rows


def in_its_own_error(values: np.ndarray) -> float:
    """The mean over examples, whose errors are independent, in units of its standard error."""
    value, se = mean_se(values)
    return value / se


def test_elbo_iwae_ais_and_hmc_agree_with_the_marginal_likelihood():
    r = toy()
    truth = toys.linear_gaussian_log_p(r.split.x)
    kl = 2 * (0.5 * (WIDTH**2 - 1) - np.log(WIDTH))  # KL(q || p(z|x)): q is WIDTH times as wide in two dimensions
    weights, chains = iwae.weights(r, 500), hmc.estimates(r, hmc.HMCSettings(chains=8, warmup=50, samples=80, leapfrog=4, k=0))
    errors = {
        "ELBO + KL(q||p(z|x))": weights["elbo"] + kl - truth,
        "IWAE-500": weights["log_prob"] - truth,
        "AIS from p(z)": annealed("prior")[1],
        "AIS from q(z|x)": annealed("posterior")[1],
        "HMC": chains["log_p"] - truth,
    }
    print(f"log p(x) {truth.mean():.4f} nats, mean of {len(truth)} examples; the estimates are off by")
    for name, error in errors.items():
        print(f"  {name:<22} {error.mean():8.4f} ± {mean_se(error)[1]:.4f}")
    for name, error in errors.items():
        assert abs(in_its_own_error(error)) < 4 and mean_se(error)[1] < 0.06, name


def test_the_monte_carlo_error_says_how_far_off_it_is():
    found, error = annealed()
    assert 0.6 < (error / found["se"]).std() < 1.6
    assert np.all(found["ess"] > 2) and 0.5 < found["accepted"].mean() < 0.9


def test_few_temperatures_are_too_low():
    r = toy(100)
    found = ais.annealed(r, FEW._replace(steps=1, chains=2))  # two draws of the prior
    error = found["lower"] - toys.linear_gaussian_log_p(r.split.x)
    assert in_its_own_error(error) < -4 and error.mean() < -0.5


def test_the_chain_back_from_the_posterior_gives_the_same_marginal_likelihood():
    """x given and an exact draw of p(z|x): the encoder of width 1."""
    x = toys.split(40).x
    own = latent(run(toys.linear_gaussian(), toys.split(40)))

    @quick
    def back(key, x):
        aim = target(own, {}, {"x": x[None]}, (2,))
        path, first, second = ais.path_of(aim, FEW), *jax.random.split(key)
        z = aim.draw_q(first)
        sizes = jnp.full(FEW.steps, 0.3)
        log_w, _ = jax.vmap(lambda key: ais.reverse(key, path, sizes, FEW, z))(jax.random.split(second, FEW.chains))
        return -log_mean(-log_w)[0]

    found = jax.vmap(back)(jax.random.split(jax.random.key(0), len(x)), x)
    error = np.asarray(found, np.float64) - toys.linear_gaussian_log_p(x)
    assert -1 < in_its_own_error(error) < 4  # an upper bound in expectation


def test_bdmc_holds_the_truth_between_its_bounds_and_closes_with_more_temperatures():
    r = toy(64)
    w = toys.W.astype(np.float64)
    entropy = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * (w @ w.T + toys.SIGMA**2 * np.eye(3)))[1]
    gaps = []
    for steps in (2, FEW.steps):
        found = ais.sandwich(r, FEW._replace(steps=steps))
        gap = found["upper"].astype(np.float64) - found["lower"]
        gaps.append(gap.mean())
        assert in_its_own_error(gap) > (4 if steps == 2 else -2)
        # E log p(x) = -entropy over x ~ p: not above the one, not below the other.
        assert in_its_own_error(found["lower"] + entropy) < 3 and in_its_own_error(found["upper"] + entropy) > -3
    assert gaps[1] < 0.3 * gaps[0] and abs(gaps[1]) < 0.1


def conditional_levels() -> Model:
    """z_1 ~ N(c, 1), z_2 ~ N(z_1, 1), x ~ N(z, I) with a context c [1]; q(z|x) = N(x, I)."""

    def prior(params, context: Any = None):
        def terms(z):
            return -0.5 * (z - jnp.stack([jnp.broadcast_to(context[:, 0], z.shape[:-1]), z[..., 0]], -1)) ** 2 - 0.5 * np.log(2 * np.pi)

        def draw(key, n):
            z = context[:, :1] + jnp.cumsum(jax.random.normal(key, (n, len(context), 2)), -1)
            return z, terms(z)

        return Joint(draw, terms, (1, 1), context.shape[:-1])

    own = Latent(prior, lambda params, x, context: normal(x, jnp.ones(())), lambda params, z, context: normal(z, jnp.ones(())))
    return toys.model(None, "none", own)


def test_levels_of_latents_and_contexts():
    x, c = toys.split(24, (2,)).x, np.linspace(-2, 2, 24, dtype=np.float32)[:, None]
    found = ais.ais(run(conditional_levels(), Split(x, c)), FEW._replace(k=500))
    assert "difference" not in found  # this model has no log-weights
    cov = np.array([[2.0, 1.0], [1.0, 3.0]])  # of x given c
    quadratic = (np.linalg.solve(cov, (x - c).T) * (x - c).T).sum(0)
    log_p = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * cov)[1])
    assert abs(found["log_p"].value - log_p.mean()) < 4 * found["mc_se"].value < 0.3
    assert "8 chains, 30 temperatures from the prior; a lower bound" in found["log_p"].what


@pytest.mark.parametrize("name, i", [("vae", 4), ("layered", 0), ("contrastive", 0)])
def test_every_continuous_latent_can_be_annealed(name, i):
    """Flows in prior and posterior, hierarchies, a learned ratio: traced from both starts."""
    r, rows = traced(name, i)
    ais.needs(r, FEW._replace(start="posterior"))
    shape = posterior_shape(r)[0]
    for start in ("prior", "posterior"):
        s = FEW._replace(start=start)
        out = jax.eval_shape(lambda p, rows, s=s: ais.lower(KEY, ais.path_of(target(latent(r), p, rows, shape), s), s)[0], r.params, rows)
        assert all(a.shape == () and a.dtype == jnp.float32 for a in out.values())


@pytest.mark.parametrize("schedule", ["sigmoid", "linear"])
def test_temperatures_rise_from_zero_to_one(schedule):
    b = ais.temperatures(schedule, 50)
    assert b[0] == 0 and b[-1] == 1 and len(b) == 51 and np.all(np.diff(b) > 0)
    np.testing.assert_allclose(b + b[::-1], 1, atol=1e-12)
    assert (np.diff(b)[0] < 0.5 / 50) == (schedule == "sigmoid")


def test_models_without_a_continuous_latent_are_refused():
    with pytest.raises(UserError, match="has no latent variable"):
        ais.needs(run(toys.gaussian_flow(), toys.split(4)), FEW)
    for name in ("discrete_vae", "vq"):
        with pytest.raises(UserError, match="discrete"):
            ais.needs(traced(name, 0)[0], FEW)
    resampled = traced("contrastive", 0)[0]
    with pytest.raises(UserError, match=r"this one's are resampled; use --ais\.start=posterior"):
        ais.needs(resampled, FEW)
    with pytest.raises(UserError, match="its upper bound needs exact draws"):
        ais.needs_exact_draws(resampled, FEW._replace(start="posterior"))
