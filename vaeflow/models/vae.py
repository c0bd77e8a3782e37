"""Variational autoencoder: a Gaussian posterior, any Layer over it, any prior.

    x in the data, z in R^latent, c the context (optional)
    h(x, c) = encoder;  q(z|x) = N(m(h), diag s(h)^2), or its image under a Layer (`posterior`)
    p(z|c): N(0, I), a base, a mixture of posteriors, a Layer over them (vae_prior.py);  p(x|z, c) from the decoder's output

    loss = E_q[-log p(x|z)] + beta(step) KL(q(z|x) || p(z)) + tc TC(q(z)) + mmd MMD^2(q(z), p(z)) + adversarial E_q[softplus(-critic(z))]

(Kingma & Welling 2014; beta: Higgins et al. 2017; TC: Chen et al. 2018, whose beta is tc + 1; MMD: Zhao et al. 2017, whose alpha and
lambda are beta = 1 - alpha, mmd = alpha + lambda - 1; the critic: Makhzani et al. 2016, with beta = 0; objectives/regularisers.py), or
minus another bound of log p(x) (`objective`, objectives/bounds.py). What is reported of a trained run is the same for all of them.

The posterior's layer runs in its generative direction `forward` for samples: log q(z|x) = log N(z0) - log_det, so an `inverse` of an
autoregressive layer is the cheap posterior (IAF). The prior's needs `inverse_and_log_det`. A `triangular` layer over the Gaussian makes its
covariance full.

The formulas of `std` and `likelihood` stand in vaeflow/distributions.py (`std_of`, `likelihood`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import distrax
import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.bijectors import Layer
from vaeflow.bijectors.core.layer import at_rank
from vaeflow.build import Count, Natural, NonNegative, Positive, Range
from vaeflow.distributions import Distribution, Likelihood, Std, normal, std_of
from vaeflow.model import NO_PARAMS, Latent, Model, overlay
from vaeflow.models.parts import vae_loss
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.pixels import pixels
from vaeflow.models.parts.vae_loss import Draws, Penalties
from vaeflow.models.parts.vae_prior import make_prior
from vaeflow.nets import Made, Net


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
    prior_base: Base | None,
    pseudo_inputs: Natural,
    likelihood: Likelihood,
    likelihood_std: Positive,
    autoregressive: Made | None,
    objective: objectives.Bound,
    alpha: Annotated[float, Range()],
    kl: Literal["auto", "monte_carlo"],
    samples: Count,
    beta: NonNegative,
    beta_schedule: objectives.BetaSchedule,
    beta_start: NonNegative,
    beta_steps: Natural,
    beta_ramp: Annotated[float, Range(0, 1, open_low=True)],
    free_bits: NonNegative,
    capacity: NonNegative,
    capacity_steps: Natural,
    tc: NonNegative,
    mmd: NonNegative,
    adversarial: NonNegative,
    critic: Net | None,
    temperature: NonNegative,
) -> Model:
    """See the module's docstring.

    event              the shape of one example; levels: its number of grey values as the model gets them (2 after binarisation,
                       also a dynamic one), 0 for data as is
    posterior_context  width of the encoder's output that the posterior's Layer gets as context; 0: it gets the batch's context
    prior_base         "": N(0, I); pseudo_inputs: of the VampPrior in its place, 0: none
    autoregressive     masked network over x's entries beside the decoder (pixels.py): p(x|z) = prod_i p(x_i | x_<i, z)
    objective          elbo, or another bound of log p(x) of objectives/bounds.py, alpha that of renyi; what follows is for elbo alone
    kl                 auto: analytic when q and p are Gaussians, else Monte Carlo
    samples            draws k of z per example in the loss
    beta_*             see objectives.beta_schedule
    free_bits          nats per latent dimension (objectives.free_bits): the groups are the dimensions when the KL is analytic, else
                       one group of `latent` dimensions
    capacity           C in nats: beta |KL - C min(1, step / capacity_steps)| takes the place of beta KL (Burgess et al. 2018); 0: off
    critic             network of the adversarial regulariser, z -> logit. It learns in the same step; its loss adds a gradient, no value
    temperature        of `sample`: factor on the standard deviation of the prior's noise

    `best` is chosen by the objective's own bound where that is one of k draws (`terms`), else by the ELBO.
    `sample` gives means of p(x|z) for images (levels > 0 and Bernoulli), which are what a picture should show, and draws
    of p(x|z) for continuous data, whose noise is a part of the density.
    """
    weights = Penalties(free_bits, capacity, capacity_steps, tc, mmd, adversarial)
    vae_loss.check_posterior(posterior, posterior_context, pseudo_inputs)
    vae_loss.check_schedule(beta_schedule, beta_steps)
    vae_loss.check(weights, posterior is None, prior is None and prior_base is None and not pseudo_inputs, critic)
    vae_loss.check_objective(objective, alpha, samples, kl, beta, beta_schedule, weights)
    vae_loss.check_path(objective, posterior)
    data = observation_model(event, levels, likelihood, likelihood_std)
    encode = encoder.module((2 * latent + posterior_context,), len(event), False)
    decode = decoder.module(data.out, 1, False)
    init_pixels, given_pixels = (None, None) if autoregressive is None else pixels(autoregressive, data, event)
    critic_net = None if critic is None else critic.module((1,), 1, False)
    beta_of = objectives.beta_schedule(beta_schedule, start=beta_start, end=beta, steps=beta_steps, ramp=beta_ramp)

    def moments(params, x, context=None):
        """(m, s) [B, latent] and the rest of the encoder's output, of x scaled."""
        h: Any = encode.apply({"params": params["encoder"]}, x, context)
        mean, raw, own = jnp.split(h, (latent, 2 * latent), axis=-1)
        return mean, std_of(std, raw, std_bound), own

    first = make_prior(latent, prior, prior_base, pseudo_inputs, unit=levels > 0, moments=lambda params, u: moments(params, u)[:2])
    prior_of = first.distribution
    analytic = kl == "auto" and posterior is None and first.normal

    def features(params, x, context):
        """(N(m, s) [B, latent], the context of the posterior's layer)."""
        mean, deviation, own = moments(params, data.scaled(x), context)
        return normal(mean, deviation), (own if posterior_context else context)

    def posterior_of(params, x, context=None, key=None, train=False) -> Distribution:
        gaussian, own = features(params, x, context)
        if posterior is None:
            return gaussian
        bijector = posterior.bijector(params.get("posterior", {}), context=own, key=key, train=train)
        return distrax.Transformed(gaussian, at_rank(bijector, 1))

    def likelihood_of(params, z, context=None) -> Distribution:
        out: Any = decode.apply({"params": params["decoder"]}, z, context)
        return data.given(out) if given_pixels is None else given_pixels(params["autoregressive"], out, z)

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        keys = jax.random.split(key, 6)
        params = overlay({"encoder": encode.init(keys[0], data.scaled(x), context)["params"]}, given)
        if posterior is not None:
            # On noise: statistics of an untrained encoder would tell a data-dependent layer nothing.
            _, own = features(params, x, context)
            params["posterior"] = posterior.init(keys[1], jax.random.normal(keys[2], (len(x), latent)), own)
            params = overlay(params, given)
        z = posterior_of(params, x, context).sample(seed=keys[3])
        params["decoder"] = decode.init(keys[4], z, context)["params"]
        if init_pixels is not None:
            params["autoregressive"] = init_pixels(jax.random.fold_in(keys[4], 1), x, z)
        if critic_net is not None:
            params["critic"] = critic_net.init(jax.random.fold_in(keys[5], 1), z)["params"]
        return overlay(params | first.init(keys[5], z, data.scaled(x), context), given)

    def loss(params, key, batch, step):
        x, context = batch["x"], batch.get("context")
        key_z, key_q, key_p = jax.random.split(key, 3)
        q = posterior_of(params, x, context, key_q, train=True)
        z, log_q = q.sample_and_log_prob(seed=key_z, sample_shape=(samples,))  # [k, B, latent], [k, B]

        def log_x(z):
            return likelihood_of(params, z, context).log_prob(x)

        def log_z(z):
            return prior_of(params, context, key_p, train=True).log_prob(z)

        if objective != "elbo":

            def log_q_path(z):
                return posterior_of(jax.lax.stop_gradient(params), x, context, key_q, train=True).log_prob(z)

            key_i = jax.random.fold_in(key_p, 1)
            bounds = objectives.bound(objective, alpha, key_i, lambda z: log_x(z) + log_z(z), z, log_q, log_q_path)
            total = -jnp.mean(bounds)
            return total, {"loss": total, "recon": -jnp.mean(log_x(z)), "kl": jnp.mean(log_q - log_z(z))}
        recon = -jnp.mean(objectives.elbo(log_x(z)))
        if analytic:
            groups = jnp.mean(q.distribution.kl_divergence(distrax.Normal(0.0, 1.0)), axis=0)
        else:
            groups = jnp.mean(objectives.elbo(log_q - log_z(z)))[None]
        weight = beta_of(step)
        draws = Draws(z[0], q, prior_of(params, context, key_p, train=True), vae_loss.critic_of(critic_net, params))
        extra, more = vae_loss.regularisers(weights, draws, jax.random.fold_in(key_p, 2))
        total = recon + weight * vae_loss.kl_term(weights, groups, latent, step) + extra
        return total, {"loss": total, "recon": recon, "kl": jnp.sum(groups), "beta": weight, **more}

    def log_prob(params, key, batch):
        # Nothing before the draw depends on the key: under a vmap over keys the encoder runs once.
        x, context = batch["x"], batch.get("context")
        key_z, key_q, key_p = jax.random.split(key, 3)
        z, log_q = posterior_of(params, x, context, key_q).sample_and_log_prob(seed=key_z)
        return likelihood_of(params, z, context).log_prob(x) + prior_of(params, context, key_p).log_prob(z) - log_q

    def sample(params, key, n, context=None):
        key_z, key_x = jax.random.split(key)
        rows = () if first.conditional and context is not None else (n,)  # a conditional prior has the context's rows
        z = prior_of(params, context, noise=temperature).sample(seed=key_z, sample_shape=rows)
        return {"x": latent_of.show(key_x, likelihood_of(params, z, context)), "z": z}

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

    latent_of = Latent(prior_of, posterior_of, likelihood_of)
    if given_pixels is None:  # else the pixels depend on each other, and their means are no picture
        latent_of = latent_of._replace(show=data.show)
    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight",
        latent=latent_of,
        update=update if any(layer is not None and layer.update is not None for layer in (prior, posterior)) else None,
        terms=vae_loss.bound_terms(log_prob, samples, objective, alpha) if objective in vae_loss.OF_MANY else None,
        note=data.note,
        event=event,
        levels=levels,
    )


