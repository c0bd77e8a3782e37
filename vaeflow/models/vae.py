"""Variational autoencoder: diagonal Gaussian posterior, any Layer over it, any Layer over the prior.

    x in the data, z in R^latent, c the context (optional)
    h(x, c) = encoder;  q(z|x) = N(m(h), diag s(h)^2), or its image under a Layer (`posterior`)
    p(z) = N(0, I), or its image under a Layer (`prior`);  p(x|z) from the decoder's output

    loss = E_q[-log p(x|z)] + beta(step) KL(q(z|x) || p(z))        (Kingma & Welling 2014; beta: Higgins et al. 2017)

Both layers run in their generative direction `forward` for samples: log q(z|x) = log N(z0) - log_det, so an `inverse` of an
autoregressive layer is the cheap posterior (IAF). The prior needs `inverse_and_log_det`.

The formulas of `std` and `likelihood` stand in vaeflow/distributions.py (`std_of`, `likelihood`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import distrax
import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.bijectors import Layer
from vaeflow.bijectors.layer import at_rank
from vaeflow.build import Count, Natural, NonNegative, Positive, Range
from vaeflow.distributions import Distribution, Likelihood, Std, likelihood_heads, normal, std_of
from vaeflow.distributions import likelihood as likelihood_from
from vaeflow.errors import UserError
from vaeflow.model import Latent, Model
from vaeflow.nets import Net


def vae(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    latent: Count,
    encoder: Net,
    decoder: Net,
    std: Std,
    std_bound: Positive,
    posterior: Layer | None,
    posterior_context: Natural,
    prior: Layer | None,
    likelihood: Likelihood,
    likelihood_std: Positive,
    kl: Literal["auto", "monte_carlo"],
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

    event              the shape of one example; levels: its number of grey values as the model gets them (2 after binarisation,
                       also a dynamic one), 0 for data as is
    posterior_context  width of the encoder's output that the posterior's Layer gets as context; 0: it gets the batch's context
    kl                 auto: analytic when both layers are absent, else Monte Carlo
    samples            draws of z per example in the loss (their ELBOs are averaged)
    beta_*             see objectives.beta_schedule
    free_bits          nats per latent dimension (objectives.free_bits): the groups are the dimensions when the KL is analytic, else
                       one group of `latent` dimensions
    temperature        of `sample`: factor on the standard deviation of the prior's noise

    `sample` gives means of p(x|z) for images (levels > 0 and Bernoulli), which are what a picture should show, and draws
    of p(x|z) for continuous data, whose noise is a part of the density.
    """
    _check(levels, posterior, posterior_context, likelihood, beta_schedule, beta_steps)
    rank, top = len(event), float(levels - 1) if levels else 1.0
    encode = encoder.module((2 * latent + posterior_context,), rank, False)
    decode = decoder.module((*likelihood_heads(likelihood), *event), 1, False)
    beta_of = objectives.beta_schedule(beta_schedule, start=beta_start, end=beta, steps=beta_steps, ramp=beta_ramp)
    analytic = kl == "auto" and posterior is None and prior is None

    def scaled(x):
        x = jnp.asarray(x)
        return (x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))) / top

    def features(params, x, context):
        """(N(m, s) [B, latent], the context of the posterior's layer)."""
        h: Any = encode.apply({"params": params["encoder"]}, scaled(x), context)
        mean, raw, own = jnp.split(h, (latent, 2 * latent), axis=-1)
        return normal(mean, std_of(std, raw, std_bound)), (own if posterior_context else context)

    def posterior_of(params, x, context=None, key=None, train=False) -> Distribution:
        gaussian, own = features(params, x, context)
        if posterior is None:
            return gaussian
        bijector = posterior.bijector(params.get("posterior", {}), context=own, key=key, train=train)
        return distrax.Transformed(gaussian, at_rank(bijector, 1))

    def prior_of(params, context=None, key=None, train=False, noise=1.0) -> Distribution:
        batch = () if prior is None or context is None else context.shape[:-1]
        gaussian = normal(jnp.zeros((*batch, latent)), jnp.asarray(noise))
        if prior is None:
            return gaussian
        bijector = prior.bijector(params.get("prior", {}), context=context, key=key, train=train)
        return distrax.Transformed(gaussian, at_rank(bijector, 1))

    def likelihood_of(params, z, context=None) -> Distribution:
        out: Any = decode.apply({"params": params["decoder"]}, z, context)
        return likelihood_from(likelihood, out, rank, top, likelihood_std)

    def init(key, batch):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        if x.shape[1:] != event:
            raise UserError(f"model.event={event} does not fit the data, whose examples have the shape {x.shape[1:]}")
        keys = jax.random.split(key, 6)
        params = {"encoder": encode.init(keys[0], scaled(x), context)["params"]}
        if posterior is not None:
            # On noise: statistics of an untrained encoder would tell a data-dependent layer nothing.
            _, own = features(params, x, context)
            params["posterior"] = posterior.init(keys[1], jax.random.normal(keys[2], (len(x), latent)), own)
        z = posterior_of(params, x, context).sample(seed=keys[3])
        params["decoder"] = decode.init(keys[4], z, context)["params"]
        if prior is not None:
            params["prior"] = prior.init(keys[5], z, context)
        return params

    def loss(params, key, batch, step):
        x, context = batch["x"], batch.get("context")
        key_z, key_q, key_p = jax.random.split(key, 3)
        q = posterior_of(params, x, context, key_q, train=True)
        z, log_q = q.sample_and_log_prob(seed=key_z, sample_shape=(samples,))  # [k, B, latent], [k, B]
        recon = -jnp.mean(objectives.elbo(likelihood_of(params, z, context).log_prob(x)))
        if analytic:
            groups = jnp.mean(q.distribution.kl_divergence(distrax.Normal(0.0, 1.0)), axis=0)
        else:
            log_p = prior_of(params, context, key_p, train=True).log_prob(z)
            groups = jnp.mean(objectives.elbo(log_q - log_p))[None]
        weight = beta_of(step)
        total = recon + weight * objectives.free_bits(groups, free_bits * latent / len(groups))
        return total, {"loss": total, "recon": recon, "kl": jnp.sum(groups), "beta": weight}

    def log_prob(params, key, batch):
        # Nothing before the draw depends on the key: under a vmap over keys the encoder runs once.
        x, context = batch["x"], batch.get("context")
        key_z, key_q, key_p = jax.random.split(key, 3)
        z, log_q = posterior_of(params, x, context, key_q).sample_and_log_prob(seed=key_z)
        return likelihood_of(params, z, context).log_prob(x) + prior_of(params, context, key_p).log_prob(z) - log_q

    def sample(params, key, n, context=None):
        context = None if context is None else jnp.broadcast_to(context, (n, jnp.shape(context)[-1]))
        key_z, key_x = jax.random.split(key)
        rows = () if prior is not None and context is not None else (n,)  # a conditional prior has the context's rows
        z = prior_of(params, context, noise=temperature).sample(seed=key_z, sample_shape=rows)
        p = likelihood_of(params, z, context)
        return p.sample(seed=key_x) if likelihood.startswith("gaussian") and not levels else p.mean()

    def update(params, key, batch, step):
        del step
        x, context = batch["x"], batch.get("context")
        key_z, key_q, _ = jax.random.split(key, 3)  # the loss's noise
        z = posterior_of(params, x, context, key_q, train=True).sample(seed=key_z)
        new = dict(params)
        if prior is not None and prior.update is not None:
            new["prior"] = prior.update(params["prior"], z, context)
        if posterior is not None and posterior.update is not None:
            new["posterior"] = posterior.update(params["posterior"], z, features(params, x, context)[1])
        return new

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight",
        latent=Latent(prior_of, posterior_of, likelihood_of),
        update=update if any(layer is not None and layer.update is not None for layer in (prior, posterior)) else None,
        note=_note(likelihood, levels),
    )


