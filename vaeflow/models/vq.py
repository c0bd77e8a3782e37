"""VQ-VAE: a latent grid of codes, each the nearest of K vectors, with a learned prior over the codes
(van den Oord, Vinyals, Kavukcuoglu 2017, "Neural discrete representation learning").

    e(x, c) [*grid, d] = encoder, c the context (optional);  a_i = argmin_k |e_i - c_k|, the codes [n] in raster order, n = size of the grid
    q(a|x) = a point mass;  p(a|c) = prod_i p(a_i | a_<i, c), a causal network;  p(x|a, c) from the decoder's output on the grid of c_(a_i)

    loss = -log p(x|a) + beta sum_i |e_i - sg(c_(a_i))|^2 - log p(a)

The decoder's gradient passes to the encoder straight through: d e_i = d c_(a_i) (objectives.straight_through). The codes are integers, so
the prior's term trains the prior alone, beside the autoencoder and not after it. The codebook follows the encodings by moving averages
(codebook.py), set by `update`.

log p(x|a) + log p(a) at the one code that q names is a lower bound of log p(x) = log sum_a p(x|a) p(a); -log p(a) is the code's length.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import distrax
import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.build import SAMPLING, Count, Decay, Fraction, Natural, NonNegative, Positive
from vaeflow.distributions import Distribution, Likelihood
from vaeflow.errors import UserError
from vaeflow.model import NO_PARAMS, Frozen, Latent, Model, overlay
from vaeflow.models.parts import codebook
from vaeflow.models.parts.code_prior import code_prior, draw
from vaeflow.models.parts.embed import Embed
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.reconstruction import reconstruction
from vaeflow.nets import Causal, Net
from vaeflow.objectives import Adversarial
from vaeflow.record import recorded


@recorded
def vq(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    grid: tuple[Count, ...],
    codes: Count,
    width: Count,
    encoder: Net,
    decoder: Net,
    prior: Causal,
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    commitment: NonNegative = 0.25,
    decay: Decay = 0.99,
    smoothing: Positive = 1e-5,
    restart: Fraction = 0.1,
    perceptual: Frozen | None = None,
    perceptual_weight: NonNegative = 1.0,
    critic: Net | None = None,
    patches: tuple[Count, ...] = (),
    adversarial: Adversarial | None = None,
    critic_weight: NonNegative = 0.1,
    temperature: Annotated[NonNegative, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event        the shape of one example; levels: its number of grey values as the model gets them, 0 for data as is
    grid         the shape of the codes, (h, w) for networks between images, (n,) for vectors; codes: K; width: d
    commitment   beta
    decay        of the codebook's moving averages; smoothing: of its counts
    restart      codes used less often than this fraction of 1/K are moved to encodings; 0: never
    perceptual, critic, patches, adversarial, and their weights: terms that sharpen reconstructions, see models/parts/reconstruction.py
    temperature  of `sample`: factor on the Gumbel noise of the prior's draws
    """
    n, data = math.prod(grid), observation_model(event, levels, likelihood, likelihood_std)
    if not grid:
        raise UserError("model.grid=() is invalid; it must be (n,) or (height, width)")
    sharp = reconstruction(data, event, levels, perceptual, perceptual_weight, critic, patches, adversarial, critic_weight)
    encode = encoder.module((*grid, width), len(event), False)
    decode = decoder.module(data.out, len(grid) + 1, False)
    causal = prior.module(n, codes, codes)

    def vectors(params):
        return codebook.vectors(params["stats"], smoothing)

    def encodings(params, x, context):
        """e [B, n, d]."""
        e: Any = encode.apply({"params": params["encoder"]}, data.scaled(x), context)
        return e.reshape(*e.shape[: -len(grid) - 1], n, width)

    def decoded(params, z, context) -> Distribution:
        """p(x|z), z [..., n, d]."""
        out: Any = decode.apply({"params": params["decoder"]}, z.reshape(*z.shape[:-2], *grid, width), context)
        return data.given(out)

    def logits(params, context) -> Any:
        return lambda a: causal.apply({"params": params["prior"]}, a, context)

    def posterior_of(params, x, context=None) -> Distribution:
        return distrax.Independent(distrax.Deterministic(codebook.nearest(encodings(params, x, context), vectors(params))[0]), 1)

    def prior_of(params, context=None) -> Distribution:
        return code_prior(logits(params, context), n, () if context is None else context.shape[:-1])

    def likelihood_of(params, z, context=None) -> Distribution:
        return decoded(params, vectors(params)[z], context)

    def into(params, a):
        return vectors(params)[a].reshape(*a.shape[:-1], *grid, width)

    def back(params, y):
        return codebook.nearest(y.reshape(*y.shape[: -len(grid) - 1], n, width), vectors(params))[0]

    def init(key, batch, given=NO_PARAMS):
        data.fits(batch["x"])
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        keys = jax.random.split(key, 4)
        params = overlay({"encoder": encode.init(keys[0], data.scaled(x), context)["params"]}, given)
        e = encodings(params, x, context)
        params["decoder"] = decode.init(keys[1], e.reshape(len(x), *grid, width), context)["params"]
        params["prior"] = causal.init(keys[2], jnp.zeros((len(x), n), jnp.int32), context)["params"]
        params["stats"] = codebook.start(keys[3], e.reshape(-1, width), codes)
        params |= sharp.init(jax.random.fold_in(key, 4), batch, given) if sharp is not None else NO_PARAMS
        return overlay(params, given)

    def loss(params, key, batch, step):
        del step
        x, context = batch["x"], batch.get("context")
        e, c = encodings(params, x, context), jax.lax.stop_gradient(vectors(params))
        a, gap = codebook.nearest(e, c)
        apart = jnp.mean(jnp.sum(gap, axis=-1))
        p = decoded(params, objectives.straight_through(e, c[a]), context)
        recon = -jnp.mean(p.log_prob(x))
        length = -jnp.mean(prior_of(params, context).log_prob(a))
        total = recon + commitment * apart + length
        found = {"recon": recon, "commitment": apart, "prior": length}
        if sharp is not None:
            more, terms = sharp.loss(params, key, x, p)
            total, found = total + more, found | terms
        return total, {"loss": total, **found} | {"perplexity": codebook.perplexity(a, codes)}

    def log_prob(params, key, batch):
        del key
        x, context = batch["x"], batch.get("context")
        a = codebook.nearest(encodings(params, x, context), vectors(params))[0]
        return likelihood_of(params, a, context).log_prob(x) + prior_of(params, context).log_prob(a)

    def sample(params, key, count, context=None):
        key_a, key_x = jax.random.split(key)
        a = draw(logits(params, context), key_a, (count, n), temperature)
        return {"x": data.show(key_x, likelihood_of(params, a, context)), "z": a}

    def update(params, key, batch, step):
        del step
        e = encodings(params, batch["x"], batch.get("context")).reshape(-1, width)
        a, gap = codebook.nearest(e, vectors(params))
        old = params["stats"]
        stats = codebook.averaged(old, e, a, decay)
        return params | {"stats": codebook.revived(stats, old, key, e, gap, restart) if restart else stats}

    return Model(
        init=init,
        loss=loss,
        sample=sample,
        log_prob=log_prob,
        density="bound",
        latent=Latent(prior_of, posterior_of, likelihood_of, discrete=True, show=data.show, embed=Embed((*grid, width), into, back)),
        update=update,
        note=data.note,
        event=event,
        levels=levels,
        one_device=f"model.restart={restart:g} moves codes to encodings of one device; set it to 0" if restart else "",
    )


_EXAMPLE = dict(event=(6,), levels=2, grid=(3,), codes=5, width=2, encoder="net", decoder="net", prior="causal", decay=0.9, restart=0.0)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(levels=0, likelihood="gaussian", likelihood_std=0.3, restart=0.5),
    _EXAMPLE | dict(event=(8, 8, 1), levels=17, likelihood="discretized_logistic", grid=(2, 2), encoder="conv", decoder="deconv"),
)
