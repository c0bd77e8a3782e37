"""Paths, kinds and times: printed formulae, rows that invert, scores and velocities against the exact p_t."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import Mixture, matrix, path_case, path_of, with_gamma
from vaeflow.diffusion import kinds, path
from vaeflow.diffusion.kinds import KINDS, WEIGHTINGS, read, target
from vaeflow.diffusion.path import PATHS, Prediction, derivative, diffusion2, drift, logsnr, mix, score, velocity
from vaeflow.diffusion.times import TIMES, density, grid, invert, stratified
from vaeflow.errors import UserError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def inside(name: str, n: int = 5):
    case = path_case(name)
    return jnp.linspace(case.low, case.high, n + 2)[1:-1]


over_paths = pytest.mark.parametrize("name", PATHS)
PATHS_AND_GAMMA = [*PATHS, "with gamma"]


def any_path(name: str):
    return with_gamma() if name == "with gamma" else path_of(name)


@over_paths
def test_a_path_goes_from_data_to_noise(name):
    p, t = PATHS[name](), jnp.linspace(0, 1, 101)
    assert abs(p.alpha(t)[0] - 1) < 1e-12 and p.sigma(t)[0] <= 0.01
    assert jnp.all(jnp.diff(p.alpha(t)) <= 0) and jnp.all(jnp.diff(p.sigma(t)) > 0) and jnp.all(p.alpha(t) >= 0)
    assert jnp.all(jnp.diff(logsnr(p, t)[1:]) < 0)
    assert jnp.all(jax.vmap(lambda t: diffusion2(p, t))(t[1:-1]) >= 0)


def test_the_ends_are_exact_in_float32():
    t = jnp.array([0.0, 1.0], jnp.float32)
    for name in ("ot", "cosine", "nichol"):
        p = PATHS[name]()
        assert p.alpha(t).dtype == jnp.float32
        assert p.alpha(t)[1] == 0 and p.sigma(t)[0] == 0 and abs(p.alpha(t)[0] - 1) < 1e-6 and abs(p.sigma(t)[1] - 1) < 1e-6


def test_variance_preserving_paths_keep_the_variance():
    t = jnp.linspace(0.01, 0.99, 9)
    for name in ("cosine", "nichol", "vp"):
        p = PATHS[name]()
        np.testing.assert_allclose(p.alpha(t) ** 2 + p.sigma(t) ** 2, 1, atol=1e-12)


def test_nichol_is_the_papers_schedule():
    t, s = jnp.linspace(0.0, 0.99, 9), 0.008
    f = jnp.cos((t + s) / (1 + s) * jnp.pi / 2) ** 2
    np.testing.assert_allclose(PATHS["nichol"]().alpha(t) ** 2, f / f[0], rtol=1e-12)


def test_g2_equals_the_printed_formulae():
    """Song et al. 2021, eq. 30, 32 and 28, at their default constants."""
    t = jnp.linspace(0.01, 1, 11)
    beta = 0.1 + t * 19.9
    total = 0.1 * t + 19.9 * t**2 / 2
    printed = {
        "vp": (beta, -beta / 2),
        "subvp": (beta * (1 - jnp.exp(-2 * total)), -beta / 2),
        "ve": (2 * (0.01 * 5000**t) ** 2 * jnp.log(5000.0), 0 * t),
    }
    for name, (g2, f) in printed.items():
        p = PATHS[name]()
        np.testing.assert_allclose(jax.vmap(lambda t, p=p: diffusion2(p, t))(t), g2, rtol=1e-11)
        np.testing.assert_allclose(jax.vmap(lambda t, p=p: drift(p, t))(t), f, rtol=1e-11)


@pytest.mark.parametrize("name", PATHS_AND_GAMMA)
def test_score_and_velocity_are_those_of_the_exact_density(name):
    """The score is grad log p_t; the velocity solves the continuity equation d log p_t/dt + v . grad log p_t + div v = 0."""
    p, mixture = any_path(name), Mixture()
    predict = mixture.predict(p)

    def residuals(x, t):
        prediction = predict(x, t)
        by_t, by_x = jax.grad(lambda t, x: mixture.log_prob(p, t, x), (0, 1))(t, x)
        div = jnp.trace(jax.jacfwd(lambda x: velocity(p, t, predict(x, t)))(x))
        size = jnp.abs(by_t) + jnp.abs(div) + 1
        rebuilt = mix(p, t, prediction.data, prediction.noise, prediction.latent) - x
        return score(p, t, prediction) - by_x, (by_t + velocity(p, t, prediction) @ by_x + div) / size, rebuilt

    xs = jnp.array([[0.0, 0.0], [-1.0, 0.7], [2.0, -1.0]])
    found = jax.jit(jax.vmap(jax.vmap(residuals, (0, None)), (None, 0)))(xs, inside(name))
    assert max(float(jnp.max(jnp.abs(r))) for r in found) < 1e-9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PATHS_AND_GAMMA)
def test_rows_invert(name, kind):
    p, (x, e, z) = any_path(name), np.random.default_rng(0).normal(size=(3, 4))
    z = z if p.gamma else None

    def back(t):
        out = target(KINDS[kind](), p, t, x, e, z)
        return read(KINDS[kind](), p, t, mix(p, t, x, e, z), out, z)

    got = jax.vmap(back)(inside(name))
    np.testing.assert_allclose(got.data, np.broadcast_to(x, got.data.shape), rtol=0, atol=1e-9)
    np.testing.assert_allclose(got.noise, np.broadcast_to(e, got.noise.shape), rtol=0, atol=1e-9)


@over_paths
def test_edms_row_is_its_preconditioning(name):
    """D = c_skip x_t + c_out F with c_skip = alpha s_d^2 / r^2 and c_out = sigma s_d / r, table 1 of the paper where alpha = 1."""
    p, s_d, x_t, out = path_of(name), 0.5, jnp.array([0.3, -1.0]), jnp.array([0.2, 0.9])
    for t in inside(name):
        alpha, sigma = p.alpha(t), p.sigma(t)
        r = jnp.sqrt(alpha**2 * s_d**2 + sigma**2)
        data = alpha * s_d**2 / r**2 * x_t + sigma * s_d / r * out
        np.testing.assert_allclose(read(KINDS["edm"](sigma_data=s_d), p, t, x_t, out).data, data, rtol=1e-10)
        np.testing.assert_allclose(kinds.input_scale(p, t, s_d), 1 / r, rtol=1e-12)
        np.testing.assert_allclose(kinds.noise_level(p, t), jnp.log(sigma) / 4, rtol=1e-12)


@pytest.mark.parametrize(("name", "kind"), matrix(KINDS, ["v"]))
def test_weights_are_those_of_the_errors_they_name(name, kind):
    """weight |F - F_hat|^2 = the squared error that the weighting names, of two predictions for one x_t."""
    p, made, x_t = path_of(name), KINDS[kind](), jnp.array([0.4, -0.7])
    outs = jnp.array([[0.2, -0.9], [0.5, 0.1]])
    for t in inside(name, 2):
        a, b = (read(made, p, t, x_t, out) for out in outs)
        away = {
            "own": outs[0] - outs[1],
            "data": a.data - b.data,
            "noise": a.noise - b.noise,
            "velocity": velocity(p, t, a) - velocity(p, t, b),
            "edm": target(KINDS["edm"](), p, t, *a[:2]) - target(KINDS["edm"](), p, t, *b[:2]),
            "likelihood": jnp.sqrt(diffusion2(p, t) / 2) * (score(p, t, a) - score(p, t, b)),
            "min_snr": jnp.sqrt(jnp.minimum(jnp.exp(logsnr(p, t)), 5.0)) * (a.data - b.data),
        }
        assert set(away) == set(WEIGHTINGS)
        for weighting, difference in away.items():
            weight = WEIGHTINGS[weighting]().weigh(made, p, t)
            np.testing.assert_allclose(weight * jnp.sum((outs[0] - outs[1]) ** 2), jnp.sum(difference**2), rtol=1e-9)
        elbo = -derivative(lambda t: logsnr(p, t), t) / 2 * jnp.sum(away["noise"] ** 2)
        np.testing.assert_allclose(jnp.sum(away["likelihood"] ** 2), elbo, rtol=1e-9)


@pytest.mark.parametrize(("name", "coordinate"), matrix(TIMES, ["rho"]))
def test_grids_and_training_times(name, coordinate):
    p, c, case = path_of(name), TIMES[coordinate](), path_case(name)
    low, high = max(case.low, 1e-3), min(case.high, 0.99)  # 0 and 1 have no logit
    got = np.asarray(jax.jit(lambda: grid(c, p, 12, low, high))())
    assert len(got) == 13 and got[0] == high and got[-1] == low and np.all(np.diff(got) < 0)
    np.testing.assert_allclose(np.diff(c.of(p, jnp.asarray(got)), 2), 0, atol=1e-10 * float(jnp.max(jnp.abs(c.of(p, got)))) + 1e-11)

    t = np.asarray(jax.jit(lambda key: stratified(key, c, p, 64, low, high))(jax.random.key(0)))
    assert np.all((t >= low) & (t <= high))
    ends = c.of(p, jnp.array([low, high]))
    strata = np.floor((np.asarray(c.of(p, jnp.asarray(t))) - ends[0]) / (ends[1] - ends[0]) * 64)
    assert len(set(strata.clip(0, 63))) >= 63  # one per stratum, but for rounding at a border

    centres = low + (jnp.arange(4000) + 0.5) / 4000 * (high - low)
    total = jnp.mean(jax.vmap(lambda t: density(c, p, t, low, high))(centres)) * (high - low)
    assert abs(total - 1) < 2e-3


def test_stratified_uniform_times_are_the_affine_rule():
    key, n, low = jax.random.key(3), 8, 0.01
    u = (jax.random.uniform(key) + jnp.arange(n) / n) % 1
    np.testing.assert_allclose(stratified(key, TIMES["uniform"](), path_of("ot"), n, low), low + (1 - 2 * low) * u, rtol=0, atol=1e-12)


def test_the_grid_of_edm_is_the_papers():
    i, n, rho = jnp.arange(18), 18, 7
    sigmas = (80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(80 * grid(TIMES["rho"](), path.edm(), n - 1, 0.002 / 80), sigmas, rtol=1e-9)


def test_importance_times_make_the_likelihood_weight_constant():
    p, c, kind = path_of("vp"), TIMES["logsnr"](), KINDS["noise"]()
    ratio = jax.vmap(lambda t: WEIGHTINGS["likelihood"]().weigh(kind, p, t) / density(c, p, t, 0.02, 1.0))(inside("vp"))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


def test_invert_in_float32():
    value = jnp.array([1e-6, 0.3, 0.999], jnp.float32)
    np.testing.assert_allclose(invert(lambda t: t**2, value, 0.0, 1.0), jnp.sqrt(value), rtol=1e-6)


def test_gamma_requires_its_latent():
    p, t, x = with_gamma(), jnp.array(0.5), jnp.ones(2)
    for call in (
        lambda: mix(p, t, x, x),
        lambda: score(p, t, Prediction(x, x)),
        lambda: read(KINDS["velocity"](), p, t, x, x),
    ):
        with pytest.raises(UserError, match="requires the"):
            call()


@pytest.mark.parametrize(("path", "low", "high"), [("ot", 0.1, 1.0), ("ot", 0.0, 0.9), ("vp", 0.0, 1.0)])
def test_a_coordinate_without_finite_ends_is_an_error(path, low, high):
    """It would put every time at one end. Also in a program that is being traced."""
    p, own = path_of(path), TIMES["logsnr"]()
    with pytest.raises(UserError, match=r"the time coordinate is -?inf at t="):
        jax.jit(lambda: grid(own, p, 3, low, high))()
    with pytest.raises(UserError, match=r"the time coordinate is -?inf at t="):
        stratified(jax.random.key(0), own, p, 3, low, high)
    assert np.isfinite(jax.jit(lambda: grid(own, p, 3, 0.1, 0.9))()).all()
