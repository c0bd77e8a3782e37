"""Samplers: exact moments on a Gaussian, orders on a mixture, keys, batches, and what they refuse."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.diffusion_cases import STEP_CASES, Mixture, StepCase, matrix, path_case, path_of, with_gamma
from vaeflow.diffusion.ode import SOLVERS, field, log_density, solve
from vaeflow.diffusion.path import PATHS, Prediction, ProbabilityPath
from vaeflow.diffusion.steps import STEPS
from vaeflow.diffusion.times import TIMES, grid
from vaeflow.diffusion.walk import Sampler, walk
from vaeflow.errors import UserError


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def the_grid(name: str, steps: int):
    case = path_case(name)
    return grid(TIMES["logsnr"](), path_of(name), steps, case.low, case.high)


DRAWS = 4  # the most normal draws in one step
MEAN, STD = 0.5, 0.6


def moments(sampler: Sampler, path: ProbabilityPath, times, patch) -> tuple:
    """The exact mean and variance of x at the last time, for data N(MEAN, STD^2), and those of p_t there.

    x is an affine function of independent normals: entry 0 is its mean, entry 1 the coefficient of the draw at the first time, the others
    those of the draws that the steps make, each of which is a unit vector here. All samplers but those of `linear` act on these
    coefficients as they act on numbers, so there is no Monte Carlo error.
    """
    size = 2 + DRAWS * (len(times) - 1)
    mean = jnp.zeros(size).at[0].set(MEAN)

    def variance(t):
        return path.alpha(t) ** 2 * STD**2 + path.sigma(t) ** 2

    def predict(x, t):
        away = (x - path.alpha(t) * mean) / variance(t)
        return Prediction(mean + path.alpha(t) * STD**2 * away, path.sigma(t) * away)

    step = sampler.on(path, predict)
    x = (path.alpha(times[0]) * mean).at[1].set(jnp.sqrt(variance(times[0])))

    def body(carry, inputs):
        i, t, s = inputs
        count = itertools.count(2)
        patch.setattr(jax.random, "normal", lambda key, shape, dtype: jax.nn.one_hot(next(count) + DRAWS * i, size, dtype=dtype))
        moved = step.move(jax.random.key(0), carry[0], t, s, carry[1])
        assert next(count) <= 2 + DRAWS
        return moved, None

    (x, _), _ = jax.lax.scan(body, (x, step.start(x)), (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    return x[0], jnp.sum(x[1:] ** 2), path.alpha(times[-1]) * MEAN, variance(times[-1])


def error(sampler: Sampler, name: str, steps: int, patch) -> float:
    got_mean, got_variance, mean, variance = jax.jit(lambda times: moments(sampler, path_of(name), times, patch))(the_grid(name, steps))
    return float(jnp.hypot(got_mean - mean, got_variance - variance))


LINEAR = [name for name, case in STEP_CASES.items() if not case.linear]
DETERMINISTIC = [name for name, case in STEP_CASES.items() if not case.noisy and case.order <= 2]  # others reach rounding first
over_samplers = pytest.mark.parametrize("case", STEP_CASES.values(), ids=STEP_CASES)


@pytest.mark.parametrize(("name", "sampler"), matrix(LINEAR, ["ancestral", "heun"]))
def test_moments_of_a_gaussian_converge_at_the_samplers_order(name, sampler, monkeypatch):
    case = STEP_CASES[sampler]
    coarse, fine = (error(case.sampler(n), name, n, monkeypatch) for n in (64, 128))
    assert np.log2(coarse / fine) > case.order - 0.1  # a wrong limit has slope 0


def test_a_step_with_a_wrong_variance_has_wrong_moments(monkeypatch):
    def on(path, predict):
        step = STEPS["ancestral"]().on(path, predict)
        return step._replace(move=lambda key, x, t, s, state: step.move(key, x, t, s * 0.999, state))

    coarse, fine = (error(Sampler(on), "vp", n, monkeypatch) for n in (64, 128))
    assert np.log2(coarse / fine) < 0.9


def test_an_ancestral_step_follows_its_own_recursion(monkeypatch):
    """var_s = (alpha_s K + sqrt(sigma_s^2 - v) (1 - alpha_t K) / sigma_t)^2 var_t + v in numbers, K = alpha_t STD^2 / var(x_t)."""
    times, path = np.asarray(the_grid("vp", 32)), path_of("vp")
    alpha, sigma = np.asarray(path.alpha(times)), np.asarray(path.sigma(times))
    variance = alpha[0] ** 2 * STD**2 + sigma[0] ** 2
    for a, s, a1, s1 in zip(alpha, sigma, alpha[1:], sigma[1:], strict=False):
        k = a * STD**2 / (a**2 * STD**2 + s**2)
        new = s1**2 * (1 - (a * s1 / (a1 * s)) ** 2)
        variance = (a1 * k + np.sqrt(s1**2 - new) * (1 - a * k) / s) ** 2 * variance + new
    got = jax.jit(lambda times: moments(STEPS["ancestral"](), path, times, monkeypatch))(jnp.asarray(times))
    np.testing.assert_allclose(got[1], variance, rtol=1e-10)


@pytest.mark.parametrize(("name", "sampler"), matrix(DETERMINISTIC, ["dpm_2m"]))
def test_deterministic_samplers_converge_to_the_ode(name, sampler):
    case, path, bounds = STEP_CASES[sampler], path_of(name), path_case(name)
    predict = Mixture().predict(path)
    x = jnp.sqrt(path.sigma(jnp.asarray(bounds.high)) ** 2 + 0.1) * jnp.array([[0.3, -0.5], [1.0, 0.4], [-0.8, 1.2], [-0.2, -1.5]])

    def errors(x):
        exact, _ = solve(field(path, predict), x, bounds.high, bounds.low, solver="dopri5", steps=400)
        step = case.sampler().on(path, predict)
        return [walk(step, jax.random.key(0), x, the_grid(name, n), denoise=False)[0] - exact for n in (64, 128)]

    coarse, fine = (float(jnp.sqrt(jnp.mean(e**2))) for e in jax.jit(jax.vmap(errors))(x))
    assert fine < 0.05 and abs(np.log2(coarse / fine) - case.order) < 0.2


@pytest.mark.parametrize("name", [name for name in SOLVERS if name in STEPS])
def test_runge_kutta_steps_are_those_of_the_solver(name):
    path, x, n = path_of("vp"), jnp.array([0.3, -0.5]), 6
    predict = Mixture().predict(path)
    got, _ = walk(STEPS[name]().on(path, predict), jax.random.key(0), x, jnp.linspace(1.0, 0.1, n + 1), denoise=False)
    want, nfe = solve(field(path, predict), x, 1.0, 0.1, solver=name, steps=n)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert nfe == n * STEPS[name]().on(path, predict).nfe


@over_samplers
def test_a_batch_of_1_is_a_batch_of_64(case: StepCase):
    path, keys = path_of("vp"), jax.random.split(jax.random.key(1), 64)
    x = np.random.default_rng(0).normal(size=(64, 2))
    step = case.sampler(8).on(path, Mixture().predict(path))

    run = jax.jit(jax.vmap(lambda key, x: walk(step, key, x, the_grid("vp", 8))))
    (many, nfe), (one, _) = run(keys, x), run(keys[5:6], x[5:6])
    np.testing.assert_allclose(many[5], one[0], rtol=1e-9)
    assert set(nfe.tolist()) == {8 * step.nfe + 1}
    again, _ = run(jax.random.split(jax.random.key(2), 64), x)
    assert bool(jnp.any(many != again)) == case.noisy


@over_samplers
def test_the_network_is_evaluated_nfe_times(case: StepCase):
    path, calls = path_of("vp"), []

    def predict(x, t):
        calls.append(1)
        return Mixture().predict(path)(x, t)

    step, x = case.sampler(8).on(path, predict), jnp.ones(2)
    jax.eval_shape(lambda x: step.move(jax.random.key(0), x, jnp.array(0.5), jnp.array(0.4), step.start(x)), x)
    assert len(calls) == step.nfe


@pytest.mark.parametrize(
    ("name", "case"),
    [*((name, STEP_CASES["heun"]) for name in PATHS), *(("vp", case) for case in STEP_CASES.values())],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind}{value.options(8)}",
)
def test_float32_stays_float32(name, case: StepCase):
    with jax.enable_x64(False):
        path = path_of(name)
        step = case.sampler(8).on(path, Mixture().predict(path))
        x, _ = jax.eval_shape(lambda key, x: walk(step, key, x, the_grid(name, 8)), jax.random.key(0), jnp.ones(2))
        density, _ = jax.eval_shape(lambda x: log_density(field(path, Mixture().predict(path)), x, 0.1, 0.9, jnp.sum, steps=2), jnp.ones(2))
    assert x.dtype == density.dtype == jnp.float32


@over_samplers
def test_no_key_is_used_twice(case: StepCase):
    path = path_of("vp")
    step = case.sampler(8).on(path, Mixture().predict(path))
    with jax.debug_key_reuse(True):
        jax.jit(lambda key: walk(step, key, jnp.ones(2), jnp.array([1.0, 0.5, 0.1])))(jax.random.key(0))


def test_a_key_that_is_used_twice_is_found():
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda key: jax.random.normal(key) + jax.random.uniform(key))(jax.random.key(0))


@pytest.mark.parametrize("case", [c for c in STEP_CASES.values() if not c.from_one], ids=lambda c: f"{c.kind}{c.options(8)}")
@pytest.mark.parametrize("name", ["ot", "cosine", "nichol"])
def test_samplers_start_at_t_1_where_alpha_is_0(name, case: StepCase):
    path = PATHS[name]()
    step = case.sampler(6).on(path, Mixture().predict(path))
    x, _ = jax.jit(lambda x: walk(step, jax.random.key(0), x, jnp.linspace(1.0, 0.02, 7)))(jnp.array([0.5, -0.5]))
    assert bool(jnp.all(jnp.isfinite(x))) and bool(jnp.all(jnp.abs(x) < 5))


def test_the_last_step_is_tweedies_formula():
    path = path_of("ot")
    predict, times = Mixture().predict(path), jnp.linspace(0.9, 0.05, 5)
    step = STEPS["ddim"]().on(path, predict)
    key, x = jax.random.key(0), jnp.array([0.2, 0.3])
    (last, n), (data, m) = (walk(step, key, x, times, denoise=denoise) for denoise in (False, True))
    np.testing.assert_allclose(data, predict(last, times[-1]).data, rtol=1e-12)
    assert (n, m) == (4, 5)


def test_adaptive_steps_end_where_the_ode_does_and_count_their_evaluations():
    """Per example: the NFE of one does not depend on the others, and a smaller tolerance takes more and is nearer."""
    path, ends = path_of("vp"), jnp.array([1.0, 0.5, 0.05])
    predict, x = Mixture().predict(path), jnp.array([[0.3, -0.5], [2.0, 1.4]])
    exact, _ = jax.vmap(lambda x: solve(field(path, predict), x, ends[0], ends[-1], solver="dopri5", steps=400))(x)

    def drawn(x, tol):
        step = STEPS["dopri5"](tol=tol).on(path, predict)
        return jax.jit(jax.vmap(lambda x: walk(step, jax.random.key(0), x, ends, denoise=False)))(x)

    (coarse, few), (fine, many) = drawn(x, 1e-3), drawn(x, 1e-7)
    assert jnp.all(many > few) and jnp.all((few - 1) % 6 <= 1)
    assert jnp.max(jnp.abs(fine - exact)) < 1e-5 < jnp.max(jnp.abs(coarse - exact)) < 1e-2
    assert few[1] == drawn(x[1:], 1e-3)[1][0]
    data, nfe = walk(STEPS["dopri5"](tol=1e-3).on(path, predict), jax.random.key(0), x[0], ends)
    np.testing.assert_allclose(data, predict(coarse[0], ends[-1]).data, rtol=1e-6)
    assert nfe == few[0] + 1


def test_predictor_corrector_of_a_gaussian_by_draws():
    """The case that moments exclude, in 32 dimensions, where the norms concentrate: mean and variance within five standard errors, and
    within the first-order error of 64 steps."""
    path, data, n = path_of("vp"), Mixture((1.0,), ((MEAN,) * 32,), (STD,)), 64
    step = STEPS["predictor_corrector"](size="score").on(path, data.predict(path))

    def draw(key):
        start, key = jax.random.split(key)
        return walk(step, key, jax.random.normal(start, (32,)), the_grid("vp", 64), denoise=False)[0]

    x = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), n)).ravel()
    t = path_case("vp").low
    a, variance = float(path.alpha(t)), float(path.alpha(t) ** 2 * STD**2 + path.sigma(jnp.asarray(t)) ** 2)
    se = np.sqrt(variance / x.size)
    assert abs(jnp.mean(x) - a * MEAN) < 5 * se + 0.01 and abs(jnp.var(x) / variance - 1) < 5 * np.sqrt(2 / x.size) + 0.1


def test_a_path_with_gamma_has_samplers_and_refusals():
    path, x = with_gamma(), jnp.array([0.5, -0.3])
    predict = Mixture().predict(path)
    for kind in ("ddim", "ancestral", "reverse_diffusion", "dpm_2m", "sde", "predictor_corrector"):
        with pytest.raises(UserError, match="without gamma"):
            STEPS[kind]().on(path, predict)
    for sampler in (STEPS["euler"](), STEPS["midpoint"](), STEPS["heun"](), STEPS["dopri5"](), STEPS["sde"](diffusion="sigma")):
        data, _ = walk(sampler.on(path, predict), jax.random.key(0), x, jnp.linspace(0.95, 0.05, 9))
        assert bool(jnp.all(jnp.isfinite(data)))
    with pytest.raises(UserError, match=r"eta=1\.5 is invalid"):
        STEPS["ancestral"](eta=1.5)
