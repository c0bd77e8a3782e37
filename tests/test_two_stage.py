"""Models on the latents of an autoencoder: the bound, the latents' scale, conditions, other sizes, guidance in an interval, error lines."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import GREY, config, group, quick
from vaeflow.diffusion.edits import left
from vaeflow.errors import UserError
from vaeflow.model import merge_params, split_params
from vaeflow.models import build_model

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).integers(0, 17, (16, 4, 4, 1)).astype(np.uint8)
GRID = ("autoencoder", GREY | dict(latent=2))
BINARY = ("vae", dict(event=(3,), levels=2, latent=2, encoder="net", decoder="net"))


def made(frozen, model, parts=None, **values):
    """A latent model; parts: further ones, `frozen` a (kind, arguments) pair."""
    whole = config("two_stage", dict(model=model, **values) | dict(frozen=group(*frozen))).to_dict()
    whole["parts"] |= parts or {}
    return build_model(whole)


def test_the_log_weights_of_all_examples_sum_to_one():
    """sum_x E_q[p(x|z) p(z) / q(z|x)] = 1, p(z) the density of a flow."""
    model = made(BINARY, "prior", {"prior": dict(kind="flow", event=(2,), layer="layer")})
    assert model.density == "weight" and model.log_prob is not None
    x = jnp.asarray([*itertools.product((0, 1), repeat=3)], jnp.uint8)
    params = quick(model.init)(KEY, {"x": x})
    log_w = quick(jax.vmap(lambda key: model.log_prob(params, key, {"x": x})))(jax.random.split(KEY, 4000))  # type: ignore[misc]
    weights = np.exp(np.asarray(log_w, np.float64)).sum(1)
    assert abs(weights.mean() - 1) < 4 * weights.std() / 4000**0.5
    assert weights.std() / 4000**0.5 < 0.02


def test_samples_are_on_the_scale_of_the_latents():
    """An untrained flow with actnorm draws latents with the moments of the first batch's, which are far from those of N(0, I)."""
    model = made(GRID, "prior", {"prior": dict(kind="flow", event=(2, 2, 2), layer="scaled")})
    params = quick(model.init)(KEY, {"x": IMAGES})
    y = quick(model.encode)(params, KEY, {"x": IMAGES})
    z = np.asarray(quick(lambda: model.sample(params, KEY, 2000)["z"])()).reshape(2000, 2, 2, 2)
    want, got = (np.asarray(a).reshape(-1, 2).std(0) for a in (y, z))
    np.testing.assert_allclose(got, want, rtol=0.25)


def test_codes_are_the_nearest_of_what_the_second_stage_draws():
    codes = ("vq", GREY | dict(codes=5, width=2, prior="causal", decay=0.9, restart=0.0))
    model = made(codes, "prior", {"prior": dict(kind="flow", event=(2, 2, 2), layer="scaled")})
    assert model.log_prob is None and model.density == "none"
    params = quick(model.init)(KEY, {"x": IMAGES})
    found = quick(lambda: model.sample(params, KEY, 6))()
    assert found["z"].shape == (6, 4) and found["z"].dtype == jnp.int32 and found["x"].shape == (6, 4, 4, 1)


UNET = dict(kind="diffusion", event=(2, 2, 2), net="unet_beside", steps=2)