def _note(likelihood, levels) -> str:
    if likelihood == "bernoulli_intensities":
        return "BCE on intensities, not a likelihood"
    return "Gaussian density at grey values that were not dequantised" if levels and likelihood.startswith("gaussian") else ""


def _check(levels, posterior, posterior_context, likelihood, schedule, steps) -> None:
    if likelihood == "bernoulli" and levels != 2:
        raise UserError(f"model.likelihood='bernoulli' needs binary data, not model.levels={levels}: set data.binarize and model.levels=2")
    if likelihood == "discretized_logistic" and levels < 2:
        raise UserError(f"model.likelihood='discretized_logistic' needs grey values, model.levels >= 2, not {levels}")
    if levels == 1:
        raise UserError("model.levels=1 is impossible; it must be 0 (data as is) or >= 2 (grey values 0..levels-1)")
    if posterior_context and posterior is None:
        raise UserError(f"model.posterior_context={posterior_context} has no use without a layer in model.posterior; set it to 0")
    if schedule != "constant" and steps < 1:
        raise UserError(f"model.beta_schedule={schedule!r} needs model.beta_steps >= 1, not {steps}")


_EXAMPLE = dict(
    event=(6,),
    levels=2,
    latent=3,
    encoder="net",
    decoder="net",
    std="softplus",
    std_bound=10.0,
    posterior="",
    posterior_context=0,
    prior="",
    likelihood="bernoulli",
    likelihood_std=0.3,
    kl="auto",
    samples=1,
    beta=1.0,
    beta_schedule="constant",
    beta_start=0.0,
    beta_steps=0,
    beta_ramp=0.5,
    free_bits=0.0,
    temperature=1.0,
)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(levels=17, likelihood="bernoulli_intensities", std="log_variance", samples=3, kl="monte_carlo"),
    _EXAMPLE | dict(levels=0, likelihood="gaussian", std="bounded", beta_schedule="cyclical", beta_steps=10, beta_start=0.5),
    _EXAMPLE | dict(levels=17, likelihood="gaussian_learned", prior="norm", free_bits=0.01),
    _EXAMPLE | dict(levels=17, likelihood="discretized_logistic", posterior="layer", prior="layer", posterior_context=4),
    _EXAMPLE | dict(event=(8, 8, 1), levels=17, likelihood="discretized_logistic", encoder="conv", decoder="deconv", posterior="norm"),
)
