"""Hierarchical VAE of L stochastic layers, inferred from the bottom up (Burda, Grosse, Salakhutdinov 2016; Rezende et al. 2014):

    q(z|x, c) = q(z_1|x, c) q(z_2|z_1, c) ... q(z_L|z_(L-1), c)           z_1 next to the data
    p(x, z|c) = N(z_L; 0, I) p(z_(L-1)|z_L, c) ... p(z_1|z_2, c) p(x|z_1, c)

Every conditional is a diagonal Gaussian with the moments that a network makes of what stands behind the bar; c is the context (optional).
The latent is one vector z = [z_1 | ... | z_L].

    loss = E_q[-log p(x|z_1) + sum_l KL_l],    KL_l = log q(z_l|z_(l-1)) - log p(z_l|z_(l+1)) at the draw,

or any other of OBJECTIVES for reparameterised latents (`objective`, vaeflow/objectives). Metrics: those of the objective and every KL_l as
kl_l, in nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow import objectives
from vaeflow.build import SAMPLING, Bare, Count, Natural, NonNegative, Positive
from vaeflow.distributions import Distribution, Joint, Likelihood, Std, normal, std_of
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Latent, Model, overlay
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import bound_terms, check_objective, log_weight
from vaeflow.nets import Net
from vaeflow.objectives import Draws, Objective
from vaeflow.record import recorded


@recorded
def layered(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    latents: tuple[Count, ...],
    encoders: tuple[Net, ...],
    decoders: tuple[Net, ...],
    std: Std = "softplus",
    std_bound: Positive = 10.0,
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    objective: Annotated[Objective | None, Bare("elbo")] = None,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event, levels  as in vae.py, as are std, likelihood, objective, whose KL is by levels: free bits are nats per level
    latents        the sizes of z_1, ..., z_L
    encoders       the networks of q(z_1|x), q(z_2|z_1), ...
    decoders       the networks of p(x|z_1), p(z_1|z_2), ...
    temperature    of `sample`: factor on every standard deviation of p(z)
    """
    depth = len(latents)
    if not depth or len(encoders) != depth or len(decoders) != depth:
        counts = f"here {len(encoders)} and {len(decoders)}, and at least 1"
        raise UserError(f"model.latents={latents} needs as many model.encoders and model.decoders, {counts}")
    objective = objective or objectives.OBJECTIVES["elbo"]()
    check_objective(objective, "a layered VAE")
    data = observation_model(event, levels, likelihood, likelihood_std)
    encode = [
        net.module((2 * size,), len(event) if i == 0 else 1, False) for i, (net, size) in enumerate(zip(encoders, latents, strict=True))
    ]
    decode = [net.module(out, 1, False) for net, out in zip(decoders, (data.out, *((2 * size,) for size in latents[:-1])), strict=True)]

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

    def draws_of(params, key, x, context, k) -> Draws:
        q, p = posterior_of(params, x, context), prior_of(params, context)
        z, log_q = q.sample_level_log_prob(key, k)  # [k, B, D], [k, B, L]
        return Draws(
            z=z,
            log_q=jnp.sum(log_q, axis=-1),
            log_x=lambda z: likelihood_of(params, z, context).log_prob(x),
            log_z=p.log_prob,
            log_q_path=lambda z: posterior_of(jax.lax.stop_gradient(params), x, context).log_prob(z),
            kl=jnp.mean(log_q - p.level_log_prob(z), axis=0).T,
            group_size=1,
            q=q,
            prior=lambda key: p.sample(seed=key, sample_shape=() if p.batch_shape else (len(x),)),
            x=data.scaled(x),
            context=context,
        )

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        up, down = jax.random.split(key)
        z = [jnp.zeros((len(x), size)) for size in latents]
        params = {}
        for i, (k_up, k_down) in enumerate(zip(jax.random.split(up, depth), jax.random.split(down, depth), strict=True)):
            params[f"encoder_{i + 1}"] = encode[i].init(k_up, data.scaled(x) if i == 0 else z[i - 1], context)["params"]
            params[f"decoder_{i + 1}"] = decode[i].init(k_down, z[i], context)["params"]
        params = overlay(params, given)  # no network sees what another one makes
        if objective.init is None:
            return params
        key_z, key_own = jax.random.split(jax.random.fold_in(key, 1))
        return overlay(params | {"objective": objective.init(key_own, draws_of(params, key_z, x, context, 1))}, given)

    def loss(params, key, batch, step):
        key_z, key_own = jax.random.split(key)
        draws = draws_of(params, key_z, batch["x"], batch.get("context"), objective.k)
        total, metrics = objective.loss(params.get("objective", {}), key_own, draws, step)
        assert draws.kl is not None
        levels_of = jnp.mean(draws.kl, axis=-1)  # [L]
        return total, metrics | {f"kl_{i + 1}": levels_of[i] for i in range(len(levels_of))}

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
        terms=bound_terms(log_prob, objective),
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


_EXAMPLE = dict(event=(6,), levels=2, latents=(3, 2), encoders=("net", "net"), decoders=("net", "net"))
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(latents=(4, 3, 2), encoders=("net",) * 3, decoders=("net",) * 3, objective="dreg", std="bounded"),
    _EXAMPLE | dict(levels=0, likelihood="gaussian", likelihood_std=0.3, objective="iwae_one"),
    _EXAMPLE
    | dict(event=(8, 8, 1), levels=17, likelihood="discretized_logistic", encoders=("conv", "net"), decoders=("deconv", "net"))
    | dict(objective="warm_up", std="log_variance"),
    _EXAMPLE | dict(objective="iwae"),
)
