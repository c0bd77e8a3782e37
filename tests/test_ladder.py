"""The ladder: its densities are densities, its levels depend on what they may, its formulas agree with draws, its cost with its claims."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from vaeflow.errors import UserError
from vaeflow.models import MODELS, build_model
from vaeflow.nets import ladder

IMAGE = MODELS["ladder"].examples[0] | dict(event=(5, 5, 1), levels=2, likelihood="bernoulli", objective="elbo")
VECTOR = IMAGE | dict(event=(3,), strides=(1,), blocks=(2,), latents=(1,))
X = jax.random.bernoulli(KEY, 0.5, (6, 5, 5, 1)).astype(jnp.uint8)


def make(base: dict[str, Any] = IMAGE, loss: Any = None, parts: dict[str, Any] | None = None, **values: Any) -> Any:
    """A model; loss: its objective as a part."""
    parts = (parts or {}) | ({} if loss is None else {"objective": loss})
    c = config("ladder", base | ({} if loss is None else {"objective": "objective"}) | values).unlock()
    for key, part in parts.items():
        c.parts[key] = part
    return build_model(c)


def some_params(model: Any, batch: Any, scale: float = 0.5) -> Any:
    """Parameters away from the start: kernels of variance scale^2 / inputs, the others of scale^2. (To compile `init` takes seconds.)"""
    rng = np.random.default_rng(0)

    def leaf(path: Any, shape: Any) -> Any:
        inputs = shape.shape[-2] if path[-1].key == "kernel" else 1
        return jnp.asarray(scale * rng.normal(size=shape.shape) / np.sqrt(inputs), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(model.init, KEY, batch))


@functools.cache
def image_params() -> Any:
    return some_params(make(), {"x": X})


@pytest.mark.parametrize("posterior", ["joint", "weighted"])
def test_densities_integrate_to_one_and_draws_are_theirs(posterior):
    """Two levels of one dimension, on a grid over z; draws have the means of the grid."""
    model = make(VECTOR, posterior=posterior)
    x = jnp.asarray(list(itertools.product((0, 1), repeat=3)), jnp.uint8)
    params = some_params(model, {"x": x})
    axis = jnp.linspace(-8, 8, 161)
    z = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 1, 2)  # [N, 1, 2]

    @quick
    def look(params, key):
        q, p = model.latent.posterior(params, x), model.latent.prior(params)
        log_q, log_p = q.log_prob(jnp.broadcast_to(z, (len(z), 8, 2))), p.log_prob(z)
        return log_q, log_p, q.sample(seed=key, sample_shape=4000), p.sample(seed=key, sample_shape=4000)

    log_q, log_p, from_q, from_p = (np.asarray(a, np.float64) for a in look(params, KEY))
    cell, points = 0.1**2, np.asarray(z)
    q, p = np.exp(log_q) * cell, np.exp(log_p) * cell
    np.testing.assert_allclose(q.sum(0), 1, atol=2e-3)
    np.testing.assert_allclose(p.sum(), 1, atol=2e-3)
    for found, expected in ((from_q, (q[..., None] * points).sum(0)), (from_p, (p[..., None] * points).sum(0)[0])):
        assert (np.abs(found.mean(0) - expected) < 4.5 * found.std(0) / np.sqrt(len(found))).all()


def test_levels_add_up_and_see_the_levels_above_alone():
    model, params = make(), image_params()
    sizes = (9, 2, 2)  # 3x3 pixels with one channel; 1x1 with two channels, twice

    @quick
    def look(params, key):
        q, p = model.latent.posterior(params, X), model.latent.prior(params)
        z, log_q = q.sample_and_log_prob(seed=key)
        drawn, log_p = p.sample_and_log_prob(seed=key, sample_shape=(6,))
        sums = [(q.level_log_prob(z).sum(-1), log_q), (p.level_log_prob(drawn).sum(-1), log_p), (q.log_prob(z), log_q)]
        changed = jnp.stack([z, *(z + moved for moved in np.repeat(np.eye(3, dtype=np.float32), sizes, axis=1))])  # [1 + L, B, D]
        return sums, [d.level_log_prob(changed) for d in (q, p)]

    sums, terms = look(params, KEY)
    for found, expected in sums:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert model.latent.posterior(params, X).sizes == sizes
    for levels in terms:
        seen = (np.abs(levels[1:] - levels[0]) > 1e-5).any(axis=1)  # [moved, term]
        np.testing.assert_array_equal(seen, np.tril(np.ones((3, 3), bool)))  # z_l is in the terms of levels 1 .. l


def test_kl_of_every_level_is_the_mean_of_its_log_ratio():
    model, params = make(loss=dict(kind="elbo", k=1000)), image_params()
    _, metrics = quick(model.loss)(params, KEY, {"x": X}, 0)

    @quick
    def ratios(params, key):
        q, p = model.latent.posterior(params, X), model.latent.prior(params)
        z = q.sample(seed=key, sample_shape=(1000,))
        return q.level_log_prob(z) - p.level_log_prob(z), -model.latent.likelihood(params, z).log_prob(X).mean()

    ratio, recon = ratios(params, jax.random.key(1))
    error = np.asarray(ratio.mean(1).std(0)) / np.sqrt(1000)
    for i, (expected, se) in enumerate(zip(ratio.mean((0, 1)), error, strict=True)):
        assert expected > 20 * se and metrics[f"kl_{i + 1}"] == pytest.approx(float(expected), abs=6 * se)
    assert metrics["kl"] == pytest.approx(float(sum(metrics[f"kl_{i + 1}"] for i in range(3))), rel=1e-5)
    assert metrics["recon"] == pytest.approx(float(recon), rel=0.01)
    assert metrics["loss"] == pytest.approx(float(metrics["recon"] + metrics["kl"]), rel=1e-5)


def test_free_bits_are_of_a_level_and_leave_the_metrics():
    params = image_params()
    _, plain = quick(make().loss)(params, KEY, {"x": X}, 5)
    levels = [float(plain[f"kl_{i + 1}"]) for i in range(3)]
    floor = float(np.median(levels))
    parts = dict(beta=dict(kind="linear", steps=10, end=4.0))
    _, free = quick(make(loss=dict(kind="free_bits", nats=floor, beta="beta"), parts=parts).loss)(params, KEY, {"x": X}, 5)
    expected = plain["recon"] + 2 * sum(max(level, floor) for level in levels)
    assert free["loss"] == pytest.approx(float(expected), rel=1e-5) and free["kl"] == pytest.approx(float(plain["kl"]), rel=1e-5)


def test_the_way_up_runs_once_for_many_draws():
    model = make(blocks=(1, 1))
    params = jax.eval_shape(model.init, KEY, {"x": X})

    def flops(fn: Any, *args: Any) -> float:
        lowered: Any = quick(fn).lower(params, *args)
        return lowered.compile().cost_analysis()["flops"]

    few, many = (
        flops(jax.vmap(lambda p, k: model.log_prob(p, k, {"x": X}), (None, 0)), jax.random.split(KEY, n))  #
        for n in (2, 12)
    )
    fixed = few - 2 * (many - few) / 10
    plan = ladder.LadderSizes((5, 5, 1), (2, 3), (1, 1), (1, 2), 4, 3, "gelu", "float32", jax.nn.softplus, False)
    up = flops(lambda p: ladder.Up(plan).apply({"params": p["up"]}, X.astype(jnp.float32), None))
    assert up < fixed < 3 * up  # the way up, and its share of the posteriors' branches


def test_depth_costs_no_program_and_no_start():
    """Twelve times the levels: the same program but for shapes; four times: at the start the loss of a fair coin, and little KL."""
    models = [make(blocks=blocks) for blocks in ((1, 2), (12, 24))]
    shapes = [jax.eval_shape(model.init, KEY, {"x": X}) for model in models]
    few, many = (len(jax.jit(m.loss).lower(p, KEY, {"x": X}, 0).as_text().splitlines()) for m, p in zip(models, shapes, strict=True))
    assert many < 1.2 * few
    assert "kl_36" in jax.eval_shape(lambda p: models[1].loss(p, KEY, {"x": X}, 0), shapes[1])[1]
    deep = make(blocks=(4, 8))
    _, metrics = quick(lambda key: deep.loss(deep.init(key, {"x": X}), key, {"x": X}, 0))(KEY)
    assert metrics["recon"] == pytest.approx(25 * np.log(2), rel=0.1) and metrics["kl"] < 2


def test_patches_are_pixels_side_by_side():
    h = jnp.arange(2 * 5 * 4 * 3.0).reshape(2, 5, 4, 3)
    patches = ladder.to_patches(h, 2)
    assert patches.shape == (2, 3, 2, 12)
    np.testing.assert_array_equal(patches[:, 1, 1].reshape(2, 2, 2, 3), h[:, 2:4, 2:4])
    assert not patches[:, 2, :, 6:].any()  # below the picture
    np.testing.assert_array_equal(ladder.to_pixels(patches, 2, (5, 4)), h)


def test_the_weighted_posterior_is_the_product_of_two_gaussians():
    """Bayes: a prior N(m_p, s_p^2) and an observation m of precision 1/s^2; on a grid, normalised."""
    mean, std = ladder._product((jnp.float32(1.2), jnp.float32(0.5)), (jnp.float32(-0.4), jnp.float32(0.8)))
    z = np.linspace(-4, 4, 4001)
    weight = np.exp(-0.5 * ((z - 1.2) / 0.5) ** 2 - 0.5 * ((z + 0.4) / 0.8) ** 2)
    weight /= weight.sum()
    assert mean == pytest.approx((weight * z).sum(), rel=1e-4)
    assert std == pytest.approx(np.sqrt((weight * z**2).sum() - (weight * z).sum() ** 2), rel=1e-4)


def test_bfloat16_networks_leave_float32_numbers():
    x = jnp.asarray([[0, 1, 1], [1, 0, 0]], jnp.uint8)
    half, whole = make(VECTOR, dtype="bfloat16"), make(VECTOR)
    gradients = jax.eval_shape(jax.grad(lambda p: half.loss(p, KEY, {"x": x}, 0)[0]), jax.eval_shape(half.init, KEY, {"x": x}))
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}

    @quick
    def both(params):
        return half.loss(params, KEY, {"x": x}, 0)[0], whole.loss(params, KEY, {"x": x}, 0)[0]

    found, expected = both(some_params(half, {"x": x}))
    assert found.dtype == jnp.float32 and found != expected and found == pytest.approx(float(expected), rel=0.02)


def test_temperature_scales_the_noise_of_every_level():
    cold = quick(make(temperature=0.0).sample, static_argnums=2)(image_params(), KEY, 9)["x"]
    assert np.ptp(cold, axis=0).max() == 0


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(blocks=(1,)), r"model.strides=.2, 3., blocks=.1,. and latents=.1, 2. need one number for each scale"),
        (dict(strides=(), blocks=(), latents=()), "one scale at least"),
        (dict(event=(5, 5)), r"model.event=.5, 5.: a ladder is for vectors .D. and images .H, W, C."),
        (dict(blocks=(0, 1)), r"model.blocks\[0\]=0 is invalid"),
        (dict(posterior="product"), "model.posterior='product' is unknown"),
        (dict(objective="vimco"), "'vimco' is for discrete latents, and those of a ladder are Gaussian; for them: adversarial"),
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
