"""Stochastic layers: against a linear-Gaussian hierarchy whose marginal likelihood is known, level by level, and what they cost."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation import elbo
from vaeflow.evaluation.likelihood import log_likelihood
from vaeflow.evaluation.results import format_results
from vaeflow.models import MODELS, build_model

BASE = MODELS["layered"].examples[0]
DATA, FIRST, SECOND, NOISE, INNER = 5, 3, 2, 0.4, 0.6
LINEAR = dict(kind="mlp", hidden=(), activation="relu", dtype="float32")


def make(parts: dict[str, Any] | None = None, loss: Any = None, **values: Any) -> Any:
    """A model; loss: its objective as a part."""
    parts = (parts or {}) | ({} if loss is None else {"objective": loss})
    c = config("layered", BASE | ({} if loss is None else {"objective": "objective"}) | values).unlock()
    for key, part in parts.items():
        c.parts[key] = part
    return build_model(c)


class Truth:
    """z_2 ~ N(0, I), z_1 = A z_2 + a + INNER e, x = W z_1 + b + NOISE e, A and W with orthogonal columns such that the posteriors
    p(z_1|x) and p(z_2|z_1) are diagonal; every number in float64."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.w = np.linalg.qr(rng.normal(size=(DATA, FIRST)))[0] * [1.5, 0.9, 0.4]
        self.a = np.array([[1.2, 0.0], [0.0, -0.8], [0.0, 0.0]])
        self.b, self.shift = rng.normal(size=DATA), rng.normal(size=FIRST)
        cov = self.a @ self.a.T + INNER**2 * np.eye(FIRST)  # of z_1, diagonal
        self.cov = self.w @ cov @ self.w.T + NOISE**2 * np.eye(DATA)
        self.mean = self.w @ self.shift + self.b
        self.x = rng.multivariate_normal(self.mean, self.cov, size=48)
        self.var_1 = 1 / (1 / np.diag(cov) + (self.w**2).sum(0) / NOISE**2)
        self.gain_1 = self.var_1 * self.w / NOISE**2  # [DATA, FIRST]
        self.bias_1 = self.var_1 * self.shift / np.diag(cov) - self.b @ self.gain_1
        self.var_2 = 1 / (1 + (self.a**2).sum(0) / INNER**2)
        self.gain_2 = self.var_2 * self.a / INNER**2  # [FIRST, SECOND]
        self.bias_2 = -self.shift @ self.gain_2

    def params(self) -> dict[str, Any]:
        def moments(gain: np.ndarray, bias: np.ndarray, variance: np.ndarray) -> dict[str, Any]:
            return {"head": {"kernel": np.hstack([gain, 0 * gain]), "bias": np.concatenate([bias, np.log(variance)])}}

        found = {
            "encoder_1": moments(self.gain_1, self.bias_1, self.var_1),
            "encoder_2": moments(self.gain_2, self.bias_2, self.var_2),
            "decoder_1": {"head": {"kernel": self.w.T, "bias": self.b}},
            "decoder_2": moments(self.a.T, self.shift, np.full(FIRST, INNER**2)),
        }
        return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), found)

    def log_p(self) -> np.ndarray:
        """log N(x; mean, cov) [N]."""
        r = self.x - self.mean
        return -0.5 * ((r @ np.linalg.inv(self.cov)) * r).sum(1) - 0.5 * np.linalg.slogdet(2 * np.pi * self.cov)[1]


TRUTH = Truth()
X = jnp.asarray(TRUTH.x, jnp.float32)


@functools.cache
def linear(kind: str = "elbo", k: int = 1) -> Any:
    values = dict(event=(DATA,), levels=0, latents=(FIRST, SECOND), likelihood="gaussian", likelihood_std=NOISE, std="log_variance")
    return make(dict(net=LINEAR), dict(kind=kind, k=k), **values)


