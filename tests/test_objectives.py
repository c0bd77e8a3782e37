"""Laws over OBJECTIVES, which a new kind meets by being registered: in every family that it suits its loss is finite, is what it says and
has a gradient; its bound is one. Required arguments get values by their annotations."""

from __future__ import annotations

from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.model_cases import KEY, MLP, config, quick
from vaeflow.build import maker, numeric, required, signature
from vaeflow.errors import UserError
from vaeflow.models import build_model
from vaeflow.nets import NETS, Net
from vaeflow.objectives import OBJECTIVES, SCHEDULES, Objective, Schedule, elbo, kinds_for
from vaeflow.schema import complete

NETWORKS = dict(encoder="net", decoder="net")
FAMILIES = {
    "vae": dict(event=(6,), levels=2, latent=3, **NETWORKS),
    "layered": dict(event=(6,), levels=2, latents=(3, 2), encoders=("net", "net"), decoders=("net", "net")),
    "ladder": dict(event=(6,), levels=2, strides=(1,), blocks=(2,), latents=(2,), width=4),
    "discrete_vae": dict(event=(6,), levels=2, variables=3, categories=2, prior="learned", **NETWORKS),
}
BATCH = {"x": jax.random.bernoulli(KEY, 0.5, (8, 6)).astype(jnp.uint8)}


def value(hint: Any, number: float = 0.5) -> Any:
    """A value of an annotation, and its form in a config."""
    if numeric(hint):
        return 3 if int in (hint, *get_args(hint)) else number
    return "net"


def arguments(make: Any) -> dict[str, Any]:
    """Values of a maker's required arguments as a config has them."""
    return {key: value(signature(make)[key]) for key in required(make)}


def objective(kind: str) -> Objective:
    net = NETS["mlp"](**{key: value for key, value in MLP.items() if key != "kind"})
    make = maker(OBJECTIVES[kind])
    return make(**{key: net if signature(make)[key] is Net else found for key, found in arguments(make).items()})


def suits(kind: str, family: str) -> bool:
    one = objective(kind)
    return one.discrete == (family == "discrete_vae") and (not one.gaussian or family == "vae")


def model(kind: str, family: str) -> Any:
    c = config(family, FAMILIES[family] | dict(objective="objective")).unlock()
    c.parts.objective = dict(kind=kind, **arguments(maker(OBJECTIVES[kind])))
    return build_model(c)


@pytest.mark.parametrize("kind, family", [(kind, family) for kind in OBJECTIVES for family in FAMILIES if suits(kind, family)])
def test_the_loss_is_finite_and_has_a_gradient(kind, family):
    made, one = model(kind, family), objective(kind)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(made.init, KEY, BATCH)  # to compile it takes longer than the loss
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes)

    @quick
    def everything(params, key):
        found = jax.value_and_grad(made.loss, has_aux=True)(params, key, BATCH, 3)
        return found, {} if made.terms is None else made.terms(params, key, BATCH)

    ((loss, metrics), grads), terms = everything(params, KEY)
    assert np.isfinite(loss) and metrics["loss"] == loss and {"recon", "kl"} <= metrics.keys()
    assert all(np.shape(v) == () and np.isfinite(v) for v in metrics.values())
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert all(np.abs(jnp.concatenate([g.ravel() for g in jax.tree.leaves(tree)])).max() > 0 for tree in grads.values())
    assert ("objective" in params) == (one.init is not None)
    assert (made.terms is None) == (one.bound is None) and all(np.isfinite(v).all() and v.shape == (8,) for v in terms.values())
    if family in ("layered", "ladder"):
        assert {"kl_1", "kl_2"} <= metrics.keys()


@pytest.mark.parametrize("kind, family", [(kind, family) for kind in OBJECTIVES for family in FAMILIES if not suits(kind, family)])
def test_what_does_not_suit_a_family_is_one_line_that_names_both(kind, family):
    with pytest.raises(UserError) as error:
        model(kind, family)
    message = str(error.value)
    assert "\n" not in message and f"model.objective: {kind!r}" in message and f"a {family}" in message


@pytest.mark.parametrize("kind", [kind for kind in OBJECTIVES if objective(kind).bound is not None])
def test_a_bound_lies_between_the_elbo_and_the_best_draw_and_is_the_loss(kind):
    """The loss at draws of the model and minus the bound of their log-weights are one number."""
    bound = objective(kind).bound
    assert bound is not None
    log_w = 3 * jax.random.normal(KEY, (5, 16)) - 100
    assert (elbo(log_w) <= bound(log_w) + 1e-4).all() and (bound(log_w) <= log_w.max(0) + 1e-4).all()
    family = "discrete_vae" if kind in kinds_for(discrete=True) else "vae"
    made, k = model(kind, family), objective(kind).k

    @quick
    def both(key):
        params = made.init(key, BATCH)
        key_z = jax.random.split(key)[0] if family == "discrete_vae" else jax.random.split(key, 3)[0]
        z, log_q = made.latent.posterior(params, BATCH["x"]).sample_and_log_prob(seed=key_z, sample_shape=(k,))
        log_w = made.latent.likelihood(params, z).log_prob(BATCH["x"]) + made.latent.prior(params).log_prob(z) - log_q
        return made.loss(params, key, BATCH, 0)[0], -jnp.mean(bound(log_w))

    loss, expected = both(KEY)
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_is_finite_from_the_first_step_to_the_last(kind):
    make = maker(SCHEDULES[kind])
    schedule = make(**arguments(make))
    assert isinstance(schedule, Schedule)
    found = jax.jit(jax.vmap(schedule.at))(jnp.array([0, 1, 10, 10_000_000]))
    assert np.isfinite(found).all() and (found >= 0).all()


def test_weights_may_be_traced():
    """Cells of a table that differ in a marked number train in one program."""
    x = BATCH["x"]
    params = model("elbo", "vae").init(KEY, {"x": x})

    def loss(beta):
        return build_model(complete(config("vae", FAMILIES["vae"])), {"parts.elbo.beta": beta}).loss(params, KEY, {"x": x}, 0)[1]

    found = quick(jax.vmap(loss))(jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(found["loss"], found["recon"] + jnp.array([0.5, 2.0]) * found["kl"], rtol=1e-5)
