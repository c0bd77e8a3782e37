"""Density: a learned p(y|c) over continuous y, as pure functions, and the two ways to make one: the image of a base under a Layer, and a
mixture of such. `model_of` puts data around it. `ode_density`: that of a continuous-time model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Layer, at_rank
from vaeflow.diffusion.ode import log_density
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Batch, Model, Params, overlay
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.dequantize import Dequantizer


class Density(NamedTuple):
    """y [B, *shape], context [B, C] or None.

    init      (key, y, context) -> params
    log_prob  (params, y, context, key=None, train=False) -> [B]
    sample    (params, key, n, context, temperature=1.0, train=False) -> (y [n, *shape], log p(y) [n]; of temperature 1 only; what else is
              known of the draws, {name: [n, ...]})
    encode    (params, y, context) -> z, or None
    update    (params, y, context) -> params, or None       sets "stats" leaves
    """

    init: Callable[..., Params]
    log_prob: Callable[..., Array]
    sample: Callable[..., tuple[Array, Array, dict[str, Array]]]
    encode: Callable[..., Array] | None
    update: Callable[..., Params] | None


def pushforward(layer: Layer, base: Base, shape: tuple[int, ...], guidance: float = 1.0) -> Density:
    """y = f(z), z ~ base: log p(y|c) = log base(f^-1(y)|c) + log |det d f^-1 / dy|. The base's shape is what f^-1 maps an event to.

    Samples know their density without an inversion: log p(f(z)) = log base(z) - log_det. guidance: an option of the layer in sampling.
    """

    def bijector(params, context, key=None, train=False, guidance=1.0):
        return at_rank(layer.bijector(params.get("layer", {}), context=context, key=key, train=train, guidance=guidance), len(shape))

    def init(key, y, context):
        _, key_f, key_base = jax.random.split(key, 3)
        params = {"layer": layer.init(key_f, y, context)}
        z = jax.eval_shape(bijector(params, context).inverse, y)
        params["base"] = base.init(key_base, z.shape[1:], context)
        return {name: own for name, own in params.items() if own}  # no empty branch: splitting and merging the tree would lose it

    def log_prob(params, y, context, key=None, train=False):
        z, log_det = bijector(params, context, key, train).inverse_and_log_det(y)
        return base.log_prob(params.get("base", {}), z, context) + log_det

    def sample(params, key, n, context, temperature=1.0, train=False):
        f = bijector(params, context, jax.random.fold_in(key, 1), train, guidance)
        # No example is at hand: the base's shape is that of f^-1(y), found without computing it.
        z = jax.eval_shape(f.inverse, jnp.zeros((n, *shape)))
        z = base.sample(params.get("base", {}), key, n, z.shape[1:], temperature, context)
        y, log_det = f.forward_and_log_det(z)
        return jnp.asarray(y), base.log_prob(params.get("base", {}), z, context) - log_det, {"z": z}

    def encode(params, y, context):
        return jnp.asarray(bijector(params, context).inverse(y))

    def update(params, y, context):
        return params | {"layer": layer.update(params["layer"], y, context)}  # type: ignore[misc]

    return Density(init, log_prob, sample, encode, update if layer.update else None)


def mixture(density: Density, k: int) -> Density:
    """p(y|c) = sum_k pi_k p_k(y|c), pi = softmax(weights): k copies with stacked parameters [k, ...], mapped in one program.

    Every component begins with the B // k (at least 2) examples nearest to one of its own, so that data-dependent layers start apart.
    """

    def init(key, y, context):
        own, pick = jax.random.split(jax.random.fold_in(key, 1))  # apart from the noise that `model_of` draws
        flat = y.reshape(len(y), -1)
        first = flat[jax.random.choice(pick, len(y), (k,), replace=len(y) < k)]
        order = jnp.argsort(jnp.sum((flat - first[:, None]) ** 2, axis=-1), axis=-1)[:, : max(len(y) // k, min(len(y), 2))]

        def component(key, rows):
            return density.init(key, y[rows], None if context is None else context[rows])

        return {"weights": jnp.zeros(k), "components": jax.vmap(component)(jax.random.split(own, k), order)}

    def joint(params, y, context, key=None, train=False):
        def component(params, key):
            return density.log_prob(params, y, context, key, train)

        keys = None if key is None else jax.random.split(key, k)
        return jax.vmap(component)(params["components"], keys) + jax.nn.log_softmax(params["weights"])[:, None].astype(y.dtype)

    def log_prob(params, y, context, key=None, train=False):
        return jax.nn.logsumexp(joint(params, y, context, key, train), axis=0)

    def sample(params, key, n, context, temperature=1.0, train=False):
        which, own = jax.random.split(key)

        def component(params, key):
            return density.sample(params, key, n, context, temperature, train)[0]

        every = jax.vmap(component)(params["components"], jax.random.split(own, k))
        chosen = jax.random.categorical(which, params["weights"], shape=(n,))
        y = every[chosen, jnp.arange(n)]
        return y, log_prob(params, y, context, None, train), {"component": chosen}

    def update(params, y, context):
        one = density.update
        assert one is not None
        return params | {"components": jax.vmap(lambda own: one(own, y, context))(params["components"])}

    return Density(init, log_prob, sample, None, update if density.update else None)


def ode_density(
    pull: Callable[[Params, Array], tuple[Array, Array]],
    velocity: Callable[[Params, Array | None], Callable[[Array, Array], Array]],
    spread: Callable[[Array | float], Array],
    t_min: float,
    t_max: float,
    solving: Mapping[str, Any],
) -> Callable[[Params, Array | None, Array, Array | None], Array]:
    """(params, key, y [B, *shape], c [B, K] or None) -> log p(y|c) [B] of the ODE from N(0, spread(t_max)^2 I); key None: exact trace.

    pull: (params, y) -> (x [B, *shape], log |det dx/dy| [B]), where the ODE runs. velocity: (params, c [K] or None) -> (t, x) -> dx/dt.
    solving: of the solver, see vaeflow/diffusion/ode.py.
    """

    def density(params, key, y, c):
        x, log_det = pull(params, y)
        r = spread(t_max)

        def one(x, c, key):
            def source(e):
                return jnp.sum(jax.scipy.stats.norm.logpdf(e, 0, r.astype(e.dtype)))

            return log_density(velocity(params, c), x, t_min, t_max, source, key=key, exact=0, **solving)[0]

        return jax.vmap(one)(x, c, None if key is None else jax.random.split(key, len(x))) + log_det

    return density


def model_of(density: Density, grey: Dequantizer, event: tuple[int, ...], levels: int, temperature: float, shape: tuple[int, ...]) -> Model:
    """The Model of a Density of y [B, *shape]: trained by maximum likelihood of the dequantised data; parameters of both side by side.

    A data-dependent density is initialised on data from the given dequantizer. Inside the density a given layer of a chain does not
    change how the chain's later layers are initialised: they see the initial values of the layers before them.
    """

    def draw(params, key, batch, train):
        key_u, key_f = jax.random.split(key)
        y, log_q = grey.draw(params.get("dequantizer", {}), key_u, batch["x"], train)
        return density.log_prob(params, y, batch.get("context"), key_f, train) - log_q

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_u, _, _, key_q = jax.random.split(key, 4)
        own = overlay(grey.init(key_q, batch["x"]), given.get("dequantizer", NO_PARAMS))
        y, _ = grey.draw(own, key_u, batch["x"])
        params = density.init(key, y, batch.get("context"))
        return overlay(params | {"dequantizer": own} if own else params, given)

    def loss(params, key, batch, step):
        del step
        total = -jnp.mean(draw(params, key, batch, train=True))
        return total, {"loss": total}

    def log_prob(params, key, batch):
        return draw(params, key, batch, train=False)

    def encode(params, key, batch):
        y, _ = grey.draw(params.get("dequantizer", {}), key, batch["x"])
        return density.encode(params, y, batch.get("context"))  # type: ignore[misc]

    def sample(params, key, n, context=None):
        y, _, found = density.sample(params, key, n, context, temperature)
        return {"x": grey.round(y), **found}

    def update(params, key, batch, step):
        del step
        y, _ = grey.draw(params.get("dequantizer", {}), jax.random.split(key)[0], batch["x"], True)  # the loss's noise
        return density.update(params, y, batch.get("context"))  # type: ignore[misc]

    def continuous(params, y, context=None):
        return density.log_prob(params, y.reshape(len(y), *shape), context)

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight" if levels else "exact",
        encode=encode if density.encode else None,
        update=update if density.update else None,
        continuous=continuous,
        event=event,
        levels=levels,
    )


def fits(event: tuple[int, ...], batch: Batch) -> None:
    """UserError: the batch has events of another shape."""
    if jnp.shape(batch["x"])[1:] != event:
        raise UserError(f"model.event={event} does not fit the data, whose examples have the shape {jnp.shape(batch['x'])[1:]}")
