"""Reflow: pairs of a teacher's ODE, rounds after rounds, transfer, and the measure of straightness; through the commands."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.commands import call, train_only
from tests.model_cases import KEY, quick
from tests.runs import state
from tests.test_diffusion_model import CLOCK, net_of
from tests.test_given import write_run
from vaeflow.bijectors.elementwise import scale
from vaeflow.diffusion.coupling import exact
from vaeflow.diffusion.path import PATHS
from vaeflow.errors import UserError
from vaeflow.model import Frozen, Model
from vaeflow.models.diffusion import diffusion
from vaeflow.models.flow import flow
from vaeflow.models.parts.reflow import reflow
from vaeflow.nets.mlp import mlp
from vaeflow.override import override
from vaeflow.schema import complete
from vaeflow.training import frozen, setup
from vaeflow.training.configure import load

SHIFT = jnp.array([-4.0, 1.0])


def shifting(paired: bool = False) -> Model:
    """The teacher whose velocity is SHIFT everywhere: x = e - SHIFT, in coordinates of half the data's scale."""
    return diffusion(
        event=(2,), net=net_of(lambda x, *_: jnp.broadcast_to(SHIFT, x.shape)), embedding=CLOCK, layer=scale(factor=2.0), paired=paired
    )


def student(teacher: Model, function, **options) -> Model:
    return diffusion(event=(2,), net=net_of(function), embedding=CLOCK, teacher=Frozen(teacher, "teacher"), **options)


@pytest.mark.parametrize("paired, pairs", [(False, 0), (False, 50), (True, 50)])
def test_a_student_of_a_constant_velocity_has_no_error_at_that_velocity(paired, pairs):
    """All pairs have x - e = -SHIFT: the loss is 0 at SHIFT. Of swapped pairs it would be |2 SHIFT|^2 / D."""
    x0 = jax.random.normal(KEY, (20, 2))
    batch = {"x": jnp.full((20, 2), 77.0)} | ({"x0": x0} if paired else {})
    model = student(shifting(paired), lambda x, *_: jnp.broadcast_to(SHIFT, x.shape), pool=pairs, pool_steps=2, paired=paired, steps=0)

    @quick
    def everything(key):
        params = model.init(key, batch)
        drawn = model.sample(params, key, 20, **({"x0": x0} if paired else {}))  # type: ignore[misc]
        return params, model.loss(params, key, batch, 0)[0], model.terms(params, key, batch)["loss"], drawn  # type: ignore[misc]

    params, loss, terms, drawn = everything(KEY)
    assert ("pairs" in params["fixed"]) == bool(pairs) and float(loss) < 1e-9 and float(jnp.max(terms)) < 1e-9
    start = drawn["x0"] if paired else 2 * drawn["x0"]  # of noise it is e, of pairs it is data
    np.testing.assert_allclose(drawn["x"], start - 2 * SHIFT, rtol=1e-5, atol=1e-5)
    assert (drawn["nfe"] == 1).all()


def test_the_pool_has_the_examples_in_turn_and_the_noise_of_its_seed():
    """The teacher's velocity is x: x(0) = e exp(-1), with the data predicted at t_min by x - t_min v."""
    teacher = diffusion(event=(2,), net=net_of(lambda x, *_: x), embedding=CLOCK, layer=scale(factor=2.0), paired=True)
    x0, context = jax.random.normal(KEY, (5, 2)), jnp.eye(5)
    batch = {"x": jnp.zeros((5, 2)), "x0": x0, "context": context}
    made = reflow(Frozen(teacher, "teacher"), (2,), 0, True, 7, 8)
    pool = made.init(KEY, batch, {})["fixed"]["pairs"]
    np.testing.assert_allclose(pool["x0"], x0[jnp.arange(7) % 5] / 2, rtol=1e-6)
    np.testing.assert_allclose(pool["x"], pool["x0"] * jnp.exp(-0.999) * 0.999, rtol=1e-5)
    np.testing.assert_array_equal(pool["context"], context[jnp.arange(7) % 5])

    teacher = diffusion(event=(2,), net=net_of(lambda x, *_: x), embedding=CLOCK, path=PATHS["ve"](sigma_max=3.0), sigma_data=1.0)
    made = reflow(Frozen(teacher, "teacher"), (2,), 0, False, 400, 8)
    params = made.init(KEY, {"x": jnp.zeros((5, 2))}, {})
    x, e, c = made.draw(params, KEY, {"x": jnp.zeros((300, 2))})
    assert c is None and set(params["fixed"]["pairs"]) == {"x", "seed"} and len(np.unique(x[:, 0])) > 150
    assert 0.85 < float(jnp.std(e)) < 1.15
    # The start is spread(1) e, where the student's noise is e.
    end = e * jnp.sqrt(10.0) * jnp.exp(-0.999)
    ratio = x / end
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)
    fresh = made.fresh(params, KEY, {"x": jnp.zeros((300, 2))})
    np.testing.assert_allclose(fresh[0] / fresh[1], (x / e)[0, 0], rtol=1e-3)


