"""Denoising score matching: its objectives by quadrature in float64, exact energies, HMC on them, and ranking by energy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.diagnose_toys import run
from tests.model_cases import KEY, config, quick
from vaeflow.bijectors import BIJECTORS
from vaeflow.data import Split
from vaeflow.errors import UserError
from vaeflow.evaluation.measures import anomaly, density_grid
from vaeflow.models import MODELS, build_model
from vaeflow.models.dae import TIED, dae, differentiated, explicit, implicit, parzen_score
from vaeflow.nets import NETS

POINTS = np.array([[-1.0, 0.5], [0.8, 0.0], [0.2, -1.2]])  # the data, of which q is the Parzen density
SIGMA = 0.6


@pytest.fixture
def _x64():
    with jax.enable_x64(True):
        yield


def tied(seed: int, hidden: int = 5, size: int = 2) -> dict:
    w, b, c = (np.random.default_rng(seed).normal(size=shape) for shape in ((hidden, size), (hidden,), (size,)))
    return jax.tree.map(jnp.asarray, dict(w=w, b=b, c=c))


def deep(params, x):
    """A of a network: the tied one's of tanh(x), plus |x|^2 / 4."""
    return TIED.value(params, jnp.tanh(x)) + jnp.sum(x**2, -1) / 4


def objectives(potential, params) -> dict[str, jax.Array]:
    """Each objective by a sum over a grid of x~, whose error is far below float64's."""
    points, axis = jnp.asarray(POINTS), jnp.linspace(-6, 6, 121)
    noisy = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    log_q = -jnp.sum((noisy[:, None] - points) ** 2, -1) / (2 * SIGMA**2)
    share = jnp.exp(log_q) * (axis[1] - axis[0]) ** 2 / (2 * jnp.pi * SIGMA**2) / len(points)  # of each point at each x~
    r = potential.gradient(params, noisy)
    score, truth = (r - noisy) / SIGMA**2, parzen_score(points, SIGMA, noisy)
    pairs = jax.vmap(lambda x: explicit(score, (x - noisy) / SIGMA**2), out_axes=1)(points)
    return dict(
        esm=share.sum(1) @ explicit(score, truth),
        ism=share.sum(1) @ implicit(score, (potential.laplacian(params, noisy) - 2) / SIGMA**2),
        dsm=jnp.sum(share * pairs),
        dae=jnp.sum(share * jnp.sum((r[:, None] - points) ** 2, -1)),
        size=share.sum(1) @ jnp.sum(truth**2, -1) / 2,
    )


@pytest.mark.usefixtures("_x64")
@pytest.mark.parametrize("potential", [TIED, differentiated(deep)], ids=["tied", "network"])
def test_the_objectives_differ_by_known_constants_and_have_one_gradient(potential):
    found = jax.jit(lambda params: objectives(potential, params))(tied(0))
    assert found["esm"] == pytest.approx(float(found["ism"] + found["size"]), rel=1e-10)
    assert found["esm"] == pytest.approx(float(found["dsm"] + found["size"] - 1 / SIGMA**2), rel=1e-10)  # E |e|^2 / (2 sigma^2), D = 2
    assert found["dae"] == pytest.approx(float(2 * SIGMA**4 * found["dsm"]), rel=1e-10)
    grads = jax.jit(jax.jacrev(lambda params: objectives(potential, params)))(tied(1))
    for name, factor in (("ism", 1.0), ("dsm", 1.0), ("dae", 1 / (2 * SIGMA**4))):
        jax.tree.map(lambda a, b, k=factor: np.testing.assert_allclose(k * a, b, rtol=1e-9, atol=1e-10), grads[name], grads["esm"])
    assert all(np.abs(leaf).max() > 0.01 for leaf in jax.tree.leaves(grads["esm"]))


