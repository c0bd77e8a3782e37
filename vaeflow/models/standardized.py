"""Any model of continuous data, on standardised coordinates: the mean and the standard deviation of the training data are part of it.

    y_d = (x_d - m_d) / s_d,        log p(x|c) = log p_y(y|c) - sum_d log s_d

m and s are those of the batch that `init` sees, of up to INIT examples of the training split, and stay fixed. Everything that the model
gives is of the data as loaded.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Batch, Model, Params, overlay
from vaeflow.record import recorded

INIT = 1 << 17  # examples of which m and s are taken
_INNER = 512  # examples that the inner model's init sees
_LEAST = 1e-6  # of s_d, relative to the largest |x_d|: below it is rounding, and a constant column keeps its size


@recorded
def standardized(*, model: Model) -> Model:
    """See the module's docstring. Parameters: model, and fixed: shift m and log_scale log s [*event].

    Args:
        model: of continuous data, without a latent (`vae`s have a likelihood on the scale of the data) and without pairs.

    Raises:
        UserError: the model has grey values, a latent or pairs.

    Example:
        standardized(model=flow(event=(2,), layer=affine_coupling(net=mlp(), mask="half")))
    """
    if why := reason(model):
        raise UserError(f"model.model: standardized needs a model of continuous data without latents and pairs; this one has {why}")
    nll = model.log_prob is not None and model.dynamics is None  # its loss is a likelihood, in nats

    def to_model(params: Params, x: Array) -> Array:
        return (x - params["fixed"]["shift"]) * jnp.exp(-params["fixed"]["log_scale"])

    def to_data(params: Params, y: Array) -> Array:
        return y * jnp.exp(params["fixed"]["log_scale"]) + params["fixed"]["shift"]

    def inner(params: Params, batch: Batch) -> Batch:
        return {**batch, "x": to_model(params, batch["x"])}

    def init(key, batch, given=NO_PARAMS):
        x = batch["x"]
        scale = jnp.std(x, 0)
        scale = jnp.where(scale > _LEAST * jnp.max(jnp.abs(x), 0), scale, 1.0)
        params = overlay({"fixed": {"shift": jnp.mean(x, 0), "log_scale": jnp.log(scale)}}, given)
        some = jax.tree.map(lambda a: a[: model.init_examples or _INNER], dict(batch))
        return params | {"model": model.init(key, inner(params, some), given.get("model", NO_PARAMS))}

    def loss(params, key, batch, step):
        value, metrics = model.loss(params["model"], key, inner(params, batch), step)
        if not nll:
            return value, metrics
        total = value + jnp.sum(params["fixed"]["log_scale"])
        return total, {**metrics, "loss": total}

    def sample(params, key, n, context=None, **given):
        assert model.sample is not None
        given = {name: to_model(params, value) for name, value in given.items()}  # the reference of an edit
        found = model.sample(params["model"], key, n, context, **given)
        return {name: to_data(params, a) if name in ("x", "known", "noised") else a for name, a in found.items()}

    def plus(fn, sign):
        """fn(params, key, batch) of the model, plus sign sum_d log s_d."""
        return lambda params, key, batch: fn(params["model"], key, inner(params, batch)) + sign * jnp.sum(params["fixed"]["log_scale"])

    def of(fn):
        return fn and (lambda params, key, batch: fn(params["model"], key, inner(params, batch)))

    def continuous(params, y, context=None):
        assert model.continuous is not None
        return model.continuous(params["model"], to_model(params, y), context) - jnp.sum(params["fixed"]["log_scale"])

    def update(params, key, batch, step):
        assert model.update is not None
        return params | {"model": model.update(params["model"], key, inner(params, batch), step)}

    changed: dict[str, Any] = dict(init=init, loss=loss, sample=model.sample and sample, init_examples=max(INIT, model.init_examples))
    changed |= dict(log_prob=model.log_prob and plus(model.log_prob, -1), energy=model.energy and plus(model.energy, 1))
    changed |= dict(encode=of(model.encode), terms=of(model.terms))
    changed |= dict(continuous=model.continuous and continuous, update=model.update and update)
    return model._replace(**changed, dynamics=model.dynamics and _dynamics(model.dynamics, to_model, to_data))


def reason(model: Model) -> str:
    """What a model has that `standardized` does not allow; "" if it allows the model."""
    found = {"grey values": model.levels, "a latent": model.latent, "pairs": model.paired, "masks": model.masked, "groups": model.optim}
    return next((name for name, has in found.items() if has), "" if model.event is not None else "no event")


def _dynamics(own: Any, to_model: Any, to_data: Any) -> Any:
    """The Dynamics of the model, whose coordinates stay, of data as loaded."""

    def pull(params, y):
        x, log_det = own.pull(params["model"], to_model(params, y))
        return x, log_det - jnp.sum(params["fixed"]["log_scale"])

    def push(params, x):
        return to_data(params, own.push(params["model"], x))

    predictor = own.predictor and (lambda params, c: own.predictor(params["model"], c))
    return own._replace(pull=pull, push=push, velocity=lambda params, c: own.velocity(params["model"], c), predictor=predictor)


EXAMPLES = (dict(model="plain_flow"), dict(model="plain_diffusion"))
