"""Parameters of another run are in place before anything that depends on them is initialised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.base import base, mlp
from tests.model_cases import FLOW, KEY, config, flat, group, make_batch, quick
from vaeflow.bijectors import Layer
from vaeflow.bijectors.core.scalar_map import bounded
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.model import Frozen, Params
from vaeflow.models import MODELS, build_model
from vaeflow.models.contrastive import contrastive
from vaeflow.nets import Net
from vaeflow.runs import workdir
from vaeflow.runs.checkpoint_writer import Checkpoints, save_fixed
from vaeflow.training import setup
from vaeflow.training.step import init_state

W = np.array([[3.0, 0.5], [-1.0, 0.2]], np.float32)
# q(z|x) = N(W' x, 1e-6^2): latents whose standard deviations are far from those of an untrained encoder.
TRAINED = {
    "encoder": {"head": {"kernel": np.hstack([W, 0 * W]), "bias": np.array([0, 0, -40, -40], np.float32)}},
    "decoder": {"head": {"kernel": np.eye(2, dtype=np.float32), "bias": np.zeros(2, np.float32)}},
}
PARTS = dict(
    net=mlp(),
    norm=dict(kind="actnorm"),
    axes=dict(kind="householder", reflections=2, start="pca"),
    cdf=dict(kind="gaussianize", components=4, kernel="logistic", cap=4.0, start="data"),
    all=dict(kind="chain", of=("norm", "axes", "cdf")),
)


def of_moons(prior: str = "", **changes: Any) -> Any:
    """The config of a linear VAE of the moons, `prior` the name of its layer."""
    c = base()
    c.data.update(kind="density", name="moons", size=256, batch=128)
    c.model = dict(kind="vae", latent=2, encoder="net", decoder="net", likelihood="gaussian", prior=prior)
    c.parts = PARTS
    c.update(changes)
    return c


def write_run(directory: Path, c: Any, params: Params) -> str:
    """The workdir of a run of this config that ended with these parameters."""
    state, fixed = init_state(jax.tree.map(jnp.asarray, params), optax.sgd(1.0), 0.0)
    checkpoints = Checkpoints(directory / "checkpoints" / "last")
    checkpoints.save(1, state, {})
    checkpoints.close()
    save_fixed(directory, fixed)
    workdir.write_config(directory, c)
    return str(directory)


def initial(prior: str, how: str, directory: Path) -> tuple[Params, np.ndarray]:
    """(initial parameters of a VAE with TRAINED given, the latents [B, 2] of its first batch)."""
    c = of_moons(prior)
    if how != "given":
        c[how] = write_run(directory, of_moons(), TRAINED)
    x = setup.make_experiment(c.lock(), directory / "run")
    batch = setup.first_batch(x)
    params = jax.jit(x.model.init)(KEY, batch, TRAINED) if how == "given" else setup.init_params(x)[0]
    for path, leaf in flat(TRAINED).items():
        np.testing.assert_array_equal(flat(params)[path], leaf)
    return params, np.asarray(batch["x"]) @ W


@pytest.mark.parametrize("how", ["given", "fixed_from", "init_from"])
def test_a_prior_that_normalises_its_first_batch_sees_latents_of_the_given_encoder(how, tmp_path):
    params, z = initial("norm", how, tmp_path)
    np.testing.assert_allclose(jnp.exp(bounded(params["prior"]["log_scale"])), z.std(0), rtol=1e-4)
    np.testing.assert_allclose(params["prior"]["shift"], z.mean(0), atol=1e-4)


@pytest.mark.parametrize("how", ["given", "fixed_from"])
def test_principal_axes_and_quantiles_are_those_of_the_given_latents(how, tmp_path):
    params, z = initial("all", how, tmp_path)
    expected = build(PARTS, "all", Layer).init(jax.random.key(5), jnp.asarray(z))
    for name in ("00", "01", "02"):
        mine, wanted = params["prior"][name], expected[name]
        if name == "01":  # its trained reflections are pairs of any vector
            mine, wanted = mine["fixed"], wanted["fixed"]
        for path, leaf in flat(wanted).items():
            np.testing.assert_allclose(flat(mine)[path], leaf, atol=2e-3, err_msg=f"{name} {path}")


class Standardized(nn.Module):
    """A classifier whose scale is the standard deviation of the first batch."""

    @nn.compact
    def __call__(self, z, context=None):
        return jnp.sum(z / self.param("scale", lambda _: z.std(0)), axis=-1, keepdims=True)


def test_a_classifier_sees_latents_of_the_given_vae():
    sizes: dict[str, Any] = dict(partition=10, sampler="prior", proposals=1, langevin_steps=1, langevin_step_size=0.1, temperature=1.0)
    below = Frozen(build_model(of_moons()), "frozen")
    model = contrastive(frozen=below, classifier=Net(lambda *_: Standardized()), **sizes)
    batch = {"x": jax.random.normal(KEY, (64, 2))}
    params = quick(model.init)(KEY, batch, below.put(TRAINED))
    np.testing.assert_allclose(params["classifier"]["scale"], np.asarray(batch["x"] @ W).std(0), rtol=1e-4)


def test_a_student_starts_at_the_data_whatever_its_teacher_is():
    teacher = group("flow", FLOW | dict(layer="actnorm"))
    model = build_model(config("distill", MODELS["distill"].examples[0] | dict(layer="actnorm", teacher=teacher)))
    batch = {"x": 3 * jax.random.normal(KEY, (64, 4)) + 1}
    given = {"fixed": {"teacher": {"layer": {"shift": jnp.full(4, 9.0), "log_scale": jnp.full(4, 2.0)}}}}
    params = model.init(KEY, batch, given)
    np.testing.assert_allclose(params["layer"]["shift"], batch["x"].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(params["fixed"]["teacher"]["layer"]["shift"], 9.0)


def test_a_flow_sees_data_of_the_given_dequantizer():
    values = MODELS["flow"].examples[0] | dict(levels=17, dequantize="variational", dequantizer="actnorm", layer="actnorm")
    model = build_model(config("flow", values))
    batch = make_batch(model, context=False)
    up = {"dequantizer": {"shift": jnp.full(4, 30.0), "log_scale": jnp.zeros(4)}}  # sigmoid(v) = 1
    np.testing.assert_allclose(model.init(KEY, batch, up)["layer"]["shift"], batch["x"].mean(0) + 1, rtol=1e-5)


def test_codes_and_baselines_start_at_the_given_networks():
    values = MODELS["vq"].examples[0]
    model = build_model(config("vq", values))
    batch = make_batch(model, context=True)
    found = quick(model.init)(KEY, batch)
    encoder = jax.tree.map(jnp.zeros_like, found["encoder"])
    encoder["head"]["bias"] += 7.0
    stats = quick(model.init)(KEY, batch, {"encoder": encoder})["stats"]
    np.testing.assert_allclose(stats["sums"] * len(stats["counts"]), 7.0)

    values = MODELS["discrete_vae"].examples[1] | dict(beta=1.0)
    model = build_model(config("discrete_vae", values))
    batch = make_batch(model, context=True)
    found = quick(model.init)(KEY, batch)
    given = {name: jax.tree.map(jnp.zeros_like, found[name]) for name in ("encoder", "decoder")}
    constant = quick(model.init)(KEY, batch, given)["baseline"]["constant"]  # q = p and p(x|z) = 2^-6
    assert constant == pytest.approx(-6 * np.log(2)) != pytest.approx(float(found["baseline"]["constant"]))


def test_given_parameters_that_do_not_fit_are_one_line():
    model, batch = build_model(of_moons()), {"x": jnp.zeros((4, 2))}
    for given, message in (
        ({"encoder": {"head": {"bias": jnp.zeros(3)}}}, "encoder/head/bias has the shape .3,., here .4,."),
        ({"encoder": {"haed": {"bias": jnp.zeros(4)}}}, "given has encoder/haed/bias, and this model has no such parameters"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(model.init, KEY, batch, given)
