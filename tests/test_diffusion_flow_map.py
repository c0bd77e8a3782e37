"""Flow maps: the exact map of a Gaussian is a fixed point of every target, up to the order of the target's step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import Mixture, matrix, path_of
from vaeflow.diffusion.flow_map import MAP_TARGETS, Pair, jump, map_loss
from vaeflow.diffusion.ode import field, solve
from vaeflow.diffusion.path import PATHS, velocity
from vaeflow.errors import UserError

DATA = Mixture((1.0,), ((0.5, -0.2),), (0.6,))
X = np.array([0.4, 0.9])
T, R = 0.8, 0.3
# The order of the target's error in share, for the exact map; None: it has none. `pair` with the posterior means is DDIM's step.
ORDERS = {"euler": 2, "heun": 3, "pair": 2, "jvp": None, "halves": None}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def exact(path):
    """u of N(m, s^2 I): X = alpha_r m + sqrt(var_r / var_t) (x - alpha_t m)."""

    def u(x, t, r):
        (_, (mean,), (variance,)), (_, (end,), (after,)) = (DATA.at(path, time) for time in (t, r))
        chord = (x - end - jnp.sqrt(after / variance) * (x - mean)) / jnp.where(t > r, t - r, 1)
        return jnp.where(t > r, chord, velocity(path, t, DATA.predict(path)(x, t)))

    return u


def pair_at(path, t=T, r=R, teacher=True) -> Pair:
    """The pair whose x_t is X, with the posterior means as x and noise: the map is affine, so means suffice."""
    t, r = jnp.asarray(t), jnp.asarray(r)
    mean = DATA.predict(path)(jnp.asarray(X), t)
    return Pair(mean.data, mean.noise, t, r, field(path, DATA.predict(path)) if teacher else None)


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_map_solves_the_ode_and_composes(name):
    path = path_of(name)
    u = exact(path)
    t, s, r = (jnp.asarray(time) for time in (T, 0.5, R))
    end, _ = solve(field(path, DATA.predict(path)), jnp.asarray(X), t, r, steps=200)
    np.testing.assert_allclose(jump(u, jnp.asarray(X), t, r), end, rtol=1e-8)
    np.testing.assert_allclose(jump(u, jump(u, jnp.asarray(X), t, s), s, r), end, rtol=1e-8)


@pytest.mark.parametrize(("name", "kind"), matrix(MAP_TARGETS, ["jvp"]))
def test_the_exact_map_is_a_fixed_point(name, kind):
    path = path_of(name)
    u, pair, order = exact(path), pair_at(path), ORDERS.get(kind)

    def off(**options) -> float:
        return float(jnp.linalg.norm(MAP_TARGETS[kind](**options).of(u, path, pair) - u(jnp.asarray(X), pair.t, pair.r)))

    if order is None:
        assert off() < 1e-12
    else:
        assert np.log2(off(share=0.04) / off(share=0.02)) > order - 0.2


@pytest.mark.parametrize("kind", MAP_TARGETS)
def test_at_r_equal_t_the_target_is_the_velocity(kind):
    path = path_of("ot")
    pair, u = pair_at(path, r=T), exact(path)
    np.testing.assert_allclose(MAP_TARGETS[kind]().of(u, path, pair), pair.field(pair.t, jnp.asarray(X)), rtol=1e-12)  # type: ignore[misc]


@pytest.mark.parametrize("kind", ["euler", "heun"])
def test_a_teacher_is_required(kind):
    path = path_of("ot")
    with pytest.raises(UserError, match=f"{kind} requires a teacher's field"):
        MAP_TARGETS[kind]().of(exact(path), path, pair_at(path, teacher=False))


@pytest.mark.parametrize("kind", MAP_TARGETS)
def test_the_loss_has_the_gradient_of_a_regression(kind):
    """d loss / d w = 2 (u - target) . du/dw: nothing through the target; the weight's power divides it."""
    path = path_of("ot")
    pair, target = pair_at(path), MAP_TARGETS[kind]()

    def u(w):
        return lambda x, t, r: w * exact(path)(x, t, r)

    w = jnp.array(1.3)
    slope = exact(path)(jnp.asarray(X), pair.t, pair.r)
    residual = w * slope - target.of(u(w), path, pair)
    for power in (0.0, 1.0):
        got = jax.grad(lambda w, power=power: map_loss(target, u(w), path, pair, power=power))(w)
        np.testing.assert_allclose(got, 2 * residual @ slope / (residual @ residual + 1e-3) ** power, rtol=1e-10)
