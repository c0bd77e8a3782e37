"""The family `diffusion`: the two objectives of flow matching, exact densities of Gaussian data, couplings, guidance, pairs, errors."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, config
from vaeflow.bijectors import BIJECTORS
from vaeflow.bijectors.elementwise import scale
from vaeflow.diffusion import BatchCoupling
from vaeflow.diffusion.kinds import KINDS, target
from vaeflow.diffusion.ode import log_density
from vaeflow.diffusion.path import PATHS, Prediction, mix, velocity
from vaeflow.diffusion.steps import STEPS
from vaeflow.errors import UserError
from vaeflow.models import MODELS, build_model
from vaeflow.models.diffusion import diffusion
from vaeflow.nets.embedding import Embedding
from vaeflow.nets.mlp import mlp
from vaeflow.nets.net import Net

# The time itself, so that a network can compute with it; a tree of parameters needs a leaf.
CLOCK = Embedding(lambda key: {"fixed": {"none": jnp.zeros(())}}, lambda params, t: t[..., None])


class Given(nn.Module):
    """A network whose output is function(x, context, whether it has a key for dropout)."""

    function: object

    @nn.compact
    def __call__(self, x, context=None):
        self.param("none", nn.initializers.zeros_init(), ())
        return self.function(x, context, self.has_rng("dropout"))  # type: ignore[operator]


def net_of(function) -> Net:
    return Net(lambda out, event_ndims=1, zero_head=False: Given(function))


@pytest.mark.parametrize("path, kind", [("ot", "velocity"), ("vp", "velocity"), ("cosine", "noise")])
def test_conditional_and_marginal_objective_have_equal_gradients(path, kind):
    """Of data x_k with equal weights: E |F - target(x, e)|^2 against E |F - E[target | x_t]|^2, whose expectation is a sum over a grid of
    times and x_t. The first one is the model's own loss, averaged over draws."""
    points, t_min = jnp.array([-1.0, 0.2, 1.5]), 0.05
    model = diffusion(
        event=(1,), net=mlp(hidden=(4,), activation="tanh"), embedding=CLOCK, path=PATHS[path](), predict=KINDS[kind](), t_min=t_min
    )
    batch = {"x": jnp.tile(points, 400)[:, None]}
    params = model.init(KEY, batch)
    trained = {"net": params["net"]}

    def conditional(key):
        return jax.grad(lambda own: model.loss(params | own, key, batch, 0)[0])(trained)

    found = jax.tree.leaves(jax.lax.map(conditional, jax.random.split(jax.random.key(1), 400)))

    p, k = PATHS[path](), KINDS[kind]()
    times = t_min + (1 - 2 * t_min) * (jnp.arange(100) + 0.5) / 100
    steps = jnp.linspace(-6, 6, 400)  # x_t, in units of sigma around each point's mean: the posterior is exact everywhere
    share = jax.nn.softmax(-(steps**2) / 2) / len(points)

    def marginal(own):
        def at(t, centre, z):
            x_t = p.alpha(t) * centre + p.sigma(t) * z
            noise = (x_t - p.alpha(t) * points) / p.sigma(t)
            want = jax.nn.softmax(-(noise**2) / 2) @ jax.vmap(lambda x, e: target(k, p, t, x, e))(points, noise)
            out = mlp(hidden=(4,), activation="tanh").module((1,), 1, False).apply({"params": own["net"]}, x_t[None], t[None])
            return (out[0] - want) ** 2  # type: ignore[index]

        grid = jax.vmap(jax.vmap(jax.vmap(at, (None, None, 0)), (None, 0, None)), (0, None, None))(times, points, steps)
        return jnp.sum(jnp.mean(grid, 0) * share)

    expected = jax.tree.leaves(jax.jit(jax.grad(marginal))(trained))
    for got, want in zip(found, expected, strict=True):
        got = np.asarray(got, np.float64)
        se = got.std(0, ddof=1) / np.sqrt(len(got))
        assert (np.abs(got.mean(0) - want) < 5 * se + 1e-4 * np.abs(want).max()).all()
        assert np.abs(want).max() > 20 * se.max(), "the gradient is not resolved"