def test_a_condition_is_what_is_known_of_references():
    """Samples do not depend on the unknown half of a reference, and depend on the known one."""
    model = made(GRID, "prior", {"prior": UNET, "left": dict(kind="left")}, condition="left")
    assert model.edits and model.log_prob is None
    params = quick(model.init)(KEY, {"x": IMAGES})
    # The network's last layers start at zero, where samples depend on nothing.
    params["model"]["net"] = jax.tree.map(lambda a: a + 0.3, params["model"]["net"])
    draw = quick(lambda reference: model.sample(params, KEY, 4, reference=reference))
    known = left().on((4, 4, 1)).mask
    unknown, other = (np.where(mask, IMAGES[:4] // 2, IMAGES[:4]).astype(np.uint8) for mask in (~known, known))
    np.testing.assert_array_equal(draw(IMAGES[:4])["known"], np.where(known, IMAGES[:4], 0))
    np.testing.assert_array_equal(draw(IMAGES[:4])["z"], draw(unknown)["z"])
    assert np.abs(np.asarray(draw(IMAGES[:4])["z"]) - np.asarray(draw(other)["z"])).max() > 1e-4


def test_another_size_of_samples():
    whole = config("two_stage", dict(model="latent_diffusion", frozen=group(*GRID))).to_dict()
    trained = build_model(whole)
    whole["sample"]["size"] = (4, 6)
    larger = build_model(whole)
    params = quick(trained.init)(KEY, {"x": IMAGES})
    found = quick(lambda: larger.sample(params, KEY, 3))()
    assert found["x"].shape == (3, 8, 12, 1) and found["z"].shape == (3, 4 * 6 * 2)
    whole["sample"]["size"] = (4,)
    with pytest.raises(UserError, match="must be \\(height, width\\)"):
        build_model(whole)


@pytest.mark.parametrize(
    "frozen, model, parts, values, line",
    [
        (
            GRID,
            "prior",
            {"prior": dict(kind="flow", event=(3,), layer="layer")},
            {},
            "latents of model.frozen are real numbers of the shape",
        ),
        (("flow", dict(event=(4,), layer="layer")), "latent_flow", {}, {}, "must have a latent"),
        (GRID, "latent_diffusion", {"x": dict(kind="colorize")}, dict(condition="x"), "model.condition"),
    ],
)
def test_what_does_not_fit_is_one_line(frozen, model, parts, values, line):
    with pytest.raises(UserError, match=line):
        made(frozen, model, parts, **values)


def test_guidance_outside_of_its_interval_is_none():
    """With an interval that no visited time is in, samples are those of guidance 1; inside it they are not."""
    values = dict(event=(2,), net="net", steps=4, label_drop=0.2)
    context = np.eye(3, dtype=np.float32)
    plain = build_model(config("diffusion", values))
    batch = {"x": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), "context": context}
    params = quick(plain.init)(KEY, batch)
    params["net"] = jax.tree.map(lambda a: a + 0.1, params["net"])

    def x(**options):
        model = build_model(config("diffusion", values | options))
        return np.asarray(quick(lambda: model.sample(params, KEY, 3, context)["x"])())

    alone = x()
    np.testing.assert_allclose(x(guidance=3.0, guidance_interval=(0.0, 1e-6)), alone, atol=1e-6)
    assert np.abs(x(guidance=3.0, guidance_interval=(0.2, 0.8)) - alone).max() > 1e-3
    with pytest.raises(UserError, match="guidance_interval"):
        build_model(config("diffusion", values | dict(guidance_interval=(0.5,))))


CLASSIFIER = ("classifier", dict(event=(4, 4, 1), levels=17, classes=3, net="net"))
STAGE = GREY | dict(latent=2)


def loss_and_gradients(**values):
    model = build_model(config("autoencoder", STAGE | values))
    params = quick(model.init)(KEY, {"x": IMAGES})
    trained, stats, fixed = split_params(params)

    def of(trained):
        return model.loss(merge_params(trained, stats, fixed), KEY, {"x": IMAGES}, 0)

    (_, metrics), gradients = quick(jax.value_and_grad(of, has_aux=True))(trained)
    return {name: float(value) for name, value in metrics.items()}, gradients


def test_sharp_reconstructions_add_their_terms():
    """loss = plain loss + weight * perceptual + weight * adversarial + critic_loss; the critic has the gradient of its own loss alone."""
    plain, _ = loss_and_gradients()
    parts = dict(perceptual=group(*CLASSIFIER), perceptual_weight=3.0, critic="downsample", patches=(2, 2), critic_weight=0.5)
    found, gradients = loss_and_gradients(**parts)
    want = plain["loss"] + 3 * found["perceptual"] + 0.5 * found["adversarial"] + found["critic_loss"]
    assert found["loss"] == pytest.approx(want, rel=1e-5) and found["perceptual"] > 0
    assert {*gradients} == {"encoder", "decoder", "critic"}
    other, others = loss_and_gradients(**parts | dict(critic_weight=50.0))
    assert other["critic_loss"] == found["critic_loss"]
    for a, b in zip(*map(jax.tree.leaves, (gradients["critic"], others["critic"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert np.abs(jax.tree.leaves(gradients["decoder"])[0] - jax.tree.leaves(others["decoder"])[0]).max() > 1e-4


@pytest.mark.parametrize(
    "values, line",
    [
        (dict(patches=(2, 2)), "set model.critic"),
        (dict(critic="downsample", patches=(2, 2), adversarial="wgan"), "not a game of scores of single patches"),
        (dict(perceptual=group("classifier", dict(event=(8, 8, 1), levels=17, classes=3, net="net"))), "model.perceptual is of event"),
    ],
)
def test_sharp_reconstructions_that_do_not_fit(values, line):
    with pytest.raises(UserError, match=line):
        build_model(config("autoencoder", STAGE | values))


def test_stage_1_has_no_context_and_a_conditional_one_is_refused():
    """Its frozen parameters are those of a model without a context, whatever the second stage is given."""
    model = made(GRID, "latent_diffusion")
    context = np.eye(4, dtype=np.float32)[np.arange(16) % 4]
    given, none = (model.init(KEY, batch)["fixed"]["frozen"] for batch in ({"x": IMAGES, "context": context}, {"x": IMAGES}))
    assert jax.tree.structure(given) == jax.tree.structure(none)
    stage = build_model(config(*GRID))
    conditional = stage.init(KEY, {"x": IMAGES, "context": context})
    with pytest.raises(UserError, match="this model has no such parameters"):
        model.init(KEY, {"x": IMAGES, "context": context}, {"fixed": {"frozen": conditional}})


def test_a_stage_1_with_a_perceptual_loss_is_resized_too():
    parts = dict(perceptual=group(*CLASSIFIER), critic="downsample", patches=(2, 2))
    whole = config("two_stage", dict(model="latent_diffusion", frozen=group("autoencoder", STAGE | parts))).to_dict()
    params = quick(build_model(whole).init)(KEY, {"x": IMAGES})
    whole["sample"]["size"] = (4, 4)
    larger = build_model(whole)
    assert jax.eval_shape(lambda: larger.sample(params, KEY, 2))["x"].shape == (2, 8, 8, 1)
