"""The families categorical and autoregressive as wholes: samples and bounds belong together, densities sum to one, errors."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from vaeflow.diffusion import CORRUPTIONS
from vaeflow.errors import UserError
from vaeflow.model import merge_params, split_params
from vaeflow.models import MODELS, build_model
from vaeflow.models.autoregressive import autoregressive
from vaeflow.models.categorical import categorical
from vaeflow.nets import NETS, causal_transformer

BASE = MODELS["categorical"].examples[0]


def perturbed(model, x, by: float):
    """Initial parameters and noise, so that the network's outputs are not near zero."""
    trained, stats, fixed = split_params(model.init(KEY, {"x": x}))
    rng = np.random.default_rng(0)
    return merge_params(jax.tree.map(lambda a: a + by * rng.normal(size=a.shape).astype(a.dtype), trained), stats, fixed)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_samples_and_the_bound_are_of_one_model(kind):
    """One entry of 3 categories in 4 steps. A network that always gives the same weights is the exact reverse of data of these frequencies,
    so that the bound is log p; for any other the bound is below the frequencies of the samples."""
    net = NETS["mlp"](hidden=(8,), activation="tanh")
    model = categorical(event=(1,), levels=3, net=net, corruption=CORRUPTIONS[kind](), timesteps=4, steps=4)
    n, weights = 20_000, np.array([0.6, 0.3, 0.1])
    assert model.sample is not None and model.log_prob is not None
    sample, log_prob = quick(model.sample, static_argnums=2), quick(model.log_prob)
    params = perturbed(model, jnp.arange(3)[:, None], 0.5)
    head = {"kernel": jnp.zeros_like(params["net"]["head"]["kernel"]), "bias": jnp.log(jnp.asarray(weights, jnp.float32))}
    for constant, own in ((False, params), (True, params | {"net": params["net"] | {"head": head}})):
        share = np.bincount(np.asarray(sample(own, KEY, n)["x"])[:, 0], minlength=3) / n
        # One category a batch, as the times are one in each stratum of a batch.
        bounds = np.stack([log_prob(own, jax.random.fold_in(KEY, i), {"x": jnp.full((n, 1), i)}) for i in range(3)])
        mean, error = bounds.mean(1), 4.5 * (bounds.std(1) / np.sqrt(n) + np.sqrt((1 - share) / share / n))
        assert (mean < np.log(share) + error).all() and np.ptp(share) > 0.1
        if constant:
            assert (np.abs(mean - np.log(weights)) < error + 1e-3).all()  # 1e-3: the prior of `uniform`, alphabar_4 > 0
            assert (np.abs(np.log(share) - np.log(weights)) < error + 1e-3).all()


def test_an_autoregressive_density_sums_to_one_and_is_that_of_its_samples():
    model = autoregressive(event=(3,), levels=2, net=causal_transformer(width=8, depth=1))
    x = jnp.asarray([*itertools.product((0, 1), repeat=3)])
    params = perturbed(model, x, 0.5)
    assert model.sample is not None and model.log_prob is not None
    p = np.exp(quick(model.log_prob)(params, KEY, {"x": x}))
    assert p.sum() == pytest.approx(1, abs=1e-5) and p.max() > 1.5 * p.min()
    drawn = np.asarray(quick(model.sample, static_argnums=2)(params, KEY, 8000)["x"])
    share = np.bincount(drawn @ np.array([4, 2, 1]), minlength=8) / 8000
    assert (np.abs(share - p) < 4.5 * np.sqrt(p / 8000) + 1e-9).all()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (dict(levels=0), "model.levels=0 is invalid; discrete diffusion needs integers"),
        (dict(event=(2, 3)), r"model.event=\(2, 3\) is invalid; it must be a sequence"),
        (dict(timesteps=0, corruption="gaussian"), "model.timesteps=0 is continuous time, which needs the corruption uniform or absorbing"),
        (dict(steps=7), "sample.steps=7 must be at most model.timesteps=6"),
        (dict(remask=0.5), "sample.remask=0.5 needs model.corruption=absorbing"),
        (dict(vlb=0.0, cross_entropy=0.0), "leave no loss"),
        (dict(corruption="absorbin"), "model.corruption='absorbin' is unknown .did you mean 'absorbing'"),
        (dict(temperature=0.0), "sample.temperature=0.0 is invalid; it must be > 0"),
    ],
)
def test_wrong_options_are_one_line(values, said):
    with pytest.raises(UserError, match=said) as error:
        build_model(config("categorical", BASE | values))
    assert "\n" not in str(error.value)


def test_an_autoregressive_model_of_continuous_data_is_refused():
    with pytest.raises(UserError, match=r"model.levels=0 is invalid; an autoregressive model needs integers"):
        build_model(config("autoregressive", MODELS["autoregressive"].examples[0] | dict(levels=0)))
