"""Variational autoencoder: a Gaussian posterior, any Layer over it, any prior.

    x in the data, z in R^D, D = latent, c the context (optional)
    h(x, c) = encoder;  q(z|x) = N(m(h), diag s(h)^2), or its image under a Layer (`posterior`)
    p(z|c): N(0, I), a base, a mixture of posteriors, a Layer over them (vae_prior.py);  p(x|z, c) from the decoder's output

    loss = -E_q[log p(x|z)] + KL(q(z|x) || p(z)), or any other of OBJECTIVES for reparameterised latents (`objective`, vaeflow/objectives)

(Kingma & Welling 2014). What is reported of a trained run is the same for all objectives.

The posterior's layer runs in its generative direction `forward` for samples: log q(z|x) = log N(z0) - log_det, so an `inverse` of an
autoregressive layer is the cheap posterior (IAF). The prior's needs `inverse_and_log_det`. A `triangular` layer over the Gaussian makes its
covariance full.

The formulas of `std` and `likelihood` stand in vaeflow/distributions.py (`std_of`, `likelihood`).
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import distrax
import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.bijectors import Layer
from vaeflow.bijectors.core.layer import at_rank
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative, Positive
from vaeflow.distributions import Distribution, Likelihood, Std, normal, std_of
from vaeflow.model import NO_PARAMS, Latent, Model, overlay
from vaeflow.models.parts import vae_loss
from vaeflow.models.parts.bases import Base
from vaeflow.models.parts.embed import of_vector
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.pixels import pixels
from vaeflow.models.parts.reconstruction import Reconstruction
from vaeflow.models.parts.vae_prior import make_prior
from vaeflow.nets import Made, Net
from vaeflow.objectives import Draws, Objective
from vaeflow.record import recorded


@recorded
def vae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latent: Count,
    encoder: Net,
    decoder: Net,
    std: Std = "softplus",
    std_bound: Positive = 10.0,
    posterior: Layer | None = None,
    posterior_context: Natural = 0,
    prior: Layer | None = None,
    prior_base: Base | None = None,
    pseudo_inputs: Natural = 0,
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    autoregressive: Made | None = None,
    objective: Annotated[Objective | None, Bare("elbo")] = None,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event              the shape of one example; levels: its number of grey values as the model gets them (2 after binarisation,
                       also a dynamic one), 0 for data as is
    posterior_context  width of the encoder's output that the posterior's Layer gets as context; 0: it gets the batch's context
    prior_base         "": N(0, I); pseudo_inputs: of the VampPrior in its place, 0: none
    autoregressive     masked network over x's entries beside the decoder (pixels.py): p(x|z) = prod_i p(x_i | x_<i, z)
    objective          the loss, with the number of draws and the weight of the KL; "": the ELBO. The KL has a formula, by dimensions,
                       when q and p are Gaussians
    temperature        of `sample`: factor on the standard deviation of the prior's noise

    `best` is chosen by the objective's own bound where that is one of k draws (`terms`), else by the ELBO.
    `sample` gives means of p(x|z) for images (levels > 0 and Bernoulli), which are what a picture should show, and draws
    of p(x|z) for continuous data, whose noise is a part of the density.
    """
    return vae_of(
        event=event,
        levels=levels,
        latent=latent,
        encoder=encoder,
        decoder=decoder,
        std=std,
        std_bound=std_bound,
        posterior=posterior,
        posterior_context=posterior_context,
        prior=prior,
        prior_base=prior_base,
        pseudo_inputs=pseudo_inputs,
        likelihood=likelihood,
        likelihood_std=likelihood_std,
        autoregressive=autoregressive,
        objective=objective,
        temperature=temperature,
    )


