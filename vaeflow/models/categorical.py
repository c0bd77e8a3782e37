"""Discrete diffusion: D3PM, masked diffusion and discrete flow matching, as configs of one family; see vaeflow/diffusion/categorical.py.

    loss = vlb * bound + cross_entropy * T E[-log p(x_0 | x_i)]       i uniform in 1 .. T; in continuous time T = 1 here

    D3PM                         timesteps T, corruption uniform, gaussian, neighbours, absorbing; cross_entropy 0.001 (images), 0.01 (text)
    D3PM, truncated logistic     corruption gaussian, output logistic
    masked diffusion             timesteps 0, corruption absorbing, cross_entropy 0                           (MDLM, MD4)
    discrete flow matching       timesteps 0, corruption absorbing, vlb 0, cross_entropy 1; remask for its corrector
    remasking                    sample.remask > 0, of any corruption with a mask                             (ReMDM)

The cross-entropy is relative to one of the T terms of the bound, as in the authors' program. With a mask only masked entries count, as the
others are known. Discrete flow matching's velocity, kappa' / (1 - kappa) (p(x_0 | x_t) - x_t) with kappa = alphabar, is the rate of the
same chain: what differs is the weight of the times in the loss.

References: Austin et al. 2021 (arXiv 2107.03006); Sahoo et al. 2024 (2406.07524); Shi et al. 2024 (2406.04329); Gat et al. 2024
(2407.15595); Wang et al. 2025 (2503.00307).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vaeflow.build import SAMPLING, Bare, Count, Fraction, Natural, NonNegative, Positive
from vaeflow.diffusion import Corruption
from vaeflow.diffusion.categorical import log_denoised, log_of, log_reverse, prior_term, rate_term, term
from vaeflow.diffusion.corruptions import uniform
from vaeflow.diffusion.times import strata
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Array, Model, overlay
from vaeflow.models.parts.continuous_time import features
from vaeflow.models.parts.density import fits
from vaeflow.nets import Embedding, Net
from vaeflow.nets.embedding import sinusoidal
from vaeflow.record import recorded


@recorded
def categorical(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    net: Net,
    corruption: Annotated[Corruption | None, Bare("uniform")] = None,
    timesteps: Natural = 1000,
    vlb: NonNegative = 1.0,
    cross_entropy: NonNegative = 0.0,
    output: Literal["softmax", "logistic"] = "softmax",
    reads: Literal["one_hot", "values"] = "one_hot",
    embedding: Annotated[Embedding | None, Bare("sinusoidal")] = None,
    steps: Annotated[Count, SAMPLING] = 100,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
    remask: Annotated[Fraction, SAMPLING] = 0.0,
) -> Model:
    """See the module's docstring. Parameters: net, time (the embedding's), fixed/corruption.

    Args:
        event, levels: the shape of one example, a sequence (L,) or an image (H, W, C); K, the number of its categories.
        net: of images to images: x_i as [B, H, W, C F] with the context (features of i / T, c) -> logits [B, K, H, W, C]. A sequence is an
            image [1, L] to it, so that the entries are a transformer's tokens.
        corruption: see vaeflow/diffusion/corruptions.py; None: uniform, with the cosine schedule.
        timesteps: T; 0: continuous time, for uniform and absorbing. i / T, or t, is one in each of B strata.
        vlb, cross_entropy: weights of the loss.
        output: softmax of K logits; logistic: logits from a location and a scale, log s((k + 1/2 - m) / v) - s((k - 1/2 - m) / v) for
            the categories k in order (truncated: they are normalised), m = tanh(x_i + net_1) on the scale where data are in [-1, 1].
        reads: what the network reads of an entry: one_hot, F = S, of unit mean square; or values, the data scaled to [-1, 1] and, where
            there is a mask, whether the entry is masked, F = 1 or 2.
        embedding: features of i / T.
        steps: evaluations of the network for a sample, at most T where T > 0: the chain of every (T / steps)-th state.
        temperature: the logits are divided by it.
        remask: share of the largest probability with which a sampling step masks known entries again; 0: none. It needs a mask.

    Returns: `sample` gives integers {x, nfe}. log_prob is a draw of the bound at one time, the prior's term added. `terms` has the prior's
        term and the reconstruction -log p(x_0 | x_1), where time is discrete.

    Raises:
        UserError: continuous data, an event of another rank, or options that do not fit together.

    Example:
        model = categorical(event=(64,), levels=27, net=transformer(width=64, depth=2), corruption=absorbing())
    """
    event, chosen, embedding, t_max = tuple(event), corruption or uniform(), embedding or sinusoidal(), timesteps
    _check(event, levels, chosen, timesteps, steps, remask, vlb + cross_entropy)
    prior = jnp.asarray(chosen.prior(levels), jnp.result_type(float))
    size = len(prior)
    masked = size > levels
    pixels = event if len(event) == 3 else (1, event[0], 1)
    heads = 2 if output == "logistic" else levels
    network = net.module((heads, *pixels), 3, False)
    every = np.arange(timesteps + 1)

    def chain_of(params, times):
        return chosen.chain(params.get("fixed", NO_PARAMS).get("corruption", NO_PARAMS), levels, timesteps, times)

    def scaled(x):
        """Categories as numbers in [-1, 1], a mask as 0."""
        value = 2 * x.astype(jnp.result_type(float)) / (levels - 1) - 1
        return jnp.where(x == levels, 0, value) if masked else value

    def read(x):
        """[..., *event] states -> [..., H, W, C F]."""
        lead = x.shape[: x.ndim - len(event)]
        if reads == "one_hot":
            out = math.sqrt(size) * jax.nn.one_hot(x, size)
        else:
            out = jnp.stack([scaled(x), *([(x == levels).astype(jnp.result_type(float))] if masked else [])], -1)
        return out.reshape(*lead, *pixels[:2], -1)

    def context_of(params, t, c):
        return features(embedding, params["time"], (t,), c, None, False)

    def weights(params, x, t, c, key=None, temperature=1.0):
        """e^l [..., *event, S], which sums to 1 over the data's categories, of states x [..., *event] and t [...]."""
        rngs = None if key is None else {"dropout": key}
        out = jnp.asarray(network.apply({"params": params["net"]}, read(x), context_of(params, t, c), rngs=rngs))
        out = jnp.moveaxis(out.reshape(*out.shape[:-4], heads, *event), -len(event) - 1, -1)
        logits = _logistic(jnp.tanh(scaled(x) + out[..., 0]), out[..., 1], levels) if output == "logistic" else out
        w = jax.nn.softmax(logits / temperature)
        return jnp.pad(w, [(0, 0)] * (w.ndim - 1) + [(0, 1)]) if masked else w

    def draw(key, p):
        return jax.random.categorical(key, log_of(p))

    def init(key, batch, given=NO_PARAMS):
        fits(event, batch)
        key_time, key_net = jax.random.split(key)
        x = jnp.asarray(batch["x"]).astype(jnp.int32)
        own = chosen.init(x, levels, timesteps)
        params = overlay({"time": embedding.init(key_time)} | ({"fixed": {"corruption": own}} if own else {}), given)
        context = context_of(params, jnp.full(len(x), 0.5), batch.get("context"))
        return overlay(params | {"net": network.init(key_net, read(x), context)["params"]}, given)

    def errors(params, key, batch, train):
        """(the bound without its prior's term, the cross-entropy) [B], nats per example, each at one time."""
        key_t, key_x, key_net = jax.random.split(key, 3)
        x0 = jnp.asarray(batch["x"]).astype(jnp.int32)
        u = strata(key_t, len(x0))
        keys = jax.random.split(key_x, len(x0))
        one_hot = jax.nn.one_hot(x0, size)
        if timesteps:
            i = jnp.minimum((u * t_max).astype(jnp.int32), t_max - 1) + 1
            t, chain = i / timesteps, chain_of(params, every)
            x = jax.vmap(lambda key, p, i: draw(key, chain.marginal(p, i)))(keys, one_hot, i)
        else:
            t = jnp.clip(1 - u, 2.0**-24, 1 - 2.0**-24)  # where alphabar is 0 the rate is infinite
            x = jax.vmap(lambda key, p, t: draw(key, mixed(p, t)))(keys, one_hot, t)
        w = weights(params, x, t, batch.get("context"), key_net if train else None)
        if timesteps:
            bound = timesteps * jax.vmap(lambda *a: term(chain, *a))(w, x0, x, i)
            log_p = jax.vmap(lambda *a: log_denoised(chain, *a))(w, x, i)
        else:
            bound = jax.vmap(lambda *a: rate_term(alphabar, prior, *a))(w, x0, x, t)
            log_p = jax.vmap(lambda w, x, t: _normalised(w * from_data(x, t)))(w, x, t)
        ce = -jnp.sum(log_p * one_hot, -1)
        return tuple(jnp.sum(a.reshape(len(x0), -1), 1) for a in (bound, ce))

    def alphabar(t):
        assert chosen.alphabar is not None
        return chosen.alphabar(t)

    def mixed(p, t):
        """p Qbar(t) [..., S] in continuous time."""
        return alphabar(t) * p + (1 - alphabar(t)) * prior

    def from_data(x, t):
        """q(x_t = x | x_0 = .) [..., S] in continuous time."""
        return alphabar(t) * jax.nn.one_hot(x, size) + (1 - alphabar(t)) * prior[x][..., None]

    def loss(params, key, batch, step):
        del step
        bound, ce = (jnp.mean(a) for a in errors(params, key, batch, True))
        total = vlb * bound + cross_entropy * max(timesteps, 1) * ce
        return total, {"loss": total, "bound": bound, "cross_entropy": ce}

    def prior_kl(params, x0):
        own = prior_term(chain_of(params, every), x0, timesteps)
        return jnp.sum(own.reshape(len(x0), -1), 1)

    def log_prob(params, key, batch):
        bound, _ = errors(params, key, batch, False)
        x0 = jnp.asarray(batch["x"]).astype(jnp.int32)
        return -bound - (prior_kl(params, x0) if timesteps else 0)

    def terms(params, key, batch):
        x0 = jnp.asarray(batch["x"]).astype(jnp.int32)
        chain = chain_of(params, every)
        x = draw(key, chain.marginal(jax.nn.one_hot(x0, size), 1))
        w = weights(params, x, jnp.full(len(x0), 1 / timesteps), batch.get("context"))
        return {"prior": prior_kl(params, x0), "reconstruction": jnp.sum(term(chain, w, x0, x, 1).reshape(len(x0), -1), 1)}

    def sample(params, key, n, context=None):
        key_x, key_walk = jax.random.split(key)
        times = np.linspace(0, timesteps or 1, steps + 1)
        chain = chain_of(params, times.round().astype(int) if timesteps else times)
        shares = jnp.asarray(times.round() / timesteps if timesteps else times, jnp.result_type(float))

        def back(x, now):
            i, key = now
            w = weights(params, x, jnp.full(n, shares[i]), context, None, temperature)
            p = chain.remask(w, x, i, remask) if remask and chain.remask else jnp.exp(log_reverse(chain, w, x, i))
            return draw(key, p), None

        x = draw(key_x, jnp.broadcast_to(chain.prior, (n, *event, size)))
        x, _ = jax.lax.scan(back, x, (jnp.arange(steps, 0, -1), jax.random.split(key_walk, steps)))
        return {"x": x, "nfe": jnp.full(n, steps)}

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="bound",
        terms=terms if timesteps else None,
        event=event,
        levels=levels,
        init_examples=chosen.examples,
    )