@pytest.mark.usefixtures("_x64")
def test_the_closed_forms_are_the_derivatives():
    x, numeric = np.random.default_rng(3).normal(size=(7, 2)), differentiated(TIED.value)

    def log_q(x):
        return jax.nn.logsumexp(-jnp.sum((x - POINTS) ** 2, -1) / (2 * SIGMA**2))

    @quick
    def both(params, x):
        closed = TIED.gradient(params, x), TIED.laplacian(params, x), parzen_score(jnp.asarray(POINTS), SIGMA, x)
        return closed, (numeric.gradient(params, x), numeric.laplacian(params, x), jax.vmap(jax.grad(log_q))(x))

    for closed, derived in zip(*both(tied(2), x), strict=True):
        np.testing.assert_allclose(closed, derived, rtol=1e-11)


@pytest.mark.usefixtures("_x64")
@pytest.mark.parametrize("objective", ["dae", "dsm", "esm", "ism"])
def test_the_expected_gradient_of_each_loss_is_that_of_explicit_score_matching(objective):
    """With the batch as the whole data; the energy's own unit is another one than that of the data."""
    model = dae(event=(2,), sigma=SIGMA, hidden=5, objective=objective, layer=BIJECTORS["scale"].make(factor=2.0, shift=1.0))
    batch = {"x": 1 + 2 * jnp.asarray(POINTS)}
    params, keys = tied(1), jax.random.split(KEY, 40_000)
    wanted = jax.jit(jax.grad(lambda params: objectives(TIED, params)["esm"]))(params)
    found = jax.jit(jax.vmap(jax.grad(lambda params, key: model.loss(params, key, batch, 0)[0]), (None, 0)))(params, keys)
    scale = 1 / (2 * SIGMA**4) if objective == "dae" else 1
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        mean, se = scale * np.mean(got, 0), scale * np.std(got, 0) / np.sqrt(len(keys))
        assert (np.abs(mean - want) < 4.5 * se).all() and np.abs(want).max() > 10 * se.max()


@pytest.mark.usefixtures("_x64")
@pytest.mark.parametrize("net", [None, NETS["mlp"](hidden=(6,), activation="tanh")], ids=["tied", "network"])
def test_implicit_matching_of_clean_data_is_hyvarinens_of_the_energy(net):
    """1/2 |grad E|^2 - laplace E, by derivatives of the model's energy."""
    model = dae(event=(3,), sigma=0.7, hidden=4, net=net, objective="ism", clean=True)
    batch = {"x": jax.random.normal(KEY, (6, 3))}
    params, energy, terms = quick(model.init)(KEY, batch), model.energy, model.terms
    assert energy is not None and terms is not None and model.log_prob is None and model.density == "none"

    def one(x):
        def of(x):
            return energy(params, KEY, {"x": x[None]})[0]

        return jnp.sum(jax.grad(of)(x) ** 2) / 2 - jnp.trace(jax.hessian(of)(x))

    def everything():
        return jax.vmap(one)(batch["x"]), model.loss(params, KEY, batch, 0)[0], terms(params, KEY, batch)["loss"]

    wanted, loss, each = quick(everything)()
    np.testing.assert_allclose(loss, wanted.mean(), rtol=1e-10)
    np.testing.assert_allclose(each, wanted, rtol=1e-10)


def mixture(**options):
    """(the model with one hidden unit, its parameters, its log-density): N(c, I) and N(c + w, I) in units of sigma, data 2 x + 1."""
    params = dict(c=jnp.array([0.5, -0.5]), w=jnp.array([[3.0, 1.0]]), b=jnp.array([-7.0]))
    model = dae(event=(2,), hidden=1, layer=BIJECTORS["scale"].make(factor=2.0, shift=1.0), **options)
    means = np.stack([params["c"], params["c"] + params["w"][0]])
    # exp(-E) = exp(-|x|^2 / 2 + <c, x>) (1 + exp(<w, x> + b)): the second weight is exp(b + (|c + w|^2 - |c|^2) / 2) times the first.
    log_weight = np.array([0.0, -7 + (np.sum(means[1] ** 2) - np.sum(means[0] ** 2)) / 2])
    weight = np.exp(log_weight - np.logaddexp(*log_weight))

    def log_p(x):
        parts = [np.log(w) - np.sum((x - 1 - 2 * m) ** 2, -1) / 8 for w, m in zip(weight, means, strict=True)]
        return np.logaddexp(*parts) - np.log(8 * np.pi)

    return model, params, weight, 1 + 2 * means, log_p


