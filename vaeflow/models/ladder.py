"""Hierarchical VAE of any depth, inferred from the top down along the generative path (Sonderby et al. 2016; in small Child 2021, VDVAE).

    p(z) = prod_l p(z_l | z_>l)      q(z|x) = prod_l q(z_l | z_>l, x)      p(x|z)           z_1 next to the data, z_L the top

Every conditional is a diagonal Gaussian. One deterministic path of features runs from the top to the data, takes in every z_l and gives the
moments of the next p, and with the features of a path up from x those of the next q: nets/ladder.py has both paths. So one pass gives
z ~ q(z|x), both log-densities and p(x|z), and the path up, which no draw changes, runs once for any number of draws.

    loss = E_q[-log p(x|z) + beta(step) sum_l KL_l],     KL_l = KL(q(z_l|z_>l, x) || p(z_l|z_>l)) by its formula, at the z_>l drawn

Metrics: recon, kl = sum_l KL_l and every KL_l as kl_l, in nats. The latent is one vector z = [z_1 | ... | z_L]; a level of an image's
scale has its pixels and channels in it.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, Literal

import distrax
import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import objectives
from vaeflow.build import Count, Natural, NonNegative, Positive, Range
from vaeflow.distributions import Distribution, Joint, Likelihood, Std, std_of
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Latent, Model, overlay
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import check_schedule
from vaeflow.nets.ladder import Down, LadderSizes, Moments, Pass, Up
from vaeflow.nets.net import Activation, Dtype


def ladder(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    strides: tuple[Count, ...],
    blocks: tuple[Count, ...],
    latents: tuple[Count, ...],
    width: Count,
    kernel: Count,
    activation: Activation,
    dtype: Dtype,
    posterior: Literal["joint", "weighted"],
    std: Std,
    std_bound: Positive,
    likelihood: Likelihood,
    likelihood_std: Positive,
    samples: Count,
    beta: NonNegative,
    beta_schedule: objectives.BetaSchedule,
    beta_start: NonNegative,
    beta_steps: Natural,
    beta_ramp: Annotated[float, Range(0, 1, open_low=True)],
    free_bits: NonNegative,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring.

    event, levels  as in vae.py, as are std, likelihood, samples, beta_*; events are vectors [D] or images [H, W, C]
    strides        one a scale, from the data up: how many times coarser a scale is than the one below
    blocks         levels at each scale, and residual blocks on its way up
    latents        channels of a level at a pixel, one number a scale: a level has H W latents[s] dimensions
    width          features a pixel; kernel: of the convolutions where there is more than one pixel
    posterior      joint: the moments of q from both paths' features; weighted: the precision-weighted mean of p's and the way up's
    free_bits      nats a level (objectives.free_bits)
    temperature    of `sample`: factor on every standard deviation of p(z)
    """
    if not strides or len({len(strides), len(blocks), len(latents)}) > 1:
        raise UserError(
            f"model.strides={strides}, blocks={blocks} and latents={latents} need one number for each scale, and one scale at least"
        )
    if len(event) not in (1, 3):
        raise UserError(f"model.event={event}: a ladder is for vectors [D] and images [H, W, C]")
    check_schedule(beta_schedule, beta_steps)
    data = observation_model(event, levels, likelihood, likelihood_std)
    image: Any = event if len(event) == 3 else (1, 1, *event)
    deviation = functools.partial(std_of, std, bound=std_bound)
    plan = LadderSizes(image, strides, blocks, latents, width, kernel, activation, dtype, deviation, posterior == "weighted")
    up, down = Up(plan), Down(plan, data.out[: len(data.out) - len(event)])
    sizes, dimensions = plan.sizes(), sum(plan.sizes())
    beta_of = objectives.beta_schedule(beta_schedule, start=beta_start, end=beta, steps=beta_steps, ramp=beta_ramp)

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
        found = features(params, x, context)
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

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        key_up, key_down = jax.random.split(key)
        params = overlay({"up": up.init(key_up, data.scaled(x).reshape(len(x), *image), context)["params"]}, given)
        value = jnp.zeros((len(x), dimensions))
        params["down"] = down.init(key_down, value, features(params, x, context), context, True)["params"]
        return overlay(params, given)

    def loss(params, key, batch, step):
        x, context = batch["x"], batch.get("context")
        noise = jax.random.normal(key, (samples, len(x), dimensions))
        way = walk(params, noise, features(params, x, context), context, True)
        assert way.q is not None
        recon = -jnp.mean(given(way).log_prob(x))
        kl: Any = distrax.Normal(*way.q).kl_divergence(distrax.Normal(*way.p))
        groups = jnp.mean(by_level(kl), axis=(0, 1))  # [L]
        weight = beta_of(step)
        total = recon + weight * objectives.free_bits(groups, free_bits)
        metrics = {"loss": total, "recon": recon, "kl": jnp.sum(groups), "beta": weight}
        return total, metrics | {f"kl_{i + 1}": groups[i] for i in range(len(sizes))}

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
        note=data.note,
        event=event,
        levels=levels,
    )


_EXAMPLE = dict(event=(5, 5, 2), levels=17, strides=(2, 3), blocks=(1, 2), latents=(1, 2), width=4, kernel=3, activation="gelu")
_EXAMPLE |= dict(dtype="float32", posterior="joint", std="softplus", std_bound=10.0, likelihood="discretized_logistic", likelihood_std=0.3)
_EXAMPLE |= dict(samples=1, beta=1.0, beta_schedule="constant", beta_start=0.0, beta_steps=0, beta_ramp=0.5, free_bits=0.1, temperature=1.0)
_VECTORS = dict(event=(6,), strides=(1, 1), latents=(3, 2), posterior="weighted")
EXAMPLES = (_EXAMPLE, _EXAMPLE | _VECTORS | dict(levels=0, likelihood="gaussian_learned", samples=2, free_bits=0.0))
