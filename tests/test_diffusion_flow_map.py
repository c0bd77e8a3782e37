"""Flow maps: the exact map of a Gaussian is a fixed point of every target, up to the order of its step; forms keep the boundary."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import Mixture, matrix, path_of
from vaeflow.diffusion.flow_map import MAP_LOSSES, MAP_TARGETS, Pair, compose, jump, map_loss, multistep
from vaeflow.diffusion.map_form import MAP_FORMS
from vaeflow.diffusion.ode import field, solve
from vaeflow.diffusion.path import PATHS, cosine, velocity
from vaeflow.errors import UserError

DATA = Mixture((1.0,), ((0.5, -0.2),), (0.6,))
X = np.array([0.4, 0.9])
T, R = 0.8, 0.3
# The order of the target's error in the length of its first step, for the exact map; None: it has none. `pair` with the posterior means
# is DDIM's step.
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


def pair_at(path, t=T, r=R, share=0.1, teacher=True) -> Pair:
    """The pair whose x_t is X, with the posterior means as x and noise: the map is affine, so means suffice."""
    t, r = jnp.asarray(t), jnp.asarray(r)
    mean = DATA.predict(path)(jnp.asarray(X), t)
    return Pair(mean.data, mean.noise, t, t - share * (t - r), r, field(path, DATA.predict(path)) if teacher else None)


@pytest.mark.parametrize("name", PATHS)
def test_the_exact_map_solves_the_ode_and_composes(name):
    path = path_of(name)
    u = exact(path)
    t, s, r = (jnp.asarray(time) for time in (T, 0.5, R))
    end, _ = solve(field(path, DATA.predict(path)), jnp.asarray(X), t, r, steps=200)
    np.testing.assert_allclose(jump(u, jnp.asarray(X), t, r), end, rtol=1e-8)
    np.testing.assert_allclose(jump(u, jump(u, jnp.asarray(X), t, s), s, r), end, rtol=1e-8)
    np.testing.assert_allclose(compose(u, jnp.asarray(X), jnp.stack([t, s, r])), end, rtol=1e-8)


@pytest.mark.parametrize(("name", "kind"), matrix(ORDERS, ["jvp"]))
def test_the_exact_map_is_a_fixed_point(name, kind):
    path = path_of(name)
    u, target, order = exact(path), MAP_TARGETS[kind](), ORDERS[kind]

    def off(share) -> float:
        return float(jnp.linalg.norm(target.of(u, path, pair_at(path, share=share)) - u(jnp.asarray(X), jnp.asarray(T), jnp.asarray(R))))

    if order is None:
        assert off(0.1) < 1e-12
    else:
        assert np.log2(off(0.04) / off(0.02)) > order - 0.2


@pytest.mark.parametrize("name", ["ot", "vp"])
def test_a_distilled_target_is_the_teachers_solution(name):
    path = path_of(name)
    u, pair = exact(path), pair_at(path)
    want = u(jnp.asarray(X), pair.t, pair.r)

    def off(steps) -> float:
        return float(jnp.linalg.norm(MAP_TARGETS["distilled"](steps=steps).of(u, path, pair) - want))

    assert np.log2(off(8) / off(16)) > 1.8 and off(64) < 2e-4


@pytest.mark.parametrize("kind", ["pair", "euler", "heun"])
def test_targets_of_short_steps_tend_to_that_of_the_derivative(kind):
    """(target of a step of length h) - u = h (jvp's target - u) / (t - r) + O(h^2), for a map that is not the exact one: consistency with
    more and more points is continuous consistency."""
    path = path_of("ot")

    def u(x, t, r):
        return jnp.tanh(x) * (1 + t * r)

    def off(share):
        pair = pair_at(path, share=share)
        x = jnp.asarray(X)
        residual = MAP_TARGETS["jvp"]().of(u, path, pair) - u(x, pair.t, pair.r)
        return float(jnp.linalg.norm((MAP_TARGETS[kind]().of(u, path, pair) - u(x, pair.t, pair.r)) / share - residual))

    assert 1.8 < off(0.02) / off(0.01) < 2.2 and off(1e-4) < 1e-3


@pytest.mark.parametrize("kind", MAP_TARGETS)
def test_at_r_equal_t_the_target_is_the_velocity(kind):
    path = path_of("ot")
    pair, u = pair_at(path, r=T), exact(path)
    np.testing.assert_allclose(MAP_TARGETS[kind]().of(u, path, pair), pair.field(pair.t, jnp.asarray(X)), rtol=1e-12)  # type: ignore[misc]


def test_short_halves_are_eulers_steps():
    path, calls = path_of("ot"), []

    def u(x, t, r):
        calls.append((float(t), float(r)))
        return exact(path)(x, t, r)

    MAP_TARGETS["halves"](smallest=0.01).of(u, path, pair_at(path, t=0.5, r=0.48))
    MAP_TARGETS["halves"](smallest=0.01).of(u, path, pair_at(path, t=0.5, r=0.46))
    np.testing.assert_allclose(calls, [(0.5, 0.5), (0.49, 0.49), (0.5, 0.48), (0.48, 0.46)])


@pytest.mark.parametrize("kind", ["euler", "heun", "distilled"])
def test_a_teacher_is_required(kind):
    path = path_of("ot")
    assert MAP_TARGETS[kind]().reads == "field"
    with pytest.raises(UserError, match=f"{kind} requires a teacher's field"):
        MAP_TARGETS[kind]().of(exact(path), path, pair_at(path, teacher=False))


@pytest.mark.parametrize("kind", MAP_LOSSES)
def test_losses_pass_no_gradient_through_the_target(kind):
    """d loss / d w is d loss / d error . du/dw, although the target depends on w too. A NaN anywhere is one in the loss."""
    path, pair = path_of("ot"), pair_at(path_of("ot"))
    slope, loss = jnp.array([1.0, -2.0]), MAP_LOSSES[kind]()
    of_error = jax.grad(lambda error: loss.of(path, pair, error))(1.3 * slope - 1.3 * jnp.array([0.3, 0.1]))
    got = jax.grad(lambda w: map_loss(loss, path, pair, w * slope, w * jnp.array([0.3, 0.1])))(jnp.array(1.3))
    np.testing.assert_allclose(got, of_error @ slope, rtol=1e-10)
    assert np.isnan(map_loss(loss, path, pair, slope, jnp.array([jnp.nan, 0.0])))


def test_losses_are_their_formulas():
    path, pair, d = path_of("ot"), pair_at(path_of("ot")), jnp.array([0.3, -0.4])
    np.testing.assert_allclose(MAP_LOSSES["square"]().of(path, pair, d), 0.25)
    np.testing.assert_allclose(MAP_LOSSES["square"](power=0.5, eps=0.11).of(path, pair, d), 0.25 / 0.6)
    np.testing.assert_allclose(MAP_LOSSES["data_square"]().of(path, pair, d), 0.25 * 0.5**2)
    c = 0.1 * 2**0.5
    np.testing.assert_allclose(MAP_LOSSES["pseudo_huber"](scale=0.1).of(path, pair, d), ((0.0625 + c**2) ** 0.5 - c) / 0.05)


@pytest.mark.parametrize("form", MAP_FORMS)
@pytest.mark.parametrize("name", PATHS)
def test_forms_keep_the_boundary(name, form):
    """X(x, t, t) = x for any output, and u is continuous there, as its limit; its derivative in t is finite."""
    path, of = path_of(name), MAP_FORMS[form]().of

    def u(t, r):
        p, q = of(path, t, r, 0.6)
        return p * X + q * jnp.array([3.0, -1.0])

    for time in (0.3, 0.7):
        t = jnp.asarray(time)
        np.testing.assert_allclose(jump(lambda x, t, r: u(t, r), jnp.asarray(X), t, t), X, rtol=1e-15)
        np.testing.assert_allclose(u(t + 1e-8, t), u(t, t), rtol=1e-4)
        slope = jax.jvp(u, (t + 0.2, t), (jnp.ones(()), jnp.zeros(())))[1]
        np.testing.assert_allclose(slope, (u(t + 0.2 + 1e-6, t) - u(t + 0.2 - 1e-6, t)) / 2e-6, rtol=1e-6, atol=1e-8)


def test_the_form_edm_is_the_papers_on_its_path():
    """c_skip = s^2 / ((t - e)^2 + s^2), c_out = s (t - e) / sqrt(s^2 + t^2) of Song et al. 2023, appendix C, for sigma = t."""
    path, t, e, s = PATHS["edm"](sigma_max=1.0), jnp.asarray(0.7), jnp.asarray(0.002), 0.5
    p, q = MAP_FORMS["edm"]().of(path, t, e, s)
    np.testing.assert_allclose(1 - (t - e) * p, s**2 / ((t - e) ** 2 + s**2), rtol=1e-12)
    np.testing.assert_allclose(-(t - e) * q, s * (t - e) / jnp.sqrt(s**2 + t**2), rtol=1e-12)


def test_the_form_trigonometric_is_a_rotation_and_exact_for_unit_gaussians():
    """With F = dx/dt / (pi/2), which is 0 for x ~ N(0, I) on `cosine`, two steps are one."""
    path, rotate = cosine(), MAP_FORMS["trigonometric"]().of
    t, r = jnp.asarray(0.9), jnp.asarray(0.2)
    p, q = rotate(path, t, r, 1.0)
    np.testing.assert_allclose(1 - (t - r) * p, jnp.cos(jnp.pi / 2 * 0.7), rtol=1e-12)
    np.testing.assert_allclose((t - r) * q, jnp.sin(jnp.pi / 2 * 0.7), rtol=1e-12)
    x, e = jnp.asarray(X), jnp.array([0.3, -0.5])  # F = (derivative of x_t = cos x + sin e) / (pi/2) of one pair: its own circle
    at = [jnp.sin(jnp.pi / 2 * (1 - a)) * x + jnp.sin(jnp.pi / 2 * a) * e for a in (t, r)]
    turn = jnp.cos(jnp.pi / 2 * t) * e - jnp.sin(jnp.pi / 2 * t) * x
    np.testing.assert_allclose(at[0] - (t - r) * (p * at[0] + q * turn), at[1], rtol=1e-12)


@pytest.mark.parametrize("name", ["ot", "edm"])
def test_multistep_sampling_of_the_exact_map_is_the_gaussian(name):
    """In every number of steps; one step uses no noise. `change` is applied to the data after every evaluation."""
    path, u = path_of(name), exact(path_of(name))
    low, high = 0.05, 0.98
    _, (mean,), (variance,) = DATA.at(path, jnp.asarray(high))
    x = mean + jnp.sqrt(variance) * jax.random.normal(jax.random.key(0), (20_000, 2))
    _, (mean,), (variance,) = DATA.at(path, jnp.asarray(low))
    for grid in (jnp.array([high, low]), jnp.array([high, 0.6, 0.3, low])):
        keys = jax.random.split(jax.random.key(1), len(x))
        drawn = jax.vmap(lambda key, x, grid=grid: multistep(u, path, key, x, grid))(keys, x)
        np.testing.assert_allclose(drawn.mean(0), mean, atol=4 * (variance / len(x)) ** 0.5)
        np.testing.assert_allclose(np.cov(drawn.T), np.eye(2) * variance, atol=4 * variance * (2 / len(x)) ** 0.5)
    one = multistep(u, path, jax.random.key(0), x[0], jnp.array([high, low]))
    np.testing.assert_allclose(one, jump(u, x[0], jnp.asarray(high), jnp.asarray(low)), rtol=1e-12)
    fixed = multistep(u, path, jax.random.key(0), x[0], jnp.array([high, 0.5, low]), lambda data: data.at[0].set(7.0))
    assert fixed[0] == 7 and abs(float(fixed[1])) < 5
