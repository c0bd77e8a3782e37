"""Premade models: every function has a line in FLOWS and is that config kind; they trace at their defaults on vectors, images and single
numbers, with contexts; what a config makes a notebook makes; errors. The laws of tests/test_models.py run over FLOWS too."""

from __future__ import annotations

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import premade
from vaeflow import flows
from vaeflow.build import SAMPLING, marked, registry, signature
from vaeflow.errors import UserError
from vaeflow.flows import FLOWS
from vaeflow.model import Model, merge_params, split_params
from vaeflow.models import MODELS, build_model
from vaeflow.training.configure import complete, load

KEY = jax.random.key(0)
NAMES = sorted(set(flows.__all__) - {"FLOWS"})
VECTOR, POINT, IMAGE = ((2,), 0), ((1,), 0), ((8, 8, 1), 17)
INTEGERS = {"d3pm", "masked_diffusion"}
NO_VECTORS = {"realnvp_multiscale", "glow", "mintnet", "jet", "tarflow", "vdvae"} | INTEGERS
NO_POINTS = {"nice", "realnvp", "flowpp"} | NO_VECTORS
CONTEXT = 3


def traced(model: Model, context: bool, n: int = 4) -> dict:
    """Shapes of everything that a model computes, without compiling it."""
    assert model.event is not None
    x = jax.ShapeDtypeStruct((n, *model.event), jnp.uint8 if model.levels else jnp.float32)
    batch = {"x": x} | ({"context": jax.ShapeDtypeStruct((n, CONTEXT), jnp.float32)} if context else {})
    params = jax.eval_shape(model.init, KEY, batch)
    found = {"params": params, "loss": jax.eval_shape(model.loss, params, KEY, batch, 0)[0].shape}
    assert model.sample is not None
    sample = jax.eval_shape(lambda p, k, c: model.sample(p, k, n, context=c), params, KEY, batch.get("context"))  # type: ignore[misc]
    found["sample"] = sample["x"].shape
    if model.log_prob is not None:
        found["log_prob"] = jax.eval_shape(model.log_prob, params, KEY, batch).shape
    return found


def test_every_premade_model_is_a_kind_and_no_other_names_it():
    assert {f"flows.{name}" for name in NAMES} == FLOWS.keys()
    assert not MODELS.keys() & FLOWS.keys()
    assert {*registry(Model)} == MODELS.keys() | FLOWS.keys()
    assert all(FLOWS[f"flows.{name}"].make is getattr(flows, name) for name in NAMES)
    assert {*premade.POINTS, *premade.DIGITS} == {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_keywords_with_annotations_and_only_the_event_is_required(name):
    make = getattr(flows, name)
    arguments = inspect.signature(make).parameters
    assert all(argument.kind is argument.KEYWORD_ONLY for argument in arguments.values())
    assert [key for key, argument in arguments.items() if argument.default is argument.empty] == ["event"]
    assert arguments["levels"].default == 0
    assert marked(signature(make)["temperature"], SAMPLING)
    documented = make.__doc__.partition("Args:")[2].partition("Returns:")[0]
    assert all(key in documented for key in arguments)


@pytest.mark.parametrize(
    ("name", "data"),
    [(name, VECTOR) for name in NAMES if name not in NO_VECTORS]
    + [(name, POINT) for name in NAMES if name not in NO_POINTS]
    + [(name, IMAGE) for name in NAMES],
)
def test_the_defaults_fit_vectors_and_images(name, data):
    event, levels = data
    model = getattr(flows, name)(event=event, levels=levels)
    found = traced(model, context=FLOWS[f"flows.{name}"].context and event != (8, 8, 1))
    assert (model.event, model.levels) == (event, levels)
    assert found["loss"] == () and found["sample"] == (4, *event) and found.get("log_prob", (4,)) == (4,)
    assert (model.log_prob is None) == (name in ("consistency", "mean_flow", "shortcut", "gan", "wgan_gp"))


@pytest.mark.parametrize("name", sorted(NO_VECTORS | {"vq", "flow_matching", "mean_flow"}))
def test_models_of_images_have_contexts(name):
    assert traced(getattr(flows, name)(event=(4, 4, 1), levels=17), context=True)["loss"] == ()


@pytest.mark.parametrize("name", ["realnvp_multiscale", "glow", "jet"])
def test_continuous_images_fit_too(name):
    model = getattr(flows, name)(event=(4, 4, 2))
    assert traced(model, context=False)["log_prob"] == (4,) and model.density == "exact"


@pytest.mark.parametrize("row", ["nsf", "vae", "flow_matching"])
def test_a_config_and_a_notebook_make_the_same_model(row):
    event, levels = ((8, 8, 1), 17) if row in premade.DIGITS else ((2,), 0)
    config = load(f"configs/premade.py:{row}").to_dict()
    model = build_model({**config, "model": config["model"] | dict(event=event, levels=levels)})
    x = np.random.default_rng(0).integers(0, max(levels, 2), (16, *event)).astype(np.uint8 if levels else np.float32)
    params, other = (m.init(KEY, {"x": x}) for m in (model, getattr(flows, row)(event=event, levels=levels)))
    assert jax.tree.structure(params) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, params, other)


