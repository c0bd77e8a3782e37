"""Hierarchical VAE of L stochastic layers, inferred from the bottom up (Burda, Grosse, Salakhutdinov 2016; Rezende et al. 2014):

    q(z|x, c) = q(z_1|x, c) q(z_2|z_1, c) ... q(z_L|z_(L-1), c)           z_1 next to the data
    p(x, z|c) = N(z_L; 0, I) p(z_(L-1)|z_L, c) ... p(z_1|z_2, c) p(x|z_1, c)

Every conditional is a diagonal Gaussian with the moments that a network makes of what stands behind the bar; c is the context (optional).
The latent is one vector z = [z_1 | ... | z_L].

    loss = E_q[-log p(x|z_1) + beta(step) sum_l KL_l],    KL_l = log q(z_l|z_(l-1)) - log p(z_l|z_(l+1)) at the draw,

or minus another bound of log p(x) (`objective`, objectives/bounds.py). Metrics: recon, kl = sum_l KL_l and every KL_l as kl_l, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import objectives
from vaeflow.build import Count, Natural, NonNegative, Positive, Range
from vaeflow.distributions import Distribution, Joint, Likelihood, Std, normal, std_of
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Latent, Model, overlay
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import OF_MANY, Penalties, bound_terms, check_objective, check_schedule, log_weight
from vaeflow.nets import Net


def layered(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    latents: tuple[Count, ...],
    encoders: tuple[Net, ...],
    decoders: tuple[Net, ...],
    std: Std,
    std_bound: Positive,
    likelihood: Likelihood,
    likelihood_std: Positive,
    objective: objectives.Bound,
    alpha: Annotated[float, Range()],
    samples: Count,
    beta: NonNegative,
    beta_schedule: objectives.BetaSchedule,
    beta_start: NonNegative,
    beta_steps: Natural,
    beta_ramp: Annotated[float, Range(0, 1, open_low=True)],
    temperature: NonNegative,
) -> Model:
    """See the module's docstring.

    event, levels  as in vae.py, as are std, likelihood, objective, alpha, samples (draws k in the loss), beta_*
    latents        the sizes of z_1, ..., z_L
    encoders       the networks of q(z_1|x), q(z_2|z_1), ...
    decoders       the networks of p(x|z_1), p(z_1|z_2), ...
    temperature    of `sample`: factor on every standard deviation of p(z)
    """
    depth = len(latents)
    if not depth or len(encoders) != depth or len(decoders) != depth:
        counts = f"here {len(encoders)} and {len(decoders)}, and at least 1"
        raise UserError(f"model.latents={latents} needs as many model.encoders and model.decoders, {counts}")
    check_schedule(beta_schedule, beta_steps)
    check_objective(objective, alpha, samples, "auto", beta, beta_schedule, Penalties(0, 0, 0, 0, 0, 0))
    data = observation_model(event, levels, likelihood, likelihood_std)
    encode = [
        net.module((2 * size,), len(event) if i == 0 else 1, False) for i, (net, size) in enumerate(zip(encoders, latents, strict=True))
    ]
    decode = [net.module(out, 1, False) for net, out in zip(decoders, (data.out, *((2 * size,) for size in latents[:-1])), strict=True)]
    beta_of = objectives.beta_schedule(beta_schedule, start=beta_start, end=beta, steps=beta_steps, ramp=beta_ramp)

    def run(params, name: str, modules: list[Any], i: int, x, context) -> Any:
        return modules[i].apply({"params": params[f"{name}_{i + 1}"]}, x, context)

    def gaussian(moments, noise=1.0) -> Distribution:
        mean, raw = jnp.split(moments, 2, axis=-1)
        return normal(mean, noise * std_of(std, raw, std_bound))

    def posterior_of(params, x, context=None) -> Joint:
        first = gaussian(run(params, "encoder", encode, 0, data.scaled(x), context))  # once for any number of draws

        def conditional(i, below):
            return first if below is None else gaussian(run(params, "encoder", encode, i, below, context))

        return markov(conditional, latents, tuple(range(depth)), first.batch_shape)

    def prior_of(params, context=None, noise=1.0) -> Joint:
        batch = () if context is None else context.shape[:-1]

        def conditional(i, above):
            if above is None:
                return normal(jnp.zeros((*batch, latents[-1])), jnp.asarray(noise))
            return gaussian(run(params, "decoder", decode, i + 1, above, context), noise)

        return markov(conditional, latents, tuple(reversed(range(depth))), batch)

    def likelihood_of(params, z, context=None) -> Distribution:
        return data.given(run(params, "decoder", decode, 0, z[..., : latents[0]], context))

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        up, down = jax.random.split(key)
        z = [jnp.zeros((len(x), size)) for size in latents]
        params = {}
        for i, (k_up, k_down) in enumerate(zip(jax.random.split(up, depth), jax.random.split(down, depth), strict=True)):
            params[f"encoder_{i + 1}"] = encode[i].init(k_up, data.scaled(x) if i == 0 else z[i - 1], context)["params"]
            params[f"decoder_{i + 1}"] = decode[i].init(k_down, z[i], context)["params"]
        return overlay(params, given)  # no network sees what another one makes

    def loss(params, key, batch, step):
        x, context = batch["x"], batch.get("context")
        key_z, key_i = jax.random.split(key)
        q, p, weight = posterior_of(params, x, context), prior_of(params, context), beta_of(step)
        z, log_q = q.sample_and_log_prob(seed=key_z, sample_shape=(samples,))  # [k, B, D], [k, B]

        def log_x(z):
            return likelihood_of(params, z, context).log_prob(x)

        def log_q_path(z):
            return weight * posterior_of(jax.lax.stop_gradient(params), x, context).log_prob(z)

        def log_joint(z):
            return log_x(z) + weight * p.log_prob(z)

        total = -jnp.mean(objectives.bound(objective, alpha, key_i, log_joint, z, weight * log_q, log_q_path))
        groups = jnp.mean(q.level_log_prob(z) - p.level_log_prob(z), axis=(0, 1))  # [L]
        metrics = {"loss": total, "recon": -jnp.mean(log_x(z)), "kl": jnp.sum(groups), "beta": weight}
        return total, metrics | {f"kl_{i + 1}": groups[i] for i in range(depth)}

    def sample(params, key, n, context=None):
        key_z, key_x = jax.random.split(key)
        z = prior_of(params, context, noise=temperature).sample(seed=key_z, sample_shape=(n,) if context is None else ())
        return {"x": data.show(key_x, likelihood_of(params, z, context)), "z": z}

    latent = Latent(prior_of, posterior_of, likelihood_of, show=data.show)
    log_prob = log_weight(latent)
    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="weight",
        latent=latent,
        terms=bound_terms(log_prob, samples, objective, alpha) if objective in OF_MANY else None,
        note=data.note,
        event=event,
        levels=levels,
    )


def markov(
    conditional: Callable[[int, Array | None], Distribution], sizes: tuple[int, ...], order: tuple[int, ...], batch: tuple[int, ...]
) -> Joint:
    """The chain of levels drawn in `order`, each given the one before it: conditional(i, None) is the first one's distribution, of batch
    shape `batch`, conditional(i, z) the next ones', z [..., D] the level before."""

    def draw(key, n):
        z: dict[int, Array] = {}
        log_p: dict[int, Array] = {}
        before = None
        for i, k in zip(order, jax.random.split(key, len(order)), strict=True):
            shape = (n,) if before is None else ()
            z[i], log_p[i] = conditional(i, before).sample_and_log_prob(seed=k, sample_shape=shape)
            before = z[i]
        return jnp.concatenate([z[i] for i in range(len(sizes))], -1), jnp.stack([log_p[i] for i in range(len(sizes))], -1)

    def terms(z):
        parts = jnp.split(z, np.cumsum(sizes)[:-1], axis=-1)
        log_p, before = {}, None
        for i in order:
            log_p[i] = conditional(i, before).log_prob(parts[i])
            before = parts[i]
        return jnp.stack([log_p[i] for i in range(len(sizes))], axis=-1)

    return Joint(draw, terms, sizes, batch)


_EXAMPLE = dict(event=(6,), levels=2, latents=(3, 2), encoders=("net", "net"), decoders=("net", "net"), std="softplus", std_bound=10.0)
_EXAMPLE |= dict(likelihood="bernoulli", likelihood_std=0.3, objective="elbo", alpha=0.0, samples=1, beta=1.0, beta_schedule="constant")
_EXAMPLE |= dict(beta_start=0.0, beta_steps=0, beta_ramp=0.5, temperature=1.0)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(latents=(4, 3, 2), encoders=("net",) * 3, decoders=("net",) * 3, objective="dreg", samples=3, std="bounded"),
    _EXAMPLE | dict(levels=0, likelihood="gaussian", objective="iwae_one", samples=3),
    _EXAMPLE
    | dict(event=(8, 8, 1), levels=17, likelihood="discretized_logistic", encoders=("conv", "net"), decoders=("deconv", "net"))
    | dict(beta=2.0, beta_schedule="linear", beta_steps=10, std="log_variance"),
)