def vae_of(
    *,
    event: tuple[int, ...],
    levels: int,
    latent: int,
    encoder: Net,
    decoder: Net,
    std: Std,
    std_bound: float,
    likelihood: Likelihood,
    likelihood_std: float,
    temperature: float,
    posterior: Layer | None = None,
    posterior_context: int = 0,
    prior: Layer | None = None,
    prior_base: Base | None = None,
    pseudo_inputs: int = 0,
    autoregressive: Made | None = None,
    objective: Objective | None = None,
    grid: tuple[int, ...] = (),
    sharp: Reconstruction | None = None,
) -> Model:
    """The Model of `vae`, and of an autoencoder: `grid` (h, w), the encoder gives an image [h, w, 2 latent], and the decoder reads one
    [h, w, latent]; `sharp`, terms of the loss beside the objective."""
    objective = objective or objectives.OBJECTIVES["elbo"]()
    vae_loss.check_posterior(posterior, posterior_context, pseudo_inputs)
    plain = prior is None and prior_base is None and not pseudo_inputs
    vae_loss.check_objective(objective, "a vae", gaussian=posterior is None and plain)
    vae_loss.check_path(objective, posterior)
    data = observation_model(event, levels, likelihood, likelihood_std)
    width, size = latent, math.prod(grid) * latent  # per position of the grid, and in all
    encode = encoder.module((*grid, 2 * width + posterior_context), len(event), False)
    decode = decoder.module(data.out, len(grid) + 1, False)
    init_pixels, given_pixels = (None, None) if autoregressive is None else pixels(autoregressive, data, event)

    def moments(params, x, context=None):
        """(m, s) [B, D] and the rest of the encoder's output, of x scaled."""
        h: Any = encode.apply({"params": params["encoder"]}, x, context)
        mean, raw, own = (a.reshape(*a.shape[: a.ndim - len(grid) - 1], -1) for a in jnp.split(h, (width, 2 * width), axis=-1))
        return mean, std_of(std, raw, std_bound), own

    first = make_prior(size, prior, prior_base, pseudo_inputs, unit=levels > 0, moments=lambda params, u: moments(params, u)[:2])
    prior_of = first.distribution
    analytic = posterior is None and first.normal

    def features(params, x, context):
        """(N(m, s) [B, D], the context of the posterior's layer)."""
        mean, deviation, own = moments(params, data.scaled(x), context)
        return normal(mean, deviation), (own if posterior_context else context)

    def on_grid(z):
        return z.reshape(*z.shape[:-1], *grid, width) if grid else z

    def posterior_of(params, x, context=None, key=None, train=False) -> Distribution:
        gaussian, own = features(params, x, context)
        if posterior is None:
            return gaussian
        bijector = posterior.bijector(params.get("posterior", {}), context=own, key=key, train=train)
        return distrax.Transformed(gaussian, at_rank(bijector, 1))

    def likelihood_of(params, z, context=None) -> Distribution:
        out: Any = decode.apply({"params": params["decoder"]}, on_grid(z), context)
        return data.given(out) if given_pixels is None else given_pixels(params["autoregressive"], out, z)

    def draws_of(params, key, x, context, k, key_q=None, key_p=None, train=False) -> Draws:
        q, p = posterior_of(params, x, context, key_q, train), prior_of(params, context, key_p, train=train)
        z, log_q = q.sample_and_log_prob(seed=key, sample_shape=(k,))  # [k, B, D], [k, B]
        return Draws(
            z=z,
            log_q=log_q,
            log_x=lambda z: likelihood_of(params, z, context).log_prob(x),
            log_z=lambda z: prior_of(params, context, key_p, train=train).log_prob(z),
            log_q_path=lambda z: posterior_of(jax.lax.stop_gradient(params), x, context, key_q, train).log_prob(z),
            kl=q.distribution.kl_divergence(distrax.Normal(0.0, 1.0)).T if analytic else None,
            group_size=1 if analytic else size,
            q=q,
            prior=lambda key: p.sample(seed=key, sample_shape=() if p.batch_shape else (len(x),)),
            x=data.scaled(x),
            context=context,
        )

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        keys = jax.random.split(key, 6)
        params = overlay({"encoder": encode.init(keys[0], data.scaled(x), context)["params"]}, given)
        if posterior is not None:
            # On noise: statistics of an untrained encoder would tell a data-dependent layer nothing.
            _, own = features(params, x, context)
            params["posterior"] = posterior.init(keys[1], jax.random.normal(keys[2], (len(x), size)), own)
            params = overlay(params, given)
        z = posterior_of(params, x, context).sample(seed=keys[3])
        params["decoder"] = decode.init(keys[4], on_grid(z), context)["params"]
        if init_pixels is not None:
            params["autoregressive"] = init_pixels(jax.random.fold_in(keys[4], 1), x, z)
        params = overlay(params | first.init(keys[5], z, data.scaled(x), context), given)
        params |= sharp.init(jax.random.fold_in(keys[5], 2), batch, given) if sharp is not None else NO_PARAMS
        if objective.init is None:
            return params
        own = objective.init(jax.random.fold_in(keys[5], 1), draws_of(params, keys[3], x, context, 1))
        return overlay(params | {"objective": own}, given)

    def loss(params, key, batch, step):
        key_z, key_q, key_p = jax.random.split(key, 3)
        draws = draws_of(params, key_z, batch["x"], batch.get("context"), objective.k, key_q, key_p, train=True)
        total, metrics = objective.loss(params.get("objective", {}), key_p, draws, step)
        if sharp is None:
            return total, metrics
        more, found = sharp.loss(params, jax.random.fold_in(key, 3), batch["x"], likelihood_of(params, draws.z[0], batch.get("context")))
        return total + more, {**metrics, **found, "loss": total + more}

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

    latent_of = Latent(prior_of, posterior_of, likelihood_of, embed=of_vector((*grid, width)))
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
        terms=vae_loss.bound_terms(log_prob, objective),
        note=data.note,
        event=event,
        levels=levels,
    )


_EXAMPLE = dict(event=(6,), levels=2, latent=3, encoder="net", decoder="net")
_VALUES = _EXAMPLE | dict(levels=0, likelihood="gaussian", likelihood_std=0.3)
_GREY = _EXAMPLE | dict(levels=17, likelihood="discretized_logistic")
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(levels=17, likelihood="bernoulli_intensities", std="log_variance", objective="monte_carlo"),
    _VALUES | dict(std="bounded", objective="cycles"),
    _VALUES | dict(levels=17, likelihood="gaussian_learned", prior="norm", objective="free_bits"),
    _GREY | dict(posterior="layer", prior="layer", posterior_context=4),
    _GREY | dict(event=(8, 8, 1), encoder="conv", decoder="deconv", posterior="norm"),
    _EXAMPLE | dict(pseudo_inputs=3, prior="layer", objective="mmd"),
    _EXAMPLE | dict(prior_base="context_normal", objective="adversarial"),
    _VALUES | dict(prior_base="gaussian_mixture", objective="dreg"),
    _EXAMPLE | dict(objective="renyi", posterior="layer"),
    _EXAMPLE | dict(objective="tc"),
    _GREY | dict(event=(2, 2, 1), autoregressive="made"),
    _EXAMPLE | dict(objective="elbo_path", posterior="layer"),
)