def test_overrides_reach_a_premade_model():
    config = load("configs/premade.py:nsf", [("model.layers", "3"), ("model.hidden", "16,8"), ("sample.temperature", "0.5")])
    assert (config.model.layers, config.model.hidden, config.sample.temperature) == (3, (16, 8), 0.5)
    config = load("configs/premade.py:nsf", [("model.kind", "flows.maf"), ("model.cap", "3")])
    assert config.model.kind == "flows.maf" and config.model.cap == 3.0 and "bins" not in config.model
    schedule = load("configs/premade.py:vae", [("parts.beta.kind", "linear"), ("parts.beta.steps", "10"), ("model.beta", "beta")])
    assert build_model({**schedule.to_dict(), "model": schedule.model.to_dict() | dict(event=(8, 8, 1), levels=17)}).event == (8, 8, 1)


def test_a_premade_model_is_a_part_of_another_config_too():
    """A teacher: the group of a Frozen argument has a premade model's config."""
    own = complete(ConfigDict({"model": dict(kind="flows.flow_matching", event=(2,)), "parts": {}, "sample": {}}))
    teacher = {"from": "run", "which": "auto", "ema": True, "sha256": "", "train": False}
    teacher["config"] = {section: own[section].to_dict() for section in ("model", "parts", "sample")}
    student = dict(kind="flow_map", event=(2,), levels=0, net="net", target="heun", intervals="points", teacher=teacher, loss="data_square")
    model = build_model({"model": student, "parts": {"net": dict(kind="mlp", hidden=(4,))}, "sample": {}})
    params = jax.eval_shape(model.init, KEY, {"x": jnp.zeros((4, 2))})
    assert "dense_2" in params["fixed"]["teacher"]["net"]


def test_a_likelihood_follows_the_grey_values():
    by_levels = {0: "gaussian_learned", 2: "bernoulli", 17: "discretized_logistic"}
    for levels, likelihood in by_levels.items():
        auto, named = (flows.vae(event=(4,), levels=levels, likelihood=name) for name in ("auto", likelihood))
        batch = {"x": jnp.zeros((3, 4), jnp.uint8 if levels else jnp.float32)}
        params = auto.init(KEY, batch)
        assert auto.loss(params, KEY, batch, 0)[0] == named.loss(params, KEY, batch, 0)[0]