def test_a_hidden_unit_makes_two_gaussians_and_hmc_samples_them():
    model, params, weight, means, log_p = mixture(steps=60, start=2.0)
    assert 0.2 < weight[1] < 0.8 and model.energy is not None and model.sample is not None
    drawn = jax.jit(model.sample, static_argnums=2)(params, KEY, 4000)
    x = np.asarray(drawn["x"], np.float64)
    gap = log_p(x) + np.asarray(model.energy(params, KEY, {"x": drawn["x"]}))
    assert gap.std() < 1e-5 * np.abs(gap).max() + 1e-4
    centre = weight @ means
    cov = 4 * np.eye(2) + np.einsum("k,ki,kj->ij", weight, means - centre, means - centre)
    assert (np.abs(x.mean(0) - centre) < 4 * x.std(0) / np.sqrt(len(x))).all()
    second = np.einsum("ni,nj->nij", x - centre, x - centre)
    assert (np.abs(second.mean(0) - cov) < 4 * second.std(0) / np.sqrt(len(x))).all()
    assert 0.8 < drawn["accepted"][0] < 1 and (drawn["accepted"] == drawn["accepted"][0]).all()


def test_an_energy_ranks_as_its_density_and_the_grid_normalises_it():
    exact = toys.gaussian_flow(0.8)
    assert exact.log_prob is not None
    log_prob, split = exact.log_prob, toys.split(300, (2,))
    energy = toys.model(None, "none")._replace(energy=lambda params, key, batch: 5 - log_prob(params, key, batch))
    a, b = (run(model, split) for model in (exact, energy))
    anomaly.needs(b, anomaly.AnomalySettings())
    want, got = (anomaly.check(r, anomaly.AnomalySettings("noise")) for r in (a, b))
    assert set(got) == {"auroc_energy", "energy", "energy_other"}
    assert got["auroc_energy"].value == pytest.approx(want["auroc_nll"].value) and got["auroc_energy"].value > 0.55
    assert got["energy"].value == pytest.approx(5 + want["nll"].value, rel=1e-5)
    truth = np.asarray(log_prob({}, KEY, {"x": jnp.asarray(split.x)}))
    b = b._replace(source=b.source._replace(density=lambda x: np.asarray(log_prob({}, KEY, {"x": x}))))
    density_grid.needs(b, density_grid.DensityGridSettings())
    found = density_grid.check(b, density_grid.DensityGridSettings())
    assert set(found) == {"nll_grid", "kl_grid"} and found["nll_grid"].arrays is not None
    assert found["nll_grid"].value == pytest.approx(-truth.mean(), abs=1e-3) and abs(found["kl_grid"].value) < 1e-3


def test_a_grid_normalises_each_context_by_itself():
    split = Split(toys.split(100, (2,)).x, np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32))

    def energy(params, key, batch):
        return jnp.sum(batch["x"] ** 2, -1) / 2 + 9 * batch["context"][:, 0]

    model = toys.model(None, "none")._replace(energy=energy)
    found = density_grid.check(run(model, split), density_grid.DensityGridSettings())
    assert set(found) == {"mode"} and np.abs(found["mode"].value).max() < 0.1
    arrays = found["mode"].arrays
    assert arrays is not None
    np.testing.assert_allclose(arrays["grid_log_p"].max(), -np.log(2 * np.pi), atol=0.01)


@pytest.mark.parametrize(
    "values, message",
    [
        (dict(clean=True), "model.clean=True needs model.objective='ism', here 'dae'"),
        (dict(objective="sm"), "model.objective='sm' is unknown"),
        (dict(layer="norm"), "model.layer is a layer that keeps statistics"),
        (dict(leapfrog=0), "sample.leapfrog=0 is invalid"),
    ],
)
def test_wrong_configs_are_one_line(values, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(config("dae", MODELS["dae"].examples[2] | dict(event=(4,), levels=0) | values))
    assert "\n" not in str(error.value)
