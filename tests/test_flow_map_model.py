"""The family `flow_map`: exact maps of Gaussian data, teachers, the target network, intervals, one step against a teacher's, errors."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config, quick
from tests.test_diffusion_model import CLOCK, net_of
from vaeflow.bijectors.elementwise import scale
from vaeflow.build import build
from vaeflow.diffusion.edits import left
from vaeflow.diffusion.flow_map import MAP_LOSSES, MAP_TARGETS, multistep
from vaeflow.diffusion.path import PATHS
from vaeflow.diffusion.times import TIMES
from vaeflow.diffusion.times import grid as grid_of
from vaeflow.errors import UserError
from vaeflow.model import Dynamics, Frozen, Model
from vaeflow.models import MODELS, build_model
from vaeflow.models.flow_map import flow_map
from vaeflow.models.parts.intervals import INTERVALS, Intervals
from vaeflow.nets.mlp import mlp

STD, LAYER = 0.8, scale(factor=2.0, shift=1.0)  # data N(1, (2 STD)^2 I)
OT = PATHS["ot"]()


def variance(t):
    return (1 - t) ** 2 * STD**2 + t**2


def exact(to_data: bool = False):
    """A network that is the mean velocity of the Gaussian's ODE, x (1 - sqrt(v_r / v_t)) / (t - r), of the context (t, t - r) or (t,)."""

    def u(x, context, dropout):
        del dropout
        t = context[..., :1]
        gap = t - 0.01 if to_data else context[..., 1:2]
        chord = (1 - jnp.sqrt(variance(t - gap) / variance(t))) / jnp.where(gap > 0, gap, 1)
        slope = (t - (1 - t) * STD**2) / variance(t)
        return (jnp.where(gap > 0, chord, slope) * x).astype(x.dtype)

    return net_of(u)


def teacher_of(velocity, shape=(3,), path=OT, layer=LAYER) -> Frozen:
    """A teacher that is nothing but its ODE."""

    def pull(params, y):
        x, log_det = layer.bijector({}).inverse_and_log_det(y)
        return jnp.asarray(x), jnp.sum(log_det.reshape(len(y), -1), -1)

    dynamics = Dynamics(
        pull, lambda params, x: layer.bijector({}).forward(x), lambda params, c: velocity, path, lambda t: jnp.ones(()), 0.01, 1.0, shape
    )
    model = Model(lambda key, batch, given={}: {"none": jnp.zeros(())}, None, None, None, "none", event=shape, levels=0, dynamics=dynamics)  # type: ignore[arg-type]
    return Frozen(model, "teacher")


def made(kind: str, intervals: str, **options) -> Model:
    to_data = intervals in ("to_data", "points")
    options = dict(event=(3,), net=exact(to_data), embedding=CLOCK) | options
    more = dict(count=100.0) if intervals == "points" else dict(steps=3) if intervals == "equal" else {}
    return flow_map(target=MAP_TARGETS[kind](), intervals=INTERVALS[intervals](**more), **options)  # type: ignore[arg-type]


EXACT_TEACHER = teacher_of(lambda t, x: (t - (1 - t) * STD**2) / variance(t) * x)


@pytest.mark.parametrize(
    "kind, intervals, most",
    [("jvp", "ordered", 1e-7), ("jvp", "to_data", 1e-7), ("heun", "points", 1e-5), ("euler", "points", 1e-2), ("distilled", "equal", 1e-3)]
    + [("halves", "binary", 1e-5)],
)
def test_the_exact_map_has_no_loss_under_its_teacher(kind, intervals, most):
    """Little beside that of a network that is 0. Samples are the Gaussian's, in one step and in three, with and without noise between."""
    model, zero = (
        made(kind, intervals, teacher=EXACT_TEACHER, loss=MAP_LOSSES["square"](), steps=3, **more)
        for more in ({}, dict(net=net_of(lambda x, *_: jnp.zeros_like(x))))
    )
    batch = {"x": 1 + 2 * STD * jax.random.normal(KEY, (500, 3))}
    params = quick(model.init)(KEY, batch)
    found, other = (float(quick(own.loss)(params, KEY, batch, 0)[0]) for own in (model, zero))
    assert 0 <= found < most and found < 0.02 * other
    if kind in ("jvp", "distilled"):
        drawn = quick(model.sample, static_argnums=2)(params, KEY, 4000)
        np.testing.assert_allclose(np.cov(drawn["x"].T), np.eye(3) * (2 * STD) ** 2, atol=0.2)
        composed = 1 + 2 * np.sqrt(variance(0.01)) * drawn["x0"]  # without noise every step is the one map
        assert np.allclose(drawn["x"], composed, rtol=1e-3, atol=1e-3) == (intervals != "to_data")
        assert (np.asarray(drawn["nfe"]) == 3).all()


