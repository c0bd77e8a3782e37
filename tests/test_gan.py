"""GANs: whose gradient a loss has, what fits together, turns in `fit`, covered modes; other games as the regulariser of a VAE."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vaeflow as vf
from tests import toys
from tests.diagnose_toys import run
from tests.model_cases import quick
from vaeflow.data import Split
from vaeflow.data.densities import DENSITIES, draw
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import mode_coverage
from vaeflow.model import merge_params, split_params
from vaeflow.models.gan import gan
from vaeflow.nets import Net, mlp
from vaeflow.objectives import ADVERSARIAL, OBJECTIVES, Draws
from vaeflow.training import setup
from vaeflow.training.configure import load

KEY = jax.random.key(0)
NET = mlp(hidden=(8,), activation="tanh")
BATCH = {"x": jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)), jnp.float32)}


def made(name: str, **own: Any) -> Any:
    game = ADVERSARIAL[name](**own)
    networks: dict[str, Any] = dict(critic=NET if game.critic else None, decoder=NET if game.decodes else None)
    return gan(event=(2,), generator=NET, objective=game, **networks)


@pytest.mark.parametrize("name", ["wgan_gp", "mmd"])
def test_each_loss_has_a_gradient_for_one_player_alone(name):
    model = made(name)
    trained, stats, fixed = split_params(quick(model.init)(KEY, BATCH))

    def losses(trained):
        found = model.loss(merge_params(trained, stats, fixed), KEY, BATCH, 0)[1]
        return found["critic_loss"], found["generator_loss"], found["loss"]

    of_critic, of_generator, total = quick(jax.jacrev(losses))(trained)
    for own, (mine, other) in ((of_critic, ("critic", "generator")), (of_generator, ("generator", "critic"))):
        assert all(not np.any(a) for a in jax.tree.leaves(own[other])), other
        assert any(np.any(a) for a in jax.tree.leaves(own[mine])), mine
        for a, b in zip(jax.tree.leaves(own[mine]), jax.tree.leaves(total[mine]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


class Normalised(nn.Module):
    """A critic with batch normalisation, whose output for an example depends on the others."""

    @nn.compact
    def __call__(self, x, context=None):
        del context
        return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(x))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (dict(objective="gmmn", critic=NET), "the objective 'gmmn' has no critic, and model.critic must be empty"),
        (dict(objective="hinge"), "the objective 'hinge' needs a network model.critic"),
        (dict(objective="began", critic=NET), "the objective 'began' needs a network model.decoder"),
        (dict(objective="hinge", critic=NET, decoder=NET), "the objective 'hinge' has no decoder, and model.decoder must be empty"),
        (dict(objective="hing", critic=NET), "did you mean 'hinge'"),
    ],
)
def test_networks_that_the_objective_does_not_have(values, said):
    with pytest.raises(UserError, match=said) as error:
        gan(event=(2,), generator=NET, **values)
    assert "\n" not in str(error.value)


def test_batch_normalisation_under_a_gradient_penalty_and_single_examples_are_refused():
    critic = Net(lambda out, event_ndims, zero_head: Normalised())
    with pytest.raises(UserError, match=r"batch normalisation \(batch_stats\), and the gradient penalty of 'wgan_gp'"):
        jax.eval_shape(gan(event=(2,), generator=NET, critic=critic, objective=ADVERSARIAL["wgan_gp"]()).init, KEY, BATCH)
    with pytest.raises(UserError, match="'cramer' compares at least 2"):
        model, one = made("cramer"), {"x": BATCH["x"][:1]}
        jax.eval_shape(model.loss, jax.eval_shape(model.init, KEY, BATCH), KEY, one, 0)


def test_fit_takes_the_turns_and_the_bounds_of_the_model():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    model = vf.flows.gan(event=(2,), objective=ADVERSARIAL["wgan"](), hidden=(8,))
    own: Any = dict(batch=16, val=None, options={"optim.ema": 0.0})
    found = vf.fit(model, x, steps=6, **own)
    assert tuple(found.config.optim.turns) == ("critic:5", "generator:1") and found.config.optim.schedule == "constant"
    bounds = [np.abs(a).max() for a in jax.tree.leaves(found.params["critic"])]
    assert max(bounds) == pytest.approx(0.01) and found.sample(3).shape == (3, 2)
    bias = np.abs(found.params["generator"]["head"]["bias"])
    np.testing.assert_allclose(bias, 1e-3, rtol=0.05)  # one turn: Adam's first step is as long as the rate, but for eps
    other = vf.fit(model, x, steps=6, optimizer=optax.sgd(1e-3), **own)
    assert not other.config.optim.turns and not other.config.optim.groups
    changed = vf.fit(model, x, steps=6, optimizer=dict(turns=("critic:2", "generator:1")), **own)
    assert tuple(changed.config.optim.turns) == ("critic:2", "generator:1")


def coverage(x: Any, name: str = "8gaussians", again: bool = False, **settings: Any) -> dict[str, Any]:
    """The measure of samples x of a density, or of rows of them by the key."""
    density = DENSITIES[name]()

    def sample(params, key, n, context=None):
        return {"x": jnp.asarray(x)[jax.random.randint(key, (n,), 0, len(x)) if again else jnp.arange(n)]}

    model = toys.model(None, "none", sample=sample)
    found = run(model, draw(density, 50, (0,)), draw(density, 50, (1,)))
    found = found._replace(source=found.source._replace(modes=density.modes))
    chosen = mode_coverage.ModeCoverageSettings(samples=len(x), **settings)
    mode_coverage.needs(found, chosen)
    return {name: finding.value for name, finding in mode_coverage.prepare(found, chosen)({}, KEY).items()}


@pytest.mark.parametrize("name", ["8gaussians", "25gaussians"])
def test_samples_of_a_mixture_cover_its_modes(name):
    x = draw(DENSITIES[name](), 5000, (2,)).x
    modes = DENSITIES[name]().components
    found = coverage(x, name, again=True)
    assert found["covered"] == modes and found["near"] == pytest.approx(1 - np.exp(-4.5), abs=0.006)
    assert found["smallest"] == pytest.approx(1 / modes, rel=0.35)


def test_modes_that_samples_miss_are_counted():
    density = DENSITIES["8gaussians"]()
    assert density.modes is not None
    centres = density.modes.centres
    found = coverage(np.concatenate([np.repeat(centres[:2], 10, 0), centres[2:3], np.zeros((19, 2))]).astype(np.float32))
    assert found == {"covered": 3, "near": 21 / 40, "smallest": 0.0}
    assert coverage(np.repeat(centres[:2], 10, 0).astype(np.float32), least=11)["covered"] == 0
    assert coverage(np.full((20, 2), np.nan, np.float32)) == {"covered": 0, "near": 0.0, "smallest": 0.0}


def test_modes_must_be_known():
    model = toys.model(None, "none", sample=lambda params, key, n, context=None: {"x": jnp.zeros((n, 2))})
    split = Split(np.zeros((50, 2), np.float32))
    with pytest.raises(UserError, match=r"the modes of data.kind=.* are not known"):
        mode_coverage.needs(run(model, split, split), mode_coverage.ModeCoverageSettings())
    with pytest.raises(UserError, match="draws no samples"):
        mode_coverage.needs(run(toys.model(None, "none"), split, split)._replace(), mode_coverage.ModeCoverageSettings())


@pytest.mark.parametrize("name", ["hinge", "wgan_gp", "cramer", "mcgan"])
def test_other_games_regularise_the_aggregate_posterior(name):
    objective = OBJECTIVES["adversarial"](critic=NET, weight=2.0, game=ADVERSARIAL[name]())
    z, prior = (jax.random.normal(key, (16, 3)) for key in jax.random.split(KEY))

    def of(z):
        zero = jnp.zeros((1, 16))
        return Draws(z[None], zero, lambda z: zero, lambda z: zero, lambda z: zero, None, 3, None, lambda key: prior, BATCH["x"])

    assert objective.init is not None
    own = objective.init(KEY, of(z))

    def total(own, z):
        return objective.loss(own, KEY, of(z), 0)

    (value, metrics), (of_critic, of_z) = quick(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))(own, z)
    assert value == pytest.approx(float(2 * metrics["fooling"]), rel=1e-5, abs=1e-6)  # the critic's loss adds a gradient and no value
    assert np.any(of_z) and any(np.any(a) for a in jax.tree.leaves(of_critic))


@pytest.mark.parametrize(("name", "said"), [("gmmn", "has no critic"), ("magan", "needs a decoder"), ("fisher", "keeps scalars")])
def test_games_that_do_not_regularise(name, said):
    with pytest.raises(UserError, match=f"game='{name}' {said}"):
        OBJECTIVES["adversarial"](critic=NET, weight=1.0, game=ADVERSARIAL[name]())


def test_a_config_of_a_game_that_needs_clipping_must_have_it():
    config = load("configs/digits_gan.py", [("model.objective", "wgan")])
    with pytest.raises(UserError, match=r"optim.groups.critic.clip_weights is missing"):
        setup.make_experiment(config)
