"""Laws over MODELS: every registered family at every example of its registry line; config errors. Premade models are calls of their makers:
the long matrix tries them here, tests/test_flows.py traces them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from tests.model_cases import BATCH, CASES, DRAWS, FLOW, KEY, VAE, case, config, flat, quick
from vaeflow.errors import UserError
from vaeflow.flows import FLOWS
from vaeflow.model import split_params
from vaeflow.models import MODELS, build_model

# The multi-scale flow has a structure that no family's example has.
PREMADE = [pytest.param(name, 0, marks=() if name == "flows.glow" else pytest.mark.full) for name in FLOWS]
CASES_AND_PREMADE = [*CASES, *PREMADE]


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_loss_is_finite_and_trains_every_leaf(name, i):
    c = case(name, i)
    assert np.isfinite(c.out["loss"]) and c.out["loss"].dtype == jnp.float32
    assert all(np.shape(v) == () and np.isfinite(v) for v in c.out["metrics"].values()) and c.out["metrics"]["loss"] == c.out["loss"]
    for path, g in flat(c.out["grads"]).items():
        assert np.isfinite(g).all() and np.abs(g).max() > 0, "/".join(path)
        assert g.dtype == jnp.float32


@pytest.mark.parametrize("name", MODELS)
def test_jit_changes_nothing(name):
    c = case(name, 0)
    assert c.model.loss(c.params, KEY, c.batch, 3)[0] == pytest.approx(float(c.out["loss"]), rel=1e-4)


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_init_takes_given_parameters_as_they_are(name, i):
    c = case(name, i)
    given = flat(c.params)
    for some in (list(given), list(given)[::2]):
        part = traverse_util.unflatten_dict({path: given[path] for path in some})
        params = flat(quick(c.model.init)(jax.random.key(7), c.batch, part))
        assert params.keys() == given.keys() and all(np.isfinite(leaf).all() for leaf in params.values())
        for path in some:
            np.testing.assert_array_equal(params[path], given[path], err_msg="/".join(path))


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_samples_have_the_shape_and_the_range_of_the_data(name, i):
    c = case(name, i)
    if c.model.sample is None:
        assert c.model.latent is None and c.model.encode is not None  # it draws nothing: there is something else to have from it
        return
    assert all(len(leaf) == DRAWS for leaf in c.out["sample"].values())
    x = c.out["sample"]["x"]
    assert x.shape == (DRAWS, *(c.model.event or ())) and np.isfinite(x).all()
    if c.model.levels and c.values.get("likelihood") not in ("gaussian", "gaussian_learned"):
        assert x.min() >= 0 and x.max() <= c.model.levels - 1


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_log_prob_is_one_number_an_example_and_depends_on_the_context(name, i):
    c = case(name, i)
    if c.model.log_prob is None:
        assert c.model.density == "none"
        return
    assert c.out["log_prob"].shape == (BATCH,) and np.isfinite(c.out["log_prob"]).all() and c.out["log_prob"].dtype == jnp.float32
    if "other" in c.out:
        assert (np.abs(c.out["other"] - c.out["log_prob"]) > 0).mean() > 0.5


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_terms_and_encodings_have_one_row_per_example(name, i):
    c = case(name, i)
    for values in c.out.get("terms", {}).values():
        assert values.shape == (BATCH,) and np.isfinite(values).all()
    if c.model.encode is not None:
        assert len(c.out["encode"]) == BATCH and np.isfinite(c.out["encode"]).all()
    assert c.model.latent is None or c.model.encode is None  # evaluation encodes by `latent` where there is one


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_update_sets_the_statistics_and_nothing_else(name, i):
    c = case(name, i)
    _, stats, _ = split_params(c.params)
    assert (c.model.update is not None) == bool(jax.tree.leaves(stats))
    if c.model.update is None:
        return
    old, new = flat(c.params), flat(c.out["update"])
    assert old.keys() == new.keys()
    for path in old:
        assert np.array_equal(old[path], new[path]) != ("stats" in path), "/".join(path)


@pytest.mark.parametrize("name, i", CASES_AND_PREMADE)
def test_latent_distributions_make_up_the_log_weight(name, i):
    c = case(name, i)
    if c.model.latent is None:
        return
    found = c.out["latent"]
    np.testing.assert_allclose(found["log_w"], c.out["log_prob"], rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(found["inverted"], found["log_q"], rtol=1e-3, atol=1e-3)
    assert found["mean"].shape == c.batch["x"].shape and found["log_q"].shape == (BATCH,)


@pytest.mark.parametrize(
    "name, values, message",
    [
        ("vea", VAE, "model.kind='vea' is unknown .did you mean 'vae'"),
        ("vae", VAE | dict(latent=0), "model.latent=0 is invalid"),
        ("vae", VAE | dict(latents=3), "model: the key='latents' is unknown .did you mean 'latent'"),
        ("vae", VAE | dict(prior="maf"), "model.prior='maf' is unknown"),
        ("vae", VAE | dict(prior="net"), "parts.net.kind='mlp' is a net, where a layer is needed"),
        ("vae", VAE | dict(levels=17), "needs binary data"),
        ("vae", VAE | dict(levels=0, likelihood="discretized_logistic"), "needs grey values"),
        ("vae", VAE | dict(levels=1, likelihood="gaussian"), "model.levels=1 is invalid"),
        ("vae", VAE | dict(posterior_context=2), "has no use without a layer"),
        ("vae", VAE | dict(objective="eblo"), "model.objective='eblo' is unknown .did you mean 'elbo'"),
        ("vae", VAE | dict(objective="rise"), "parts.rise.kind='linear' is a schedule, where an objective is needed"),
        ("vae", VAE | dict(temperature=-1.0), "sample.temperature=-1.0 is invalid"),
        ("flow", FLOW | dict(dequantize="uniform"), "does not fit model.levels=0"),
        ("flow", FLOW | dict(levels=256, dequantize="none"), "does not fit model.levels=256"),
        ("flow", FLOW | dict(base="student"), "model.base='student' is unknown"),
    ],
)
def test_wrong_configs_are_one_line(name, values, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(config(name, values))
    assert "\n" not in str(error.value)


def test_wrong_sample_keys_and_events_are_one_line():
    c = config("vae", VAE).unlock()
    c.sample.temprature = 1.0
    with pytest.raises(UserError, match=r"sample: the key='temprature' is unknown .did you mean 'temperature'"):
        build_model(c)
    for name, i in (("vae", 0), ("flow", 0)):
        with pytest.raises(UserError, match="does not fit the data"):
            case(name, i).model.init(KEY, {"x": jnp.zeros((4, 9))})
