"""What the papers say of single bijectors, beyond the laws that hold for all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.bijector_laws import nets_and_layers, perturbed, quick_jit
from vaeflow.bijectors import BIJECTORS, Layer, chain
from vaeflow.bijectors.core.layer import at_rank
from vaeflow.bijectors.core.scalar_map import bounded
from vaeflow.bijectors.coupling import RANK, parts
from vaeflow.bijectors.rational_quadratic import rational_quadratic
from vaeflow.build import build, call
from vaeflow.errors import UserError
from vaeflow.model import split_params

KEY = jax.random.key(0)


def make(kind: str, **arguments) -> Layer:
    return build({**nets_and_layers("float32"), "it": {"kind": kind, **arguments}}, "it", Layer)


def normal(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


# Couplings

EVENTS = {"half": (5,), "alternating": (5,), "checkerboard": (3, 4, 2), "channel": (3, 4, 3)}


@pytest.mark.parametrize("mask", EVENTS)
def test_a_mask_splits_the_event_and_flip_exchanges_the_parts(mask):
    x = normal(2, *EVENTS[mask])
    moved = [np.asarray(parts(x, mask, flip).join(parts(x, mask, flip).moved + 1) - x) for flip in (False, True)]
    assert set(np.unique(moved[0].round(4))) == {0, 1}
    np.testing.assert_allclose(moved[0] + moved[1], 1, atol=1e-5)
    assert 0.39 < moved[0].mean() < 0.67
    first = moved[0][0, 0, 0] if RANK[mask] == 3 else moved[0][0]
    expected = {"half": [0, 0, 1, 1, 1], "alternating": [0, 1, 0, 1, 0], "checkerboard": [0, 0], "channel": [0, 1, 1]}[mask]
    np.testing.assert_allclose(first, expected, atol=1e-6)


@pytest.mark.parametrize("mask", EVENTS)
def test_the_kept_part_does_not_depend_on_what_moves(mask):
    net = "mlp" if RANK[mask] == 1 else "convnet"
    layer = make("affine_coupling", net=net, mask=mask, flip=False, cap=2.0)
    x = normal(*EVENTS[mask])
    bijector = layer.bijector(perturbed(quick_jit(layer.init)(KEY, x[None])))
    jacobian = quick_jit(jax.jacrev(bijector.inverse))(x).reshape(x.size, x.size)
    moved = np.asarray(parts(x, mask, False).join(parts(x, mask, False).moved + 1) - x).ravel() > 0.5
    np.testing.assert_array_equal(jacobian[~moved], np.eye(x.size)[~moved])
    inner = jacobian[np.ix_(moved, moved)]
    np.testing.assert_allclose(inner, np.diag(np.diagonal(inner)), atol=1e-7)  # elementwise, so the log_det is a sum
    assert np.any(jacobian[np.ix_(moved, ~moved)])


@pytest.mark.parametrize(("mask", "event"), [("half", (1,)), ("alternating", (1,)), ("checkerboard", (1, 1, 3)), ("channel", (4, 4, 1))])
def test_nothing_to_split_is_a_clear_error(mask, event):
    layer = make("additive_coupling", net="mlp" if RANK[mask] == 1 else "convnet", mask=mask, flip=False)
    with pytest.raises(UserError, match=f"mask='{mask}' cannot split"):
        layer.init(KEY, jnp.zeros((3, *event)))


def test_a_coupling_on_events_of_another_rank_is_a_clear_error():
    image = make("additive_coupling", net="convnet", mask="channel", flip=False)
    with pytest.raises(UserError, match=r"needs events that are images .* shape \(6,\)"):
        image.init(KEY, jnp.zeros((3, 6)))
    vector = make("additive_coupling", net="mlp", mask="half", flip=False)
    vector.init(KEY, jnp.zeros((3, 4, 4, 2)))  # on the channels of every pixel
    with pytest.raises(UserError, match=r"needs events that are vectors"):
        vector.init(KEY, jnp.zeros((3, 4, 4, 2)), jnp.zeros((3, 5)))  # but a context would meet the wrong axis


def test_affine_log_scales_are_bounded_whatever_the_network_says():
    layer = make("affine_coupling", net="mlp", mask="half", flip=False, cap=1.5)
    x = 1e3 * normal(6, 4)
    params = jax.tree.map(lambda a: 1e3 * a, perturbed(quick_jit(layer.init)(KEY, x), 1.0))
    z, log_det = layer.bijector(params).inverse_and_log_det(x)
    assert np.all(np.isfinite(z)) and np.all(np.abs(log_det) <= 2 * 1.5 + 1e-5)


def test_additive_coupling_keeps_volume():
    layer = make("additive_coupling", net="mlp", mask="half", flip=False)
    params = perturbed(quick_jit(layer.init)(KEY, normal(6, 4)), 1.0)
    z, log_det = layer.bijector(params).inverse_and_log_det(normal(6, 4))
    assert not np.any(log_det) and np.any(z != normal(6, 4))


# Splines

SPLINE = {"bins": 5, "bound": 2.0, "min_width": 1e-3, "min_height": 1e-3, "min_slope": 1e-3}
spline = rational_quadratic(**SPLINE)


def test_splines_are_increasing_smooth_and_invertible_for_any_parameters():
    with jax.enable_x64(True):
        theta = jnp.asarray(np.random.default_rng(1).normal(size=(spline.size, 1, 50)) * 4)
        x = jnp.linspace(-2.5, 2.5, 2001, dtype=jnp.float64)[:, None] + jnp.zeros(50)
        forward = quick_jit(spline.forward)
        y, log_slope = forward(theta, x)
        assert np.all(np.diff(y, axis=0) > 0)
        back, log_slope_back = quick_jit(spline.inverse)(theta, y)
        np.testing.assert_allclose(back, x, atol=1e-7)
        np.testing.assert_allclose(log_slope_back, -log_slope, atol=1e-5)
        slope = quick_jit(jax.grad(lambda x, theta: jnp.sum(spline.forward(theta, x)[0])))(x[700:701], theta)
        np.testing.assert_allclose(np.log(slope), log_slope[700:701], atol=1e-9)
        # Continuous slopes at the knots: no jump beyond what the second derivative explains on a finer grid.
        coarse, fine = (np.abs(np.diff(forward(theta * 0.1, x)[1][::k], axis=0)).max() for k in (2, 1))
        assert fine < 0.6 * coarse


def test_spline_gradients_are_finite_everywhere():
    knots = jnp.linspace(-2, 2, 6)  # of theta = 0
    x = jnp.concatenate([knots, jnp.array([-1e30, -50.0, 50.0, 1e30, 2.0000002, -2.0000002])])
    for function in (spline.forward, spline.inverse):

        @quick_jit
        def run(theta, x, function=function):
            y, pull = jax.vjp(function, theta, x)
            return y, pull(jax.tree.map(jnp.ones_like, y))

        for scale in (0.0, 1.0, 1e4):
            y, gradients = run(scale * normal(spline.size, len(x)), x)
            assert all(np.all(np.isfinite(v)) for v in (*y, *gradients))
            np.testing.assert_array_equal(gradients[1][6:], 1)  # linear tails


def test_splines_are_finite_beside_their_knots():
    theta = 3 * np.random.default_rng(0).normal(size=(spline.size, 4000)).astype(np.float32)
    for function, logits in ((spline.forward, theta[:5]), (spline.inverse, theta[5:10])):
        share = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(0)
        knots = (4 * np.cumsum(1e-3 + (1 - 5e-3) * share, 0)[:-1] - 2).astype(np.float32)
        beside = jnp.asarray([knots, *(np.nextafter(knots, np.float32(to)) for to in (-3, 3))])
        log_slope = quick_jit(function)(jnp.asarray(theta)[:, None, None], beside)[1]
        assert np.abs(log_slope).max() < 25  # slopes are between 1e-3 and about 1e3; a NaN fails too


def test_a_spline_starts_as_the_identity_and_refuses_impossible_bins():
    x = jnp.linspace(-3, 3, 101)
    for function in (spline.forward, spline.inverse):
        y, log_slope = quick_jit(function)(jnp.zeros((spline.size, 1)), x)
        np.testing.assert_allclose(y, x, atol=1e-6)
        np.testing.assert_allclose(log_slope, 0, atol=1e-5)
    with pytest.raises(UserError, match=r"min_height=0.3 is invalid with bins=5; it must be < 0.2"):
        rational_quadratic(**{**SPLINE, "min_height": 0.3})


# ActNorm and batch norm


@pytest.mark.parametrize("event", [(3,), (4, 5, 3)])
def test_actnorm_standardises_the_first_batch(event):
    x = 5 + 3 * normal(64, *event)
    x = x.at[..., 1].set(0.7)  # constant
    z = make("actnorm").bijector(make("actnorm").init(KEY, x)).inverse(x).reshape(-1, 3)
    np.testing.assert_allclose(jnp.mean(z, 0), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.std(z, 0), [1, 0, 1], atol=1e-4)


def test_batch_norm_in_training_mode():
    layer = make("batch_norm", momentum=0.9, eps=1e-5)
    x, later = normal(64, 3), 2 + 3 * normal(50, 3, seed=1)
    params = perturbed(quick_jit(layer.init)(KEY, x), 0.3)
    z, log_det = layer.bijector(params, train=True).inverse_and_log_det(later)
    np.testing.assert_allclose(jnp.mean(z, 0), params["beta"], atol=1e-5)
    np.testing.assert_allclose(jnp.std(z, 0), jnp.exp(bounded(params["gamma"])), rtol=1e-4)
    by_hand = jnp.sum(bounded(params["gamma"]) - 0.5 * jnp.log(jnp.var(later, 0) + 1e-5))
    np.testing.assert_allclose(log_det, jnp.full(50, by_hand), rtol=1e-5)
    # Gradients flow through the moments: a shift of the whole batch changes nothing, a stretch only the log_det.
    gradient = jax.grad(lambda x: jnp.sum(jnp.sin(layer.bijector(params, train=True).inverse(x))))(later)
    np.testing.assert_allclose(jnp.sum(gradient, 0), 0, atol=1e-4)
    stretch = jax.grad(lambda a: jnp.sum(layer.bijector(params, train=True).inverse_and_log_det(a * later)[1]))(1.0)
    np.testing.assert_allclose(stretch, -3 * 50, rtol=1e-4)
    # Sampling has no batch to take moments from: forward uses the running statistics in both modes.
    np.testing.assert_array_equal(layer.bijector(params, train=True).forward(z), layer.bijector(params).forward(z))
    assert float(jnp.max(jnp.abs(layer.bijector(params, train=True).forward(z) - later))) > 0.1


def test_batch_norm_statistics_move_by_momentum_and_are_what_evaluation_uses():
    layer = make("batch_norm", momentum=0.75, eps=1e-5)
    x, later = normal(64, 2), 4 + normal(64, 2, seed=1)
    params = quick_jit(layer.init)(KEY, x)
    assert set(split_params(params)[1]) == {"stats"}
    after = layer.update(params, later)
    np.testing.assert_allclose(after["stats"]["mean"], 0.75 * jnp.mean(x, 0) + 0.25 * jnp.mean(later, 0), rtol=1e-5)
    np.testing.assert_allclose(after["stats"]["var"], 0.75 * jnp.var(x, 0) + 0.25 * jnp.var(later, 0), rtol=1e-5)
    np.testing.assert_allclose(jnp.mean(layer.bijector(params).inverse(x), 0), 0, atol=1e-5)
    by_hand = (x - after["stats"]["mean"]) / jnp.sqrt(after["stats"]["var"] + 1e-5)
    np.testing.assert_allclose(layer.bijector(after).inverse(x), by_hand, rtol=1e-4, atol=1e-5)


# Linear maps and the data end


def test_permutations():
    reverse, random = make("permutation", order="reverse"), make("permutation", order="random")
    x = normal(2, 7)
    np.testing.assert_array_equal(reverse.bijector({}).forward(x), x[:, ::-1])
    drawn = [random.init(jax.random.key(seed), x)["fixed"]["permutation"] for seed in range(2)]
    assert sorted(drawn[0].tolist()) == list(range(7)) and drawn[0].tolist() != drawn[1].tolist()
    np.testing.assert_array_equal(random.bijector(random.init(jax.random.key(0), x)).forward(x), x[:, drawn[0]])


def test_lu_starts_as_a_rotation_or_the_identity():
    x = jnp.eye(6)
    for start in ("identity", "rotation"):
        layer = make("lu_linear", start=start)
        params = quick_jit(layer.init)(KEY, x)
        w, log_det = layer.bijector(params).inverse_and_log_det(x)
        np.testing.assert_allclose(w @ w.T, x, atol=1e-5)
        np.testing.assert_allclose(log_det, 0, atol=1e-5)
        assert np.allclose(w, x) == (start == "identity")
        assert set(split_params(params)[2]["fixed"]) == {"permutation", "sign"}


def test_logit_is_finite_at_the_ends_and_exact_in_the_middle():
    x = jnp.array([0.0, 1e-30, 0.25, 0.5, 1.0, 1.0000001])
    for alpha in (0.0, 0.05):
        z, log_det = make("logit", alpha=alpha).bijector({}).inverse_and_log_det(x)
        assert np.all(np.isfinite(z)) and np.all(np.isfinite(log_det)) and np.all(np.diff(z) >= 0)
        p = alpha + (1 - 2 * alpha) * 0.25
        np.testing.assert_allclose(z[2], np.log(p / (1 - p)), rtol=1e-5)
        np.testing.assert_allclose(log_det[2], np.log((1 - 2 * alpha) / (p * (1 - p))), rtol=1e-5)
    back, log_det = make("logit", alpha=0.0).bijector({}).forward_and_log_det(jnp.array([-90.0, 90.0]))
    np.testing.assert_allclose(log_det, -90, rtol=1e-5)  # where the sigmoid itself has rounded to 1
    np.testing.assert_allclose(back, [0, 1], atol=1e-30)


def test_greys_to_logits_have_the_density_of_the_data_as_loaded():
    layer = chain(make("scale", shift=0.0, factor=17.0), make("logit", alpha=0.05), make("actnorm"))
    x = jnp.asarray(np.random.default_rng(0).integers(0, 17, (32, 8, 8, 1)) + 0.5, jnp.float32)
    params = quick_jit(layer.init)(KEY, x)
    bijector = at_rank(layer.bijector(params), 3)
    z, log_det = bijector.inverse_and_log_det(x)
    np.testing.assert_allclose(jnp.std(z), 1, rtol=1e-3)
    p = 0.05 + 0.9 * x / 17
    by_hand = np.sum(np.log(0.9 / 17 / (p * (1 - p))), axis=(1, 2, 3)) - 64 * float(bounded(params["02"]["log_scale"])[0])
    np.testing.assert_allclose(log_det, by_hand, rtol=1e-4)


def test_every_entry_has_a_maker_with_named_arguments():
    for name, entry in BIJECTORS.items():
        assert call(entry.make, entry.examples[0].arguments, name, nets_and_layers("float32")).init