def test_beta_weighs_the_divergence_and_iwae_takes_k_draws():
    batch = {"x": jax.random.normal(KEY, (8, 4))}
    small = functools.partial(flows.vae, event=(4,), hidden=(8,))
    params = small().init(KEY, batch)
    plain, metrics = small().loss(params, KEY, batch, 0)
    assert small(beta=3.0).loss(params, KEY, batch, 0)[0] == pytest.approx(float(plain + 2 * metrics["kl"]), rel=1e-6)
    k = flows.iwae(event=(4,), hidden=(8,), k=64)
    single = flows.iwae(event=(4,), hidden=(8,), k=1)
    tighter = [float(m.loss(params, KEY, batch, 0)[0]) for m in (k, single)]
    assert tighter[0] < tighter[1]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_couplings_alternate_whatever_their_number(layers):
    """Each dimension of a coupling flow moves from two layers on: the Jacobian's entries off the diagonal."""
    model = flows.realnvp(event=(2,), layers=layers, hidden=(8,))
    x = jax.random.normal(KEY, (16, 2))
    trained, stats, fixed = split_params(model.init(KEY, {"x": x}))
    assert not stats and not fixed
    noise = jax.random.normal(jax.random.key(1), (2,))
    params = jax.tree.map(lambda a: a + 0.3 * jnp.sin(jnp.arange(a.size, dtype=a.dtype).reshape(a.shape) + noise[0]), trained)
    jacobian = jax.jacobian(lambda y: model.encode(params, KEY, {"x": y[None]})[0])(x[0])  # type: ignore[misc]
    assert np.abs(jacobian[1, 0]) > 1e-3 and (np.abs(jacobian[0, 1]) > 1e-3) == (layers > 1)


def test_a_flow_of_one_number_is_not_a_gaussian():
    """Of a single number nsf has splines whose parameters depend on the context alone."""
    model = flows.nsf(event=(1,), layers=2, bins=4, hidden=(8,))
    x = jax.random.normal(KEY, (8, 1))
    trained, stats, fixed = split_params(model.init(KEY, {"x": x, "context": jnp.ones((8, 3))}))
    trained = jax.tree.map(lambda a: a + 0.3 * jnp.sin(jnp.arange(a.size, dtype=a.dtype).reshape(a.shape)), trained)
    params = merge_params(trained, stats, fixed)
    y = jnp.linspace(-1, 1, 5)[:, None]
    logs = [model.log_prob(params, KEY, {"x": y, "context": jnp.full((5, 3), c)}) for c in (0.0, 1.0)]  # type: ignore[misc]
    second = np.diff(np.asarray(logs[0]), 2)
    assert np.ptp(second) > 1e-3 and np.abs(logs[0] - logs[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        *((name, dict(event=(1,)), rf"flows.{name}: event=\(1,\) is a single number") for name in ("nice", "realnvp", "flowpp")),
        *((name, dict(event=(4,)), rf"flows.{name}: event=\(4,\) must be an image \[H, W, C\]") for name in sorted(NO_VECTORS - INTEGERS)),
        *((name, dict(event=(4,)), "levels=0 is invalid; discrete diffusion needs integers") for name in sorted(INTEGERS)),
        ("glow", dict(event=(6, 4, 1)), r"flows.glow: scales=2 needs a height and a width that are multiples of 4; event=\(6, 4, 1\)"),
        ("realnvp_multiscale", dict(event=(6, 4, 1)), "scales=2 needs"),
        ("mintnet", dict(event=(3, 4, 1)), "scales=2 needs a height and a width that are multiples of 2"),
        ("jet", dict(event=(8, 8, 1), patch=3), "patch=3 needs"),
        ("jet", dict(event=(8, 8, 1), heads=3), "heads=3 does not divide width=32"),
        ("flowpp", dict(event=(3, 4, 1)), "its squeeze needs a height and a width that are multiples of 2"),
        ("vae", dict(event=(4,), net="conv"), r"flows.vae: net='conv' needs images"),
        ("iwae", dict(event=(4,), net="conv"), r"flows.iwae: net='conv' needs images"),
        ("vae", dict(event=(4,), likelihood="bernoulli", levels=17), "binary data"),
        ("vdvae", dict(event=(4, 4, 1), blocks=(1,)), "one number for each scale"),
    ],
)
def test_errors_are_one_line(make, values, message):
    with pytest.raises(UserError, match=message) as error:
        getattr(flows, make)(**values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "nsf", r"model.kind='nsf' is unknown \(did you mean 'flows.nsf'\?\)"),
        ("layers", 0, "model.layers=0 is invalid; it must be >= 1"),
        ("bin", 4, r"model: the key='bin' is unknown \(did you mean 'bins'\?\)"),
    ],
)
def test_wrong_configs_name_the_key(key, value, message):
    config = {"model": dict(kind="flows.nsf", event=(2,)) | {key: value}, "parts": {}, "sample": {}}
    with pytest.raises(UserError, match=message):
        build_model(config)