def _normalised(both: Array) -> Array:
    """log of [..., S] normalised."""
    return log_of(both) - log_of(jnp.sum(both, -1, keepdims=True))


def _logistic(m: Array, log_scale: Array, levels: int) -> Array:
    """Logits [..., K] of the categories' cells under a logistic distribution, on the scale where data are in [-1, 1]."""
    half, inverse = 1 / (levels - 1), jnp.exp(2 - log_scale)[..., None]
    centred = jnp.linspace(-1, 1, levels) - m[..., None]
    # log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - e^(a - b)) without cancellation.
    upper, lower = jax.nn.log_sigmoid(inverse * (centred + half)), jax.nn.log_sigmoid(-inverse * (centred - half))
    return upper + lower + jnp.log(-jnp.expm1(-2 * half * inverse))


def _check(event: tuple[int, ...], levels: int, corruption: Corruption, timesteps: int, steps: int, remask: float, weight: float) -> None:
    """UserError: the data, the corruption and the options do not fit together."""
    if levels < 2:
        raise UserError(f"model.levels={levels} is invalid; discrete diffusion needs integers below a number of levels >= 2")
    if len(event) not in (1, 3):
        raise UserError(f"model.event={event} is invalid; it must be a sequence (L,) or an image (H, W, C)")
    if not timesteps and corruption.alphabar is None:
        raise UserError("model.timesteps=0 is continuous time, which needs the corruption uniform or absorbing and a schedule but linear")
    if timesteps and steps > timesteps:
        raise UserError(f"sample.steps={steps} must be at most model.timesteps={timesteps}")
    if remask and len(corruption.prior(levels)) == levels:
        raise UserError(f"sample.remask={remask:g} needs model.corruption=absorbing with a mask of its own")
    if not weight:
        raise UserError("model.vlb=0 and model.cross_entropy=0 leave no loss; one must be > 0")


_EXAMPLE = dict(event=(4,), levels=5, net="net", timesteps=6, steps=3, cross_entropy=0.01)
_TEXT = _EXAMPLE | dict(net="token_net", corruption="absorbing", timesteps=0, cross_entropy=0.0)
EXAMPLES: tuple[dict[str, Any], ...] = (
    _EXAMPLE,
    _EXAMPLE | dict(corruption="neighbours"),
    _EXAMPLE | dict(event=(2, 2, 1), levels=17, corruption="gaussian", output="logistic", reads="values"),
    _EXAMPLE | dict(corruption="absorbing", reads="values"),
    _EXAMPLE | dict(timesteps=0),
    _TEXT,
    _TEXT | dict(net="net", vlb=0.0, cross_entropy=1.0, remask=0.5, temperature=0.8),
)