@pytest.mark.parametrize("kind", ["elbo", "elbo_path", "iwae", "dreg", "iwae_one"])
def test_with_the_exact_posterior_every_bound_is_the_marginal_likelihood(kind):
    model = linear(kind, 4)
    loss, metrics = quick(model.loss)(TRUTH.params(), KEY, {"x": X}, 0)
    assert loss == pytest.approx(-TRUTH.log_p().mean(), rel=2e-5)
    assert metrics["kl"] == pytest.approx(float(metrics["kl_1"] + metrics["kl_2"]), rel=1e-5)
    assert metrics["recon"] + metrics["kl"] == pytest.approx(float(loss), rel=1e-4)


def test_with_the_exact_posterior_every_log_weight_is_the_marginal_likelihood():
    log_w = quick(jax.vmap(linear().log_prob, (None, 0, None)))(TRUTH.params(), jax.random.split(KEY, 7), {"x": X})
    np.testing.assert_allclose(log_w, np.broadcast_to(TRUTH.log_p(), log_w.shape), rtol=2e-5, atol=2e-4)


def test_with_a_wrong_posterior_many_draws_reach_the_marginal_likelihood_and_the_elbo_does_not():
    params = TRUTH.params()
    for name, shift in (("encoder_1", [0.1, -0.1, 0.2, 0.4, -0.2, 0.3]), ("encoder_2", [0.2, -0.2, 0.3, 0.4])):
        params[name]["head"]["bias"] += jnp.array(shift)
    found = log_likelihood(linear(), params, Split(np.asarray(X)), KEY, k=4000, chunk=500, batch=48)
    assert found["elbo"].mean() < TRUTH.log_p().mean() - 0.05
    assert found["log_prob"].mean() == pytest.approx(TRUTH.log_p().mean(), abs=0.01)