def test_encode_is_the_inverse_of_sampling():
    model = made("jvp", "ordered", layer=LAYER, t_min=0.01, sigma_data=STD)
    params = quick(model.init)(KEY, {"x": jnp.ones((5, 3))})
    drawn = quick(model.sample, static_argnums=2)(params, KEY, 50)
    assert model.encode is not None and model.dynamics is not None
    np.testing.assert_allclose(quick(model.encode)(params, KEY, drawn), drawn["x0"], rtol=2e-3, atol=2e-3)
    t, x = jnp.float32(0.3), jnp.array([1.0, 0.5, -2.0])
    np.testing.assert_allclose(model.dynamics.velocity(params, None)(t, x), (0.3 - 0.7 * STD**2) / variance(0.3) * x, rtol=1e-5)
    assert made("pair", "points").encode is None and made("pair", "points").dynamics is None


@pytest.mark.parametrize("kind, intervals", [("halves", "binary"), ("jvp", "to_data")])
def test_an_edit_keeps_what_is_known_and_draws_the_rest(kind, intervals):
    """Entries of these data are independent, so the others are N(1, (2 STD)^2) whatever is known; three evaluations."""
    model = made(kind, intervals, layer=LAYER, edit=left(share=2 / 3), steps=3, t_min=0.01)
    assert model.edits
    params = model.init(KEY, {"x": jnp.zeros((4, 3))})
    found = jax.jit(model.sample, static_argnums=2)(params, KEY, 8000, reference=jnp.full((8000, 3), 5.0))  # type: ignore[misc]
    np.testing.assert_allclose(found["x"][:, 2], 5, rtol=1e-6)
    np.testing.assert_allclose(found["known"][:, 2], 5, rtol=1e-6)
    drawn = np.asarray(found["x"][:, :2])
    # Six standard errors of the mean; of the standard deviation, 1% for t_min = 0.01 and four standard errors.
    np.testing.assert_allclose(drawn.mean(0), 1, atol=6 * 2 * STD / 8000**0.5)
    np.testing.assert_allclose(drawn.std(0), 2 * STD, rtol=0.01 + 4 / 16000**0.5)


def test_the_target_network_is_a_moving_average_and_the_only_one_in_the_target():
    options = dict(event=(2,), net=mlp(hidden=(8,), activation="tanh"), intervals=INTERVALS["to_data"](), target=MAP_TARGETS["pair"]())
    model, plain = flow_map(ema=0.9, **options), flow_map(**options)  # type: ignore[arg-type]
    batch = {"x": jax.random.normal(KEY, (64, 2))}
    params = model.init(KEY, batch)
    jax.tree.map(np.testing.assert_array_equal, params["stats"]["net"], params["net"])
    assert "stats" not in plain.init(KEY, batch) and plain.update is None and model.update is not None
    moved = params | {"net": jax.tree.map(lambda a: a + 1.0, params["net"])}
    new = model.update(moved, KEY, batch, 7)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 0.1, atol=1e-6), new["stats"]["net"], params["net"])

    def gradient(own, behind):
        return jax.grad(lambda net: own.loss(params | {"net": net, "stats": {"net": behind}}, KEY, batch, 0)[0])(params["net"])

    same, other = gradient(model, params["net"]), gradient(model, jax.tree.map(lambda a: 2 * a, params["net"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), same, gradient(plain, params["net"]))
    assert max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(other), strict=True)) > 1e-3


