"""The contrastive prior where everything is known: q = N(m, s^2), p = N(0, I) in the plane, r = q/p; and as a second stage."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.commands import refusal, train_only
from tests.model_cases import FLOW, KEY, VAE, config, group, quick
from vaeflow import figures
from vaeflow.data import Split
from vaeflow.distributions import Joint, normal
from vaeflow.errors import UserError
from vaeflow.evaluation.likelihood import importance
from vaeflow.figures.priors import prior_columns
from vaeflow.model import Frozen, Latent, Model, Params
from vaeflow.models import MODELS, build_model
from vaeflow.models.contrastive import contrastive
from vaeflow.models.parts.reweight import langevin, resample
from vaeflow.nets import Net
from vaeflow.run import load_run
from vaeflow.training.flops import flops
from vaeflow.training.warm_start import load_params

MEAN, STD, NOISE = jnp.array([0.6, -0.4]), jnp.array([0.5, 0.7]), 0.1
P = normal(jnp.zeros(2), jnp.ones(2))
# E_p[(q/p)^2] = prod_d exp(m^2 / (2 - s^2)) / (s sqrt(2 - s^2))
SECOND_MOMENT = float(jnp.prod(jnp.exp(MEAN**2 / (2 - STD**2)) / (STD * jnp.sqrt(2 - STD**2))))
DRAWS = 4000
COMMON = (
    *("--config.data.size=1000", "--config.data.batch=64"),
    *("--config.train.steps=10", "--config.train.log_every=10", "--config.train.eval_every=10", "--config.train.checkpoint_every=10"),
    *("--config.eval.k=2", "--config.eval.chunk=2"),
)
SMALL = (*COMMON, "--config.parts.encoder.hidden=8", "--config.parts.decoder.hidden=8")
STAGE = ("--config.parts.classifier.hidden=8", "--config.model.partition=500", "--config.sample.proposals=4")


class Ratio(nn.Module):
    """scale (log N(z; m, s^2) - log N(z; 0, I)) + shift, m the context where there is one: at (1, 0) the logit of the best classifier."""

    @nn.compact
    def __call__(self, z, context=None):
        scale, shift = self.param("scale", nn.initializers.ones, ()), self.param("shift", nn.initializers.zeros, ())
        return (scale * (normal(MEAN if context is None else context, STD).log_prob(z) - P.log_prob(z)) + shift)[..., None]


def model(prior=P, **changes) -> Model:
    """q(z|x) = N(x, s^2 / 4), so q(z) = N(m, s^2) for x ~ N(m, 3/4 s^2); p(x|z) = N(z, 0.1^2)."""
    latent = Latent(
        prior=lambda params, context=None: prior,
        posterior=lambda params, x, context=None: normal(x, STD / 2),
        likelihood=lambda params, z, context=None: normal(z, jnp.full(2, NOISE)),
    )
    vae = Model(lambda key, batch: {}, None, None, None, "none", latent)  # type: ignore[arg-type]
    sizes = dict(partition=20_000, proposals=400, langevin_steps=100, langevin_step_size=0.1, temperature=1.0, sampler="sir")
    return contrastive(frozen=Frozen(vae, "frozen"), classifier=Net(lambda *_: Ratio()), **(sizes | changes))  # type: ignore[arg-type]


def prior_of(m: Model, params: Params, context=None):
    assert m.latent is not None
    return m.latent.prior(params, context)


def parameters(scale: float = 1.0, shift: float = 0.0):
    return {"classifier": {"scale": jnp.asarray(scale), "shift": jnp.asarray(shift)}}


def data(n: int):
    return {"x": MEAN + jnp.sqrt(0.75) * STD * jax.random.normal(jax.random.key(7), (n, 2))}


def assert_moments(x, mean, std):
    """Within four standard errors of N(mean, std^2)."""
    assert (np.abs(x.mean(0) - mean) < 4 * std / np.sqrt(len(x))).all(), (x.mean(0), mean)
    assert (np.abs(x.std(0) / std - 1) < 4 / np.sqrt(2 * len(x))).all(), (x.std(0), std)


@pytest.mark.parametrize("changes", [{}, dict(sampler="langevin", proposals=1), dict(temperature=0.5)], ids=["sir", "langevin", "cold"])
def test_samples_are_those_of_the_aggregate_posterior(changes):
    x = quick(model(**changes).sample, static_argnums=2)(parameters(shift=0.7), KEY, DRAWS)["x"]
    assert_moments(x, MEAN, jnp.sqrt((changes.get("temperature", 1.0) * STD) ** 2 + NOISE**2))


def test_the_frozen_prior_can_still_be_sampled():
    assert_moments(quick(model(sampler="prior").sample, static_argnums=2)(parameters(), KEY, DRAWS)["x"], 0.0, jnp.sqrt(1 + NOISE**2))


def test_the_chains_accept_and_the_step_size_does_not_change_what_they_sample():
    start, target = jax.random.normal(KEY, (DRAWS, 2)), normal(MEAN, STD)
    shares = []
    for step_size, steps in ((0.05, 100), (0.3, 60)):
        z, accepted = quick(langevin, static_argnums=(3, 4))(KEY, start, None, lambda z, _: target.log_prob(z), steps, step_size)
        assert_moments(z, MEAN, STD)
        shares.append(float(accepted.mean()))
    assert 0.2 < shares[1] < shares[0] < 1


def test_densities_are_normalised_and_the_terms_say_how_well():
    m, params, batch = model(), parameters(shift=0.7), data(2000)
    assert m.terms is not None
    z = jax.random.normal(KEY, (5, 2))
    prior = quick(lambda params: prior_of(m, params).log_prob(z))(params)
    terms = {name: np.asarray(v) for name, v in quick(m.terms)(params, KEY, batch).items()}
    error = terms["log_z_error"].mean()
    np.testing.assert_allclose(prior + error, normal(MEAN, STD).log_prob(z), atol=3 * terms["log_z_error"].std() / np.sqrt(2000) + 1e-5)
    assert abs(terms["log_z"].mean() - 0.7) < 4 * terms["log_z"].std() / np.sqrt(2000) < 0.01
    assert 0 < abs(error) < 4 * np.sqrt((SECOND_MOMENT - 1) / 20_000)
    divergence = jnp.sum(0.5 * (STD**2 + MEAN**2 - 1) - jnp.log(STD))  # KL(q || p), all of which the best prior gains
    assert abs(terms["prior_gain"].mean() - divergence) < 4 * terms["prior_gain"].std() / np.sqrt(2000) + abs(error)
    fn, x = importance(m, 1000, 1000), batch["x"][:20]
    found = quick(jax.vmap(lambda key, x: fn(params, key, {"x": x[None]})))(jax.random.split(KEY, 20), x)
    gap = found["log_prob"] - normal(MEAN, jnp.sqrt(STD**2 + NOISE**2)).log_prob(x)
    assert abs(gap.mean() + error) < 4 * jnp.sqrt((found["se"] ** 2).sum()) / 20 < 0.1


def test_the_effective_sample_size_is_the_analytic_one():
    m = 2000
    found = quick(resample, static_argnums=(1, 2, 3))(
        KEY, lambda key: jax.random.normal(key, (64, 2)), lambda z: normal(MEAN, STD).log_prob(z) - P.log_prob(z), m
    )
    share = np.asarray(found.ess) / m
    assert abs(share.mean() - 1 / SECOND_MOMENT) < 4 * share.std() / 8
    assert (np.abs(np.exp(found.log_mean) - 1) < 5 * np.sqrt((SECOND_MOMENT - 1) / m)).all()
    assert (resample(KEY, lambda key: jnp.ones((3, 2)), lambda z: jnp.zeros(3), 1).ess == 1).all()


def test_the_loss_is_lowest_at_the_ratio_of_the_densities():
    loss = quick(lambda scale, shift: model().loss(parameters(scale, shift), KEY, data(20_000), 0)[0])
    best = loss(1.0, 0.0)
    assert all(loss(*other) > best + 1e-4 for other in ((0.8, 0.0), (1.2, 0.0), (1.0, 0.2), (1.0, -0.2)))
    assert loss(0.0, 0.0) == pytest.approx(np.log(2))


def test_with_a_context_everything_is_given_it():
    m = model(partition=5000)
    context = jnp.array([[0.5, 0.5], [-0.5, 0.2]])
    x = quick(m.sample, static_argnums=2)(parameters(), KEY, 2 * DRAWS, jnp.repeat(context, DRAWS, axis=0))["x"]
    prior = quick(lambda params, z: prior_of(m, params, context).log_prob(z))(parameters(), jnp.zeros((3, 2, 2)))
    np.testing.assert_allclose(prior[0], normal(context, STD).log_prob(jnp.zeros(2)), atol=0.1)
    for half, mean in zip(jnp.split(x, 2), context, strict=True):
        assert_moments(half, mean, jnp.sqrt(STD**2 + NOISE**2))


def test_a_hierarchy_keeps_its_levels():
    def terms(z):
        return jax.scipy.stats.norm.logpdf(z)

    def draw(key, n):
        z = jax.random.normal(key, (n, 2))
        return z, terms(z)

    z = jnp.array([[0.3, -1.0], [2.0, 0.1]])
    levels = prior_of(model(Joint(draw, terms, (1, 1)), partition=2000), parameters()).level_log_prob(z)
    np.testing.assert_allclose(levels.sum(-1), normal(MEAN, STD).log_prob(z), atol=0.1)  # 2000 draws estimate Z
    np.testing.assert_allclose(levels[:, 0], terms(z[:, 0]), rtol=1e-6)


def test_the_partition_function_is_computed_once_for_all_draws():
    m, batch = model(partition=1000), data(2)
    one, many = (flops(jax.vmap(lambda k: m.log_prob(parameters(), k, batch)), jax.random.split(KEY, n)) for n in (1, 64))  # type: ignore[misc]
    assert many < 2.5 * one


def test_another_model_than_a_vae_is_one_line():
    c = config("contrastive", MODELS["contrastive"].examples[0] | dict(frozen=group("flow", FLOW)))
    with pytest.raises(UserError, match=r"^model.frozen must have a latent vector of real numbers"):
        build_model(c)
    bad = group("vae", VAE)
    bad["config"]["model"]["latents"] = 3
    with pytest.raises(UserError, match=r"^model.frozen.config: model: the key='latents' is unknown .did you mean 'latent'"):
        build_model(config("contrastive", MODELS["contrastive"].examples[0] | dict(frozen=bad)))


def test_a_second_stage_on_a_run(tmp_path):
    first, second = tmp_path / "vae", tmp_path / "ncp"
    train_only("--config=configs/gaussians_ncp.py:vae", *SMALL, f"--workdir={first}")
    words = ("--config=configs/gaussians_ncp.py:ncp", *COMMON, *STAGE, f"--workdir={second}")
    assert "then add --config.model.frozen=runs/gaussians_ncp" in refusal("train", *words)
    train_only(*words, f"--config.model.frozen={first}")
    model, params, config = load_run(second, [("sample.sampler", "langevin"), ("sample.langevin_steps", "2")], allowed=("sample",))
    for a, b in zip(jax.tree.leaves(load_params(first)), jax.tree.leaves(params["fixed"]["frozen"]), strict=True):
        np.testing.assert_array_equal(a, b)
    source = toys.source(Split(np.zeros((30, 2), np.float32)))
    subject = figures.look_at(second, tmp_path, model, params, config, source, [])
    assert not figures.lacking("prior_hole", subject)
    assert figures.draw("prior_hole", subject)[0].stat().st_size > 10_000


def test_the_hole_of_a_prior_on_a_line(tmp_path):
    z = [np.random.default_rng(0).normal(size=(50, 1)) + shift for shift in range(3)]
    assert prior_columns([], z, tmp_path / "prior_hole.png").stat().st_size > 10_000