def test_two_parameters_of_rounds_share_the_first_ones_coordinates():
    first = shifting()
    second = student(first, lambda x, *_: x, pool=4, pool_steps=1)
    third = student(second, lambda x, *_: x, pool=4, pool_steps=1)
    params = jax.jit(third.init)(KEY, {"x": jnp.ones((3, 2))})
    assert third.dynamics is not None
    np.testing.assert_allclose(third.dynamics.pull(params, jnp.ones((3, 2)))[0], 0.5)
    np.testing.assert_allclose(third.dynamics.push(params, jnp.ones((3, 2))), 2.0)
    np.testing.assert_allclose(third.dynamics.pull(params, jnp.ones((3, 2)))[1], -2 * np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(layer=scale(factor=2.0)), "model.layer, model.flatten, model.dequantize and model.coupling are the teacher's"),
        (dict(dequantize="none"), "model.layer, model.flatten, model.dequantize and model.coupling are the teacher's"),
        (dict(coupling=exact()), "model.layer, model.flatten, model.dequantize and model.coupling are the teacher's"),
        (dict(paired=True), "model.teacher starts from noise, and its student from the x0 of data"),
        (dict(event=(3,)), r"model.teacher is of data with event=\(2,\), levels=0, not event=\(3,\)"),
        (dict(teacher=Frozen(shifting(), "teacher", train=True)), "model.teacher.train=True is invalid"),
        (dict(teacher=Frozen(flow(event=(2,), layer=scale(factor=1.0)), "teacher")), "must be a continuous-time model"),
        (dict(teacher=None, path=PATHS["fourier"]()), "model.path is a learned path, which needs model.objective='quadratic'"),
    ],
)
def test_wrong_arguments_are_one_line(options, message):
    with pytest.raises(UserError, match=message):
        diffusion(**(dict(event=(2,), net=mlp(hidden=()), teacher=Frozen(shifting(), "teacher")) | options))


SMALL = (
    *("--config.data.size=300", "--config.data.batch=32", "--config.parts.net.hidden=8", "--config.train.steps=6"),
    *("--config.train.log_every=2", "--config.train.eval_every=6", "--config.train.checkpoint_every=3"),
    *("--config.eval.measures=transport,terms", "--config.eval.examples=64"),
)


def configured(name: str, *words: str):
    """A row's config with overrides --config.KEY=VALUE."""
    c = complete(load(name))
    for word in words:
        override(c, *word.removeprefix("--config.").split("=", 1))
    return c


POOL = ("--config.model.pool=40", "--config.model.pool_steps=2")


def test_a_round_through_the_commands(tmp_path):
    """A run that stopped resumes to the same bits without its teacher, and is the teacher of the next round; one evaluation per sample."""
    one, two = tmp_path / "one", tmp_path / "two"
    c = configured("configs/densities.py:moons_rectified_flow", *SMALL)
    x = setup.make_experiment(c)
    write_run(one, x.config, setup.init_params(x)[0])
    words = ("--config=configs/densities.py:moons_reflow", *SMALL, *POOL, f"--config.model.teacher={one}", f"--workdir={two}")
    train_only(*words)
    whole = state(two)
    shutil.rmtree(one)
    shutil.rmtree(two / "checkpoints" / "last" / "6")
    train_only(*words)
    for name, leaf in state(two).items():
        np.testing.assert_array_equal(leaf, whole[name], err_msg=name)
    call("sample", f"--workdir={two}", "--config.sample.steps=0", "--config.sample.n=5")
    assert (np.load(two / "samples.npz")["nfe"] == 1).all()
    assert "50 trajectories from noise" in call("diagnose", f"--workdir={two}", "--measures=transport", "--examples=50")
    c = frozen.resolved(configured("configs/densities.py:moons_reflow", *SMALL, *POOL, f"--config.model.teacher={two}"))
    x = setup.make_experiment(c)
    params = jax.eval_shape(x.model.init, KEY, setup.first_batch(x))
    assert params["fixed"]["teacher"]["fixed"]["teacher"]["net"].keys() == params["net"].keys()


def test_init_sees_as_many_examples_as_there_are_pairs():
    c = load("configs/transfer.py:moons_8gaussians_reflow")
    with c.unlocked():
        c.data.update(batch=8, size=80)
        c.model.update(pool=100, pool_steps=1)
        c.parts.net.hidden = (8,)
        c.optim.warmup = 0
    x = setup.make_experiment(c)
    fixed = setup.init_params(x)[0]["fixed"]
    layer, x0 = fixed["teacher"]["fixed"]["layer"], np.asarray(x.source.train.x0)
    assert len(x0) == 80 and x.model.dynamics is not None
    want = x.model.dynamics.pull({"fixed": fixed}, jnp.asarray(x0))[0]
    assert set(layer) == {"shift", "log_scale"}
    np.testing.assert_allclose(fixed["pairs"]["x0"], want[np.arange(100) % 80], rtol=1e-5)