def traced(section: Mapping[str, Any]) -> tuple[str, ...]:
    """Of the section model of a config: in the ELBO beta is a weight and nothing else, other objectives refuse it."""
    return ("beta",) if section["objective"] == "elbo" else ()


_EXAMPLE = dict(event=(6,), levels=2, latent=3, encoder="net", decoder="net", std="softplus", std_bound=10.0, temperature=1.0)
_EXAMPLE |= dict(posterior="", posterior_context=0, prior="", prior_base="", pseudo_inputs=0, likelihood="bernoulli", likelihood_std=0.3)
_EXAMPLE |= dict(autoregressive="", objective="elbo", alpha=0.0, kl="auto", samples=1, beta=1.0, beta_schedule="constant", beta_start=0.0)
_EXAMPLE |= dict(beta_steps=0, beta_ramp=0.5, free_bits=0.0, capacity=0.0, capacity_steps=0, tc=0.0, mmd=0.0, adversarial=0.0, critic="")
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(levels=17, likelihood="bernoulli_intensities", std="log_variance", samples=3, kl="monte_carlo"),
    _EXAMPLE | dict(levels=0, likelihood="gaussian", std="bounded", beta_schedule="cyclical", beta_steps=10, beta_start=0.5),
    _EXAMPLE | dict(levels=17, likelihood="gaussian_learned", prior="norm", free_bits=0.01),
    _EXAMPLE | dict(levels=17, likelihood="discretized_logistic", posterior="layer", prior="layer", posterior_context=4),
    _EXAMPLE | dict(event=(8, 8, 1), levels=17, likelihood="discretized_logistic", encoder="conv", decoder="deconv", posterior="norm"),
    _EXAMPLE | dict(pseudo_inputs=3, prior="layer", mmd=10.0, capacity=2.0, capacity_steps=10, samples=2),
    _EXAMPLE | dict(prior_base="context_normal", adversarial=1.0, critic="net", beta=0.5),
    _EXAMPLE | dict(prior_base="gaussian_mixture", objective="dreg", samples=3, levels=0, likelihood="gaussian"),
    _EXAMPLE | dict(objective="renyi", alpha=0.5, samples=3, posterior="layer"),
    _EXAMPLE | dict(tc=4.0),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, likelihood="discretized_logistic", autoregressive="made"),
)