def test_a_nan_in_the_data_is_one_in_the_loss():
    model = made("pair", "points", net=mlp(hidden=(4,)))
    batch = {"x": jnp.ones((8, 3)).at[3, 1].set(jnp.nan)}
    params = model.init(KEY, {"x": jnp.ones((8, 3))})
    assert np.isnan(model.loss(params, KEY, batch, 0)[0])


def test_a_map_of_neighbouring_times_edits_nothing():
    with pytest.raises(UserError, match=r"sample.edit maps to the data at every step"):
        made("distilled", "equal", teacher=EXACT_TEACHER, edit=left(), steps=3)


@pytest.mark.parametrize("kind, intervals", [("jvp", "ordered"), ("pair", "points"), ("halves", "binary"), ("heun", "to_data")])
def test_no_key_is_used_twice(kind, intervals):
    model = made(kind, intervals, net=mlp(hidden=(4,)), teacher=EXACT_TEACHER if kind == "heun" else None)
    batch = {"x": jnp.ones((8, 3))}
    params = model.init(KEY, batch)
    with jax.debug_key_reuse(True):
        jax.jit(model.loss)(params, jax.random.key(1), batch, 0)
        jax.jit(lambda key, x: multistep(lambda x, t, r: x, OT, key, x, jnp.array([1.0, 0.5, 0.2, 0.0])))(jax.random.key(2), jnp.ones(3))


@pytest.mark.parametrize("kind", INTERVALS)
@pytest.mark.parametrize("path", ["ot", "edm"])
def test_intervals_are_in_order_and_in_their_range(kind, path):
    own, times = INTERVALS[kind](), TIMES["uniform" if path == "ot" else "rho"]()
    low, high = 0.01, 1.0
    t, s, r = (np.asarray(a) for a in own.draw(KEY, times, PATHS[path](), 4096, low, high, 3))
    assert t.shape == s.shape == r.shape == (4096,)
    assert (low <= r).all() and (r <= s).all() and (s <= t).all() and (t <= high + 1e-6).all()
    assert (r == np.float32(low)).all() == own.to_data and (r == t).any() == own.velocity
    if kind != "ordered" and kind != "binary":
        assert (s < t).all()


def test_equal_steps_have_equal_chances_in_a_batch_of_any_size():
    own, path, times = INTERVALS["equal"](steps=4), PATHS["ot"](), TIMES["uniform"]()
    for n in (1, 6):
        keys = jax.random.split(KEY, 4000)
        t = np.asarray(jax.vmap(lambda key, n=n: own.draw(key, times, path, n, 0.0, 1.0, 0)[0])(keys))
        for i in range(n):
            share = [(np.isclose(t[:, i], end, atol=1e-5)).mean() for end in (0.25, 0.5, 0.75, 1.0)]
            np.testing.assert_allclose(share, 0.25, atol=0.035)  # five standard deviations


def test_points_are_neighbours_of_the_grid_with_the_densitys_mass():
    """Song and Dhariwal 2024: the chance of an interval is the mass of the log-normal between its ends."""
    path, grid = PATHS["edm"](), TIMES["rho"]()
    own = build({"points": dict(kind="points", count=9.0, grid="rho")}, "points", Intervals)
    times, low = TIMES["log_normal"](mean=-1.1, std=2.0), 0.002 / 80
    t, s, _ = own.draw(KEY, times, path, 40_000, low, 1.0, 0)
    sigmas = 80 * np.asarray(grid_of(grid, path, 8, low)[::-1])
    cdf = np.asarray(jax.scipy.stats.norm.cdf(np.log(sigmas), -1.1, 2.0))
    for i in range(8):
        here = np.isclose(80 * np.asarray(t), sigmas[i + 1], rtol=1e-4) & np.isclose(80 * np.asarray(s), sigmas[i], rtol=1e-4)
        assert abs(here.mean() - (cdf[i + 1] - cdf[i]) / (cdf[-1] - cdf[0])) < 1e-3
    uniform = own.draw(KEY, grid, path, 8000, low, 1.0, 0)[0]
    np.testing.assert_allclose(np.unique(np.asarray(uniform), return_counts=True)[1], 1000, atol=2)