def test_levels_are_the_conditionals_of_the_chain():
    model, params = linear(), TRUTH.params()
    z = np.random.default_rng(1).normal(size=(4, 48, FIRST + SECOND)).astype(np.float32)
    one, two = z[..., :FIRST], z[..., FIRST:]

    def log_normal(z: np.ndarray, mean: Any, variance: Any) -> np.ndarray:
        return (-0.5 * ((z - mean) ** 2 / variance + np.log(2 * np.pi * variance))).sum(-1)

    t = TRUTH
    expected = {
        "q": (log_normal(one, t.x @ t.gain_1 + t.bias_1, t.var_1), log_normal(two, one @ t.gain_2 + t.bias_2, t.var_2)),
        "p": (log_normal(one, two @ t.a.T + t.shift, np.full(FIRST, INNER**2)), log_normal(two, 0.0, np.ones(SECOND))),
    }

    @quick
    def densities(params, z):
        joints = dict(q=model.latent.posterior(params, X), p=model.latent.prior(params))
        draws = {name: joint.sample_and_log_prob(seed=KEY, sample_shape=(3,)) for name, joint in joints.items()}
        drawn = {name: (joints[name].log_prob(z), log_density) for name, (z, log_density) in draws.items()}
        return {name: (joint.level_log_prob(z), joint.log_prob(z)) for name, joint in joints.items()}, drawn

    found, drawn = densities(params, z)
    for name in ("q", "p"):
        np.testing.assert_allclose(found[name][0], np.stack(expected[name], -1), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[name][1], sum(expected[name]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(*drawn[name], rtol=1e-4, atol=1e-4)


def test_draws_of_the_prior_have_the_moments_of_the_model():
    z = quick(lambda: linear().latent.prior(TRUTH.params()).sample(seed=KEY, sample_shape=(20_000,)))()
    full = np.block([[TRUTH.a @ TRUTH.a.T + INNER**2 * np.eye(FIRST), TRUTH.a], [TRUTH.a.T, np.eye(SECOND)]])
    np.testing.assert_allclose(np.cov(z.T), full, atol=0.06)
    np.testing.assert_allclose(z.mean(0), np.concatenate([TRUTH.shift, np.zeros(SECOND)]), atol=0.05)


def test_a_table_has_the_numbers_of_every_level():
    found = elbo.latent_terms(linear(), TRUTH.params(), Split(np.asarray(X)), KEY, batch=48)
    assert sum(found["kl_per_level"]) == pytest.approx(found["kl"], rel=1e-5) and len(found["kl_per_level"]) == 2
    assert found["units_per_level"] == [FIRST, SECOND] and found["latent_units"] == FIRST + SECOND
    assert sum(found["active_per_level"]) == found["active_units"] > 0
    about = dict(split="test", examples=48, units="nats", density="weight", device="cpu", device_count=1, seconds=1.0)
    text = format_results(
        found | about | dict(kl_per_level=[3.25, 1.5], active_units=21, active_per_level=[16, 5], units_per_level=[100, 50])
    )
    assert "3.25 + 1.50" in text and "16+5 of 100+50" in text


def test_beta_weighs_the_kl_and_leaves_the_metrics():
    batch = {"x": jax.random.bernoulli(KEY, 0.5, (16, 6)).astype(jnp.uint8)}

    @quick
    def both(key):
        params = make().init(key, batch)
        weighted = make(dict(beta=dict(kind="linear", steps=10, end=4.0)), dict(kind="elbo", beta="beta"))
        return make().loss(params, key, batch, 5)[1], weighted.loss(params, key, batch, 5)[1]

    plain, warm = both(KEY)
    assert warm["beta"] == 2 and warm["loss"] == pytest.approx(float(plain["recon"] + 2 * plain["kl"]), rel=1e-5)
    assert all(warm[name] == plain[name] for name in ("recon", "kl", "kl_1", "kl_2"))


def test_temperature_scales_the_noise_of_every_level():
    params = TRUTH.params()
    values = dict(event=(DATA,), levels=0, latents=(FIRST, SECOND), likelihood="gaussian", likelihood_std=1e-6, std="log_variance")
    cold, warm = (quick(make(dict(net=LINEAR), temperature=t, **values).sample, static_argnums=2)(params, KEY, 9)["x"] for t in (0.0, 0.5))
    np.testing.assert_allclose(cold, np.broadcast_to(TRUTH.mean, cold.shape), atol=1e-4)
    hot = quick(make(dict(net=LINEAR), temperature=1.0, **values).sample, static_argnums=2)(params, KEY, 9)["x"]
    np.testing.assert_allclose(warm - cold, 0.5 * (hot - cold), atol=1e-4)


def test_what_reads_the_data_runs_once_for_many_draws():
    wide = dict(kind="mlp", hidden=(512, 512), activation="relu", dtype="float32")
    model = make(dict(wide=wide), encoders=("wide", "net"))
    batch = {"x": jnp.zeros((8, 6), jnp.uint8)}
    params = jax.eval_shape(model.init, KEY, batch)

    def flops(n: int) -> float:
        lowered: Any = quick(jax.vmap(model.log_prob, (None, 0, None))).lower(params, jax.random.split(KEY, n), batch)
        return lowered.compile().cost_analysis()["flops"]

    one = flops(1)
    assert one > 2 * 8 * 512 * 512  # the first encoder is counted
    assert flops(20) < 1.5 * one


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(latents=(3,)), "model.latents=.3,. needs as many model.encoders and model.decoders, here 2 and 2"),
        (dict(latents=(), encoders=(), decoders=()), "at least 1"),
        (dict(latents=(3, 0)), r"model.latents\[1\]=0 is invalid"),
        (dict(encoders=("net", "nett")), r"model.encoders\[1\]='nett' is unknown .did you mean 'net'"),
        (dict(objective="tc"), "model.objective: 'tc' needs a diagonal Gaussian posterior"),
        (dict(objective="vimco"), "'vimco' is for discrete latents, and those of a layered VAE are Gaussian; for them: adversarial"),
        (dict(levels=17), "needs binary data"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        make(**values)
    assert "\n" not in str(error.value)


def test_data_of_another_shape_are_refused():
    with pytest.raises(UserError, match="does not fit the data"):
        make().init(KEY, {"x": jnp.zeros((4, 9))})
