"""Hierarchical VAE of any depth, inferred from the top down along the generative path (Sonderby et al. 2016; in small Child 2021, VDVAE).

    p(z) = prod_l p(z_l | z_>l)      q(z|x) = prod_l q(z_l | z_>l, x)      p(x|z)           z_1 next to the data, z_L the top

Every conditional is a diagonal Gaussian. One deterministic path of features runs from the top to the data, takes in every z_l and gives the
moments of the next p, and with the features of a path up from x those of the next q: nets/ladder.py has both paths. So one pass gives
z ~ q(z|x), both log-densities and p(x|z), and the path up, which no draw changes, runs once for any number of draws.

    loss = E_q[-log p(x|z) + sum_l KL_l],     KL_l = KL(q(z_l|z_>l, x) || p(z_l|z_>l)) by its formula, at the z_>l drawn

or any other of OBJECTIVES for reparameterised latents (`objective`, vaeflow/objectives). Metrics: those of the objective and every KL_l as
kl_l, in nats. The latent is one vector z = [z_1 | ... | z_L]; a level of an image's
scale has its pixels and channels in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated, Any, Literal

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import objectives
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative, Positive
from vaeflow.distributions import Distribution, Joint, Likelihood, Std, std_of
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Latent, Model, overlay
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import bound_terms, check_objective
from vaeflow.nets.ladder import Down, LadderSizes, Moments, Pass, Up
from vaeflow.nets.net import Activation, Dtype
from vaeflow.objectives import Draws, Objective
from vaeflow.record import recorded


@recorded
def ladder(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    strides: tuple[Count, ...] = (2, 2, 2),
    blocks: tuple[Count, ...] = (1, 1, 1),
    latents: tuple[Count, ...] = (1, 4, 8),
    width: Count = 32,
    kernel: Count = 3,
    activation: Activation = "gelu",
    dtype: Dtype = "float32",
    posterior: Literal["joint", "weighted"] = "joint",
    std: Std = "softplus",
    std_bound: Positive = 10.0,
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    objective: Annotated[Objective | None, Bare("elbo")] = None,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event, levels  as in vae.py, as are std, likelihood, objective, whose KL is by levels: free bits are nats per level; events are
                   vectors [D] or images [H, W, C]
    strides        one a scale, from the data up: how many times coarser a scale is than the one below
    blocks         levels at each scale, and residual blocks on its way up
    latents        channels of a level at a pixel, one number a scale: a level has H W latents[s] dimensions
    width          features a pixel; kernel: of the convolutions where there is more than one pixel
    posterior      joint: the moments of q from both paths' features; weighted: the precision-weighted mean of p's and the way up's
    temperature    of `sample`: factor on every standard deviation of p(z)
    """
    if not strides or len({len(strides), len(blocks), len(latents)}) > 1:
        raise UserError(
            f"model.strides={strides}, blocks={blocks} and latents={latents} need one number for each scale, and one scale at least"
        )
    if len(event) not in (1, 3):
        raise UserError(f"model.event={event}: a ladder is for vectors [D] and images [H, W, C]")
    objective = objective or objectives.OBJECTIVES["elbo"]()
    check_objective(objective, "a ladder")
    data = observation_model(event, levels, likelihood, likelihood_std)
    image: Any = event if len(event) == 3 else (1, 1, *event)
    deviation = functools.partial(std_of, std, bound=std_bound)
    plan = LadderSizes(image, strides, blocks, latents, width, kernel, activation, dtype, deviation, posterior == "weighted")
    up, down = Up(plan), Down(plan, data.out[: len(data.out) - len(event)])
    sizes, dimensions = plan.sizes(), sum(plan.sizes())

    def by_level(a: Array) -> Array:
        """[..., D] -> the sums over the levels [..., L]."""
        return jnp.stack([part.sum(-1) for part in jnp.split(a, np.cumsum(sizes)[:-1], axis=-1)], axis=-1)

    def log_density(z: Array, moments: Moments | None, noise: Any = 1.0) -> Array:
        assert moments is not None
        return by_level(jnp.asarray(distrax.Normal(moments[0], noise * moments[1]).log_prob(z)))

    def features(params, x, context) -> Any:
        scaled = data.scaled(x)
        return up.apply({"params": params["up"]}, scaled.reshape(*scaled.shape[: -len(event)], *image), context)

    def walk(params, value, found, context, noise: bool) -> Pass:
        """The way down; see Down."""
        return down.apply({"params": params["down"]}, value, found, context, noise)  # type: ignore[return-value]

    def given(way: Pass) -> Distribution:
        return data.given(way.out.reshape(*way.z.shape[:-1], *data.out))

    def posterior_of(params, x, context=None) -> Joint:
        return posterior_from(params, features(params, x, context), context)

    def posterior_from(params, found, context) -> Joint:
        batch = found[0].shape[:-3]

        def draw(key, n):
            way = walk(params, jax.random.normal(key, (n, *batch, dimensions)), found, context, True)
            return way.z, log_density(way.z, way.q)

        def terms(z):
            return log_density(z, walk(params, z, found, context, False).q)

        return Joint(draw, terms, sizes, batch)

    def prior_of(params, context=None, noise=1.0) -> Joint:
        batch = () if context is None else context.shape[:-1]

        def draw(key, n):
            way = walk(params, noise * jax.random.normal(key, (n, *batch, dimensions)), None, context, True)
            return way.z, log_density(way.z, way.p, noise)

        def terms(z):
            return log_density(z, walk(params, z, None, context, False).p, noise)

        return Joint(draw, terms, sizes, batch)

    def likelihood_of(params, z, context=None) -> Distribution:
        return given(walk(params, z, None, context, False))

    def draws_of(params, key, x, context, k) -> Draws:
        """The walk that draws z gives every density at it; other z have a walk of their own."""
        found = features(params, x, context)
        way = walk(params, jax.random.normal(key, (k, len(x), dimensions)), found, context, True)
        assert way.q is not None
        kl: Any = distrax.Normal(*way.q).kl_divergence(distrax.Normal(*way.p))

        def at_draws(known: Callable[[], Array], other: Callable[[Array], Array]) -> Callable[[Array], Array]:
            return lambda z: known() if z is way.z else other(z)

        p = prior_of(params, context)
        return Draws(
            z=way.z,
            log_q=jnp.sum(log_density(way.z, way.q), axis=-1),
            log_x=at_draws(lambda: given(way).log_prob(x), lambda z: likelihood_of(params, z, context).log_prob(x)),
            log_z=at_draws(lambda: jnp.sum(log_density(way.z, way.p), axis=-1), p.log_prob),
            log_q_path=lambda z: posterior_of(jax.lax.stop_gradient(params), x, context).log_prob(z),
            kl=jnp.mean(by_level(kl), axis=0).T,
            group_size=1,
            q=posterior_from(params, found, context),
            prior=lambda key: p.sample(seed=key, sample_shape=() if p.batch_shape else (len(x),)),
            x=data.scaled(x),
            context=context,
        )

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        key_up, key_down = jax.random.split(key)
        params = overlay({"up": up.init(key_up, data.scaled(x).reshape(len(x), *image), context)["params"]}, given)
        value = jnp.zeros((len(x), dimensions))
        params["down"] = down.init(key_down, value, features(params, x, context), context, True)["params"]
        params = overlay(params, given)
        if objective.init is None:
            return params
        key_z, key_own = jax.random.split(jax.random.fold_in(key, 1))
        return overlay(params | {"objective": objective.init(key_own, draws_of(params, key_z, x, context, 1))}, given)

    def loss(params, key, batch, step):
        draws = draws_of(params, key, batch["x"], batch.get("context"), objective.k)
        total, metrics = objective.loss(params.get("objective", {}), jax.random.fold_in(key, 1), draws, step)
        assert draws.kl is not None
        levels_of = jnp.mean(draws.kl, axis=-1)  # [L]
        return total, metrics | {f"kl_{i + 1}": levels_of[i] for i in range(len(levels_of))}

    def log_prob(params, key, batch):
        x, context = batch["x"], batch.get("context")
        noise = jax.random.normal(jax.random.split(key, 3)[0], (len(x), dimensions))
        way = walk(params, noise, features(params, x, context), context, True)
        levels_of = log_density(way.z, way.p) - log_density(way.z, way.q)
        return given(way).log_prob(x) + jnp.sum(levels_of, axis=-1)

    def sample(params, key, n, context=None):
        key_z, key_x = jax.random.split(key)
        noise = temperature * jax.random.normal(key_z, (n, dimensions))
        way = walk(params, noise, None, context, True)
        return {"x": data.show(key_x, given(way)), "z": way.z}

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight",
        latent=Latent(prior_of, posterior_of, likelihood_of, show=data.show),
        terms=bound_terms(log_prob, objective),
        note=data.note,
        event=event,
        levels=levels,
    )


_SMALL = dict(strides=(2, 3), blocks=(1, 2), latents=(1, 2), width=4)
_EXAMPLE = _SMALL | dict(event=(5, 5, 2), levels=17, likelihood="discretized_logistic", objective="free_bits")
_VECTORS = _SMALL | dict(event=(6,), strides=(1, 1), latents=(3, 2), posterior="weighted", likelihood="gaussian_learned")
EXAMPLES = (
    _EXAMPLE,
    _VECTORS | dict(likelihood_std=0.3, objective="two_draws"),
    _VECTORS | dict(likelihood_std=0.3, objective="iwae_path"),
)