def gaussian(path: str, std: float = 0.8, **options):
    """(the model of data N(1, (2 std)^2 I) with the exact velocity as its network, its log density at t_min)."""
    p = PATHS[path]()

    def exact(x, context, dropout):
        del dropout
        alpha, sigma = (jax.vmap(f)(context.reshape(-1)).reshape(context.shape) for f in (p.alpha, p.sigma))
        total = alpha**2 * std**2 + sigma**2
        rate = jax.vmap(lambda t, x: velocity(p, t, Prediction(p.alpha(t) * std**2 * x, p.sigma(t) * x)))
        return (rate(context.reshape(-1), x.reshape(-1, x.shape[-1])).reshape(x.shape) / total).astype(x.dtype)

    options = dict(t_min=0.01, sigma_data=std) | options
    model = diffusion(event=(3,), net=net_of(exact), embedding=CLOCK, path=p, layer=scale(factor=2.0, shift=1.0), **options)  # type: ignore[arg-type]
    r = float(jnp.sqrt(p.alpha(jnp.float32(0.01)) ** 2 * std**2 + p.sigma(jnp.float32(0.01)) ** 2))
    return model, lambda x: jnp.sum(jax.scipy.stats.norm.logpdf(x, 1, 2 * r), -1)


@pytest.mark.parametrize(
    "path, options",
    [
        ("ot", {}),
        ("vp", {}),
        ("ve", {}),
        ("cosine", dict(solver="rk4", solver_steps=64)),
        ("ot", dict(trace="estimate", solver="rk4", solver_steps=64)),  # the Jacobian is a multiple of I: a probe is exact
    ],
)
def test_log_prob_of_the_exact_velocity_is_the_gaussians(path, options):
    model, truth = gaussian(path, **options)
    batch = {"x": 1 + 2 * jax.random.normal(KEY, (20, 3))}
    params = model.init(KEY, batch)
    assert model.log_prob is not None and model.density == ("estimate" if "trace" in options else "exact")
    np.testing.assert_allclose(jax.jit(model.log_prob)(params, KEY, batch), truth(batch["x"]), rtol=2e-4, atol=2e-4)
    if model.continuous is not None:
        np.testing.assert_allclose(jax.jit(model.continuous)(params, batch["x"]), truth(batch["x"]), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("sampler", ["heun", "ddim", "dpm_2m"])
def test_samples_of_the_exact_velocity_invert_encode(sampler):
    """A deterministic sampler maps the ODE's end at t = 1 back to the data, but for Tweedie's last step, a factor known for Gaussians."""
    model, _ = gaussian("ot", sampler=STEPS[sampler](), steps=400, temperature=2.0)
    params = model.init(KEY, {"x": jnp.zeros((8, 3))})
    assert model.sample is not None and model.encode is not None
    drawn = jax.jit(model.sample, static_argnums=2)(params, KEY, 500)
    tweedie = 0.99 * 0.64 / (0.99**2 * 0.64 + 0.01**2)
    back = jax.jit(model.encode)(params, KEY, {"x": 1 + (drawn["x"] - 1) / tweedie})
    np.testing.assert_allclose(back, drawn["x0"], rtol=5e-3, atol=5e-3)
    assert 1.9 < np.std(drawn["x0"]) < 2.1 and (np.asarray(drawn["nfe"]) == (801 if sampler == "heun" else 401)).all()


def test_dynamics_are_the_exact_ode_in_the_models_coordinates():
    """What students, measures and figures read, against the Gaussian's closed form; y = 1 + 2 x, x ~ N(0, 0.8^2 I)."""
    model, truth = gaussian("ot", sampler=STEPS["heun"](), steps=300)
    d, params = model.dynamics, model.init(KEY, {"x": jnp.zeros((2, 3))})
    assert d is not None and d.predictor is not None and (d.shape, d.t_min, d.t_max) == ((3,), 0.01, 1.0)
    np.testing.assert_allclose([d.spread(1.0), d.spread(0.5)], [1, (0.25 * 0.64 + 0.25) ** 0.5], rtol=1e-6)
    y = 1 + 2 * jax.random.normal(KEY, (6, 3))
    x, log_det = d.pull(params, y)
    np.testing.assert_allclose(x, (y - 1) / 2, atol=1e-6)
    np.testing.assert_allclose(log_det, -3 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(d.push(params, x), y, atol=1e-6)
    t = jnp.float32(0.3)
    rate = (0.3 - 0.7 * 0.64) / (0.49 * 0.64 + 0.09)
    np.testing.assert_allclose(d.velocity(params, None)(t, x[0]), rate * x[0], rtol=1e-5)
    p = d.predictor(params, None)(x[0], t)
    np.testing.assert_allclose(mix(d.path, t, p.data, p.noise), x[0], rtol=1e-5)
    density = (
        log_density(d.velocity(params, None), x[0], d.t_min, d.t_max, lambda e: standard(e, d.spread(d.t_max)), steps=64)[0] + log_det[0]
    )
    np.testing.assert_allclose(density, truth(y[:1])[0], rtol=1e-4)


def test_dynamics_of_grey_values_are_of_dequantised_data():
    model = diffusion(event=(2, 2, 1), levels=17, net=mlp(hidden=()), layer=scale(factor=8.5, shift=8.5), flatten=True)
    params = model.init(KEY, {"x": jnp.zeros((3, 2, 2, 1), jnp.uint8)})
    y = 17 * jax.random.uniform(KEY, (5, 2, 2, 1))
    x, _ = model.dynamics.pull(params, y)  # type: ignore[union-attr]
    assert x.shape == (5, 4) and float(jnp.abs(x).max()) <= 1
    np.testing.assert_array_equal(model.dynamics.push(params, x), jnp.floor(y))  # type: ignore[union-attr]


def standard(e, std):
    return jnp.sum(jax.scipy.stats.norm.logpdf(e, 0, std))


def test_the_noise_moves_within_equal_contexts():
    seen = []

    def pair(key, x, noise, label):
        seen.append(label)
        return jnp.arange(len(x))

    model = diffusion(event=(2,), net=mlp(hidden=(4,)), coupling=BatchCoupling(pair))
    context = jnp.eye(3)[jnp.array([2, 0, 2, 1, 0])]
    batch = {"x": jnp.ones((5, 2)), "context": context}
    model.loss(model.init(KEY, batch), KEY, batch, 0)
    np.testing.assert_array_equal(np.equal.outer(np.asarray(seen[0]), np.asarray(seen[0])), np.asarray(context @ context.T) == 1)
    model.loss(model.init(KEY, {"x": batch["x"]}), KEY, {"x": batch["x"]}, 0)
    assert seen[1] is None


def test_dropped_contexts_are_zero_with_a_flag_and_guidance_extrapolates():
    seen = []

    def observed(x, context, dropout):
        seen.append((context, dropout))
        return jnp.broadcast_to(context[..., 1:2] + 10 * context[..., 2:3], x.shape)  # flag + 10 first entry of c

    options = dict(event=(2,), net=net_of(observed), embedding=CLOCK, predict=KINDS["data"](), sampler=STEPS["euler"](), steps=2)
    model = diffusion(label_drop=0.25, **options)  # type: ignore[arg-type]
    batch = {"x": jnp.zeros((2000, 2)), "context": jnp.ones((2000, 1))}
    params = model.init(KEY, batch)
    seen.clear()
    model.loss(params, KEY, batch, 0)
    model.terms(params, KEY, batch)  # type: ignore[misc]
    (training, has_key), (evaluation, no_key) = seen
    assert has_key and not no_key
    np.testing.assert_array_equal(training[:, 1] + training[:, 2], 1)
    assert 0.2 < float(training[:, 1].mean()) < 0.3 and not evaluation[:, 1].any()
    for guidance, want in ((1.0, 10.0), (0.0, 1.0), (3.0, 28.0)):  # unconditional 1, conditional 10
        model = diffusion(label_drop=0.25, guidance=guidance, **options)  # type: ignore[arg-type]
        drawn = model.sample(params, KEY, 3, jnp.ones((3, 1)))  # type: ignore[misc]
        np.testing.assert_allclose(drawn["x"], want, rtol=1e-5)
        assert (drawn["nfe"] == (3 if guidance == 1 else 6)).all() and (model.log_prob is None) == (guidance != 1)
        assert (model.density == "none") == (guidance != 1)


def test_the_source_of_pairs_is_x0_on_the_datas_scale():
    """With the exact velocity of x = x0 + 4, sampling adds 4."""
    model = diffusion(event=(2,), net=net_of(lambda x, *_: jnp.full_like(x, -2.0)), layer=scale(factor=2.0), paired=True, steps=3)
    x0 = jax.random.normal(KEY, (5, 2))
    params = model.init(KEY, {"x": x0 + 4, "x0": x0})
    loss, _ = model.loss(params, KEY, {"x": x0 + 4, "x0": x0}, 0)
    drawn = model.sample(params, KEY, 5, None, x0=x0)  # type: ignore[misc,call-arg]
    assert float(loss) < 1e-10 and model.density == "none" and model.log_prob is None
    np.testing.assert_allclose(drawn["x"], x0 + 4, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(drawn["x0"], x0)


@pytest.mark.parametrize("options", [{}, dict(paired=True), dict(paired=True, path=PATHS["ot"](gamma=1.0), t_max=0.9)])
def test_no_key_is_used_twice(options):
    model = diffusion(event=(2,), levels=17, net=mlp(hidden=(4,)), steps=2, **options)
    batch = {"x": jnp.ones((5, 2), jnp.uint8), "x0": jnp.ones((5, 2), jnp.uint8)}
    params = model.init(KEY, batch)
    with jax.debug_key_reuse(True):
        jax.jit(model.loss)(params, jax.random.key(1), batch, 0)
        given = {"x0": batch["x0"]} if model.paired else {}
        jax.jit(lambda key: model.sample(params, key, 5, **given))(jax.random.key(2))  # type: ignore[misc]


@pytest.mark.parametrize(
    "levels, trace, density",
    [(0, "auto", "exact"), (17, "auto", "weight"), (0, "estimate", "estimate"), (17, "estimate", "bound")],
)
def test_density_says_what_log_prob_is(levels, trace, density):
    assert diffusion(event=(4,), levels=levels, net=mlp(hidden=()), trace=trace).density == density


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(guidance=2.0), "sample.guidance=2 needs .* model.label_drop > 0"),
        (dict(t_min=0.5, t_max=0.5), "model.t_min=0.5 must be below sample.t_max=0.5"),
        (dict(path="cosine_gamma"), "sample.t_max=1 is invalid with a path with gamma"),
        (dict(paired=True, sampler="ancestral"), "sample.sampler adds noise"),
        (dict(paired=True, temperature=0.5), "sample.temperature=0.5 must be 1 with model.paired"),
        (dict(path="cosine_gamma", t_max=0.99, edit="left"), "sample.edit needs Gaussian noise as the source"),
        (dict(edit="top"), "sample.edit: this edit needs images"),
        (dict(layer="norm"), "model.layer is a layer that keeps statistics"),
        (dict(path="oot"), "model.path='oot' is unknown .did you mean 'ot'"),
        (dict(dequantize="uniform"), "does not fit model.levels=0"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(config("diffusion", MODELS["diffusion"].examples[0] | values))
    assert "\n" not in str(error.value)


def test_dropping_needs_a_context():
    with pytest.raises(UserError, match=r"model.label_drop=0.1 needs a context"):
        diffusion(event=(2,), net=mlp(hidden=()), label_drop=0.1).init(KEY, {"x": jnp.zeros((3, 2))})


def test_the_layers_first_batch_is_kept():
    model = diffusion(event=(2,), net=mlp(hidden=(4,)), layer=BIJECTORS["actnorm"].make())
    batch = {"x": 3 + 5 * jax.random.normal(KEY, (200, 2))}
    params = model.init(KEY, batch)
    np.testing.assert_allclose(params["fixed"]["layer"]["shift"], batch["x"].mean(0), rtol=1e-5)
    assert set(params) == {"fixed", "net", "time"}
