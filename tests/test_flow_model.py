"""Flow models: variational dequantisation, mixtures of flows, kinds that need no part."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import FLOW, KEY, PARTS, case, config, quick
from vaeflow.bijectors import Layer
from vaeflow.bijectors.actnorm import actnorm
from vaeflow.build import build
from vaeflow.errors import UserError
from vaeflow.models import MODELS, build_model
from vaeflow.models.flow import flow
from vaeflow.models.parts.bases import normal
from vaeflow.models.parts.dequantize import make_dequantizer

GREY = FLOW | dict(event=(2,), levels=4, dequantize="variational", dequantizer="layer", layer="box", base="square")
BOX = dict(box=dict(kind="scale", factor=4.0), square=dict(kind="uniform"))
IMAGES = dict(
    convnet=dict(kind="convnet", channels=(4,)),
    pixels=dict(kind="affine_coupling", net="convnet", mask="checkerboard", flip=True),
    mlps=dict(kind="affine_coupling", net="net", mask="checkerboard", flip=True),
)


def model(values, **parts):
    c = config("flow", values).unlock()
    c.parts.update(parts)
    return build_model(c)


def noisy(params, scale: float = 0.3):
    leaves, tree = jax.tree.flatten(params)
    return tree.unflatten([a + scale * jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)])


def test_variational_dequantisation_is_a_density_on_every_cell():
    """E_q[1 / q(u|x)] over u in a box is the box's volume. (Over the whole cell the variance is infinite: q's tails are a normal's.)"""
    layer, x = build(PARTS, "layer", Layer), jnp.array([[0, 3], [1, 2], [3, 3]])
    q = make_dequantizer("variational", 4, (2,), (2,), layer)

    @quick
    def draws(keys):
        params = noisy(q.init(KEY, x), 0.15)
        return jax.vmap(lambda key: q.draw(params, key, x))(keys)

    y, log_q = (np.asarray(a) for a in draws(jax.random.split(KEY, 6000)))
    u = y - np.asarray(x)
    assert u.min() > 0 and u.max() < 1 and log_q.std(0).min() > 0.1  # q is not the uniform one
    w = np.exp(-log_q) * ((u > 0.1) & (u < 0.9)).all(-1)
    assert (np.abs(w.mean(0) - 0.64) < 5 * w.std(0) / np.sqrt(len(w))).all()


def test_the_noise_of_a_pixel_depends_on_the_image():
    values = GREY | dict(event=(4, 4, 1), dequantizer="pixels", layer="box", base="normal", flatten=False)
    m = model(values, **BOX, **IMAGES)
    x = jax.random.randint(KEY, (2, 4, 4, 1), 0, 4)
    params = noisy(m.init(KEY, {"x": x}))
    grads = jax.grad(lambda p: m.loss(p, KEY, {"x": x}, 0)[0])(params)
    assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(grads["dequantizer"]))
    assert set(params) == {"dequantizer"}
    with pytest.raises(UserError, match="images need a convolutional one"):
        jax.eval_shape(model(values | dict(dequantizer="mlps"), **BOX, **IMAGES).init, KEY, {"x": x})


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(dequantizer=""), "model.dequantize='variational' needs a layer"),
        (dict(dequantize="uniform"), "has no use for one"),
        (dict(dequantizer="norm"), "keeps statistics"),
        (dict(levels=0), "does not fit model.levels=0"),
        (dict(base="norml"), r"model.base='norml' is unknown .did you mean 'norm.*known: .*logistic"),
    ],
)
def test_wrong_flows_are_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        model(GREY | changes, **BOX)


def test_a_mixture_is_the_weighted_sum_of_its_flows():
    c = case("flow_mixture", 0)
    one = model(FLOW)
    weights = jax.nn.log_softmax(c.params["weights"])
    parts = [one.log_prob(jax.tree.map(lambda a, k=k: a[k], c.params["components"]), KEY, c.batch) + weights[k] for k in range(3)]
    np.testing.assert_allclose(c.out["log_prob"], jax.nn.logsumexp(jnp.stack(parts), 0), rtol=1e-5)


def test_a_mixtures_samples_choose_their_component():
    """Three scaled Gaussians, far apart in scale."""
    values = dict(MODELS["flow_mixture"].examples[0]) | dict(event=(1,), layer="nice_scaling")
    m = build_model(config("flow_mixture", values))
    params = m.init(KEY, {"x": jax.random.normal(KEY, (8, 1))})
    params["components"] = jax.tree.map(lambda a: jnp.array([-7.0, 0.0, 7.0]).reshape(a.shape), params["components"])
    params["weights"] = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    size = np.abs(np.asarray(m.sample(params, KEY, 4000)["x"]))
    share = [(size < 0.01).mean(), (size > 10).mean()]
    np.testing.assert_allclose(share, [0.2, 0.3], atol=0.04)


@pytest.mark.parametrize("base", ["logistic", "gaussian_mixture"])
def test_every_kind_that_requires_no_argument_is_its_own_part(base):
    c = config("flow", FLOW | dict(layer="actnorm", base=base)).unlock()
    c.parts = {}
    m = build_model(c)
    x = jax.random.normal(KEY, (64, 4))
    params = m.init(KEY, {"x": x})
    assert np.isfinite(m.log_prob(params, KEY, {"x": x})).all()  # type: ignore[misc]


@pytest.mark.parametrize("event, levels, dequantize", [((3,), 0, "none"), ((3,), 4, "uniform"), ((2, 2, 1), 4, "uniform")])
def test_the_defaults_follow_the_data(event, levels, dequantize):
    """A vector is not changed by `flatten`; an image becomes one."""
    explicit: dict[str, Any] = dict(base=normal(), dequantize=dequantize, flatten=len(event) > 1, temperature=1.0)
    x = jax.random.randint(KEY, (8, *event), 0, 4) if levels else jax.random.normal(KEY, (8, *event))

    def values(m):
        params = m.init(KEY, {"x": x})
        return params, m.log_prob(params, KEY, {"x": x}), m.sample(params, KEY, 5)["x"]

    found = values(flow(event=event, levels=levels, layer=actnorm()))
    jax.tree.map(np.testing.assert_array_equal, found, values(flow(event=event, levels=levels, layer=actnorm(), **explicit)))