def test_one_step_of_a_distilled_map_beats_one_of_its_teacher():
    """Two Gaussians in the plane: Euler's one step ends at the mean of the data, the distilled map at the two of them."""
    means, std = jnp.array([[-1.0, 0.0], [1.0, 0.0]]), 0.15

    def velocity(t, x):
        total = (1 - t) ** 2 * std**2 + t**2
        share = jax.nn.softmax(-jnp.sum((x - (1 - t) * means) ** 2, -1) / (2 * total))
        noise = share @ ((x - (1 - t) * means) / total) * t
        data = (x - t * noise) / (1 - t)
        return noise - jnp.where(t < 1, data, means.mean(0))

    teacher = teacher_of(velocity, (2,), layer=scale(factor=1.0))
    net = mlp(hidden=(64, 64), activation="silu")
    model = flow_map(
        event=(2,),
        net=net,
        target=MAP_TARGETS["distilled"](steps=8),
        intervals=INTERVALS["equal"](),
        embedding=CLOCK,
        teacher=teacher,
    )
    x = means[jax.random.randint(KEY, (512,), 0, 2)] + std * jax.random.normal(jax.random.key(1), (512, 2))
    params = model.init(KEY, {"x": x})

    @jax.jit
    def train(net):
        def step(carry, key):
            net, m, v, i = carry
            g = jax.grad(lambda net: model.loss(params | {"net": net}, key, {"x": x}, i)[0])(net)
            m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
            v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, g)
            net = jax.tree.map(lambda a, m, v: a - 5e-3 * m / (jnp.sqrt(v) + 1e-6), net, m, v)
            return (net, m, v, i + 1), None

        zero = jax.tree.map(jnp.zeros_like, net)
        return jax.lax.scan(step, (net, zero, zero, 0), jax.random.split(KEY, 400))[0][0]

    drawn = model.sample(params | {"net": train(params["net"])}, jax.random.key(5), 500)  # type: ignore[misc]

    def energy(a):
        def distance(a, b):
            return np.mean(np.linalg.norm(np.asarray(a)[:, None] - np.asarray(b), axis=-1))

        return 2 * distance(a, x) - distance(a, a) - distance(x, x)

    euler = drawn["x0"] - jax.vmap(lambda e: velocity(jnp.float32(1.0), e))(drawn["x0"])
    assert energy(drawn["x"]) < 0.1 * energy(euler)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(target="heun"), "model.target is one of distillation, and needs model.teacher"),
        (dict(target="pair", teacher="frozen_diffusion"), "reads no teacher"),
        (dict(target="heun", teacher="frozen_flow"), "model.teacher must be a continuous-time model"),
        (dict(target="heun", teacher="frozen_diffusion", layer="layer", path="ot"), "model.layer, model.path of a model with a teacher"),
        (dict(target="heun", teacher="frozen_diffusion", event=(5,)), r"is of data with event=\(4,\), levels=0, not event=\(5,\)"),
        (dict(path="cosine_gamma"), "requires a path without gamma"),
        (dict(precondition=True), "needs model.t_min > 0"),
        (dict(target="jpv"), "model.target='jpv' is unknown .did you mean 'jvp'"),
        (dict(ema=1.0), "model.ema=1.0 is invalid"),
        (dict(t_min=1.0), "model.t_min=1.0 is invalid"),
        (dict(target="halves", intervals="to_data"), "model.target=halves needs model.intervals with r = t"),
        (dict(loss="pseudo_huber"), "which is 0 where model.intervals have r = t"),
        (dict(intervals="equal", steps=2), "sample.steps=2 must be 1"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(config("flow_map", MODELS["flow_map"].examples[0] | values))
    assert "\n" not in str(error.value)


def test_a_convolution_has_no_forward_mode():
    model = build_model(config("flow_map", dict(event=(4, 4, 1), levels=0, net="unet", embedding="sinusoidal")))
    with pytest.raises(UserError, match=r"model.target=jvp differentiates the network in forward mode, which convolutions do not have"):
        jax.eval_shape(model.init, KEY, {"x": jnp.zeros((2, 4, 4, 1))})
