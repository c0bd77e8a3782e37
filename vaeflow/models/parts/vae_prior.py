"""The prior over a VAE's latent vector: a base, a mixture of posteriors of pseudo-inputs, and a Layer over either.

    p(z|c) = p_0(f^-1(z)) |det d f^-1 / dz|        f the layer, the identity without one; c the context (optional)

    p_0(z) = N(0, I), or a Base (bases.py: gaussian_mixture, context_normal, ...), or the VampPrior of K pseudo-inputs
    p_0(z) = (1/K) sum_k q(z|u_k)                  q the encoder's Gaussian, u_k trained      (Tomczak & Welling 2018, eq. 9)

An autoregressive prior is a layer too: `mixture_autoregressive` over N(0, I) makes every p(z_i | z_<i) a mixture of Gaussians.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vaeflow.bijectors.core.layer import Layer, at_rank
from vaeflow.distributions import Distribution, Joint, normal
from vaeflow.errors import UserError
from vaeflow.model import Array, Params
from vaeflow.models.parts import bases
from vaeflow.models.parts.bases import Base

# (params, pseudo-inputs on the scale that the encoder sees [K, *event]) -> (mean, std) [K, D]
Moments = Callable[[Params, Array], tuple[Array, Array]]


class Prior(NamedTuple):
    """init          (key, z, x, context) -> params: x [B, *event] as the encoder sees it, z [B, D] draws of q(z|x)
    distribution  (params, context=None, key=None, train=False, noise=1.0) -> p(z), batch shape [] or [B]; noise: the temperature of draws
    normal        whether it is N(0, I), so that a KL may have a formula
    conditional   whether its draws with a context [B, C] have a batch axis
    """

    init: Callable[..., Params]
    distribution: Callable[..., Distribution]
    normal: bool
    conditional: bool


def make_prior(latent: int, layer: Layer | None, base: Base | None, pseudo_inputs: int, unit: bool, moments: Moments) -> Prior:
    """unit: whether the data, as the encoder sees them, lie in [0, 1]; the pseudo-inputs then do too. The parameters are part of the
    model's: "prior" the layer's, "prior_base" the base's, "pseudo_inputs"."""
    if pseudo_inputs and base is not None:
        raise UserError(f"model.pseudo_inputs={pseudo_inputs} and model.prior_base are two bases of one prior; set one of them, 0 or ''")
    plain = base is None and not pseudo_inputs
    if plain and layer is None:

        def standard(params, context=None, key=None, train=False, noise=1.0):
            del params, context, key, train
            return normal(jnp.zeros(latent), jnp.asarray(noise))

        return Prior(lambda key, z, x, context: {}, standard, normal=True, conditional=False)

    if pseudo_inputs:
        base = _vamp(pseudo_inputs, moments, unit)
    elif base is None:
        base = bases.normal()

    def init(key, z, x, context):
        key_layer, key_base = jax.random.split(key)
        params = {}
        if layer is not None:
            params["prior"] = layer.init(key_layer, z, context)
        if pseudo_inputs:
            params["pseudo_inputs"] = _first_inputs(key_base, x, pseudo_inputs, unit)
        elif own := base.init(key_base, (latent,), context):
            params["prior_base"] = own
        return params

    def distribution(params, context=None, key=None, train=False, noise=1.0):
        batch = () if context is None else context.shape[:-1]
        own = params if pseudo_inputs else params.get("prior_base", {})
        f = None if layer is None else at_rank(layer.bijector(params.get("prior", {}), context=context, key=key, train=train), 1)

        def rows(z):
            """(z [N, D], context [N, C]): a base knows one batch axis."""
            c = None if context is None else jnp.broadcast_to(context, (*z.shape[:-1], context.shape[-1])).reshape(-1, context.shape[-1])
            return z.reshape(-1, latent), c

        def terms(z):
            z, log_det = (z, 0.0) if f is None else f.inverse_and_log_det(z)
            return (base.log_prob(own, *rows(z)).reshape(z.shape[:-1]) + log_det)[..., None]

        def draw(key, n):
            flat, c = rows(jnp.zeros((n, *batch, latent)))
            z = base.sample(own, key, len(flat), (latent,), noise, c).reshape(n, *batch, latent)
            log_p = base.log_prob(own, *rows(z)).reshape(z.shape[:-1])
            z, log_det = (z, 0.0) if f is None else f.forward_and_log_det(z)
            return z, (log_p - log_det)[..., None]

        return Joint(draw, terms, (latent,), batch)

    return Prior(init, distribution, normal=False, conditional=True)


def _first_inputs(key: Array, x: Array, k: int, unit: bool) -> Array:
    """K examples of the batch to start from, a little apart from each other where one serves twice; as logits for data in [0, 1]."""
    pick, noise = jax.random.split(key)
    rows = jnp.arange(k) % len(x)
    u = x[jax.random.permutation(pick, len(x))][rows]
    u = jnp.log(u + 0.05) - jnp.log(1.05 - u) if unit else u
    return u + 0.1 * jax.random.normal(noise, u.shape)


def _vamp(k: int, moments: Moments, unit: bool) -> Base:
    """The mixture of the encoder's Gaussians at the pseudo-inputs; `params` are those of the whole model. Temperature scales their
    standard deviations, not the choice of k."""

    def components(params):
        u = params["pseudo_inputs"]
        return moments(params, jax.nn.sigmoid(u) if unit else u)

    def log_prob(params, z, context=None):
        del context
        mean, std = components(params)
        return jax.nn.logsumexp(normal(mean, std).log_prob(z[:, None]), axis=-1) - jnp.log(k)

    def sample(params, key, n, shape, temperature=1.0, context=None):
        del context
        which, noise = jax.random.split(key)
        mean, std = components(params)
        pick = jax.random.randint(which, (n,), 0, k)
        return mean[pick] + temperature * std[pick] * jax.random.normal(noise, (n, *shape))

    return Base(lambda key, shape, context=None: {}, log_prob, sample)
