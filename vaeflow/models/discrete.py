"""Variational autoencoder with a discrete latent: V variables of C categories, trained by any estimator of the gradient.

    q(z|x) = prod_v q(z_v|x) from the encoder's logits;  p(z) = prod_v p(z_v), uniform or with trained logits;  p(x|z) from the decoder

z is a vector: V bits for C = 2, else V one-hot vectors side by side. The estimators are the objectives of discrete latents
(vaeflow/objectives/discrete.py): reinforce, leave_one_out, vimco, wake_sleep, gumbel_softmax, straight_through. Evaluation is always
that of the discrete model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.build import SAMPLING, Bare, Count, Natural, Positive, Range
from vaeflow.distributions import Distribution, Likelihood
from vaeflow.model import NO_PARAMS, Latent, Model, overlay
from vaeflow.models.parts.discrete_latent import Bits, OneHots, kl
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import bound_terms, check_objective, log_weight
from vaeflow.nets import Net
from vaeflow.objectives import Draws, Objective
from vaeflow.record import recorded


@recorded
def discrete_vae(
    *,
    event: tuple[Count, ...],
    levels: Natural = 0,
    variables: Count,
    categories: Annotated[int, Range(2)],
    encoder: Net,
    decoder: Net,
    prior: Literal["uniform", "learned"] = "uniform",
    likelihood: Likelihood = "bernoulli",
    likelihood_std: Positive = 0.1,
    objective: Annotated[Objective | None, Bare("vimco")] = None,
    temperature: Annotated[Positive, SAMPLING] = 1.0,
) -> Model:
    """See the module's docstring.

    event, levels   as in vae.py
    objective       one of discrete latents; "": VIMCO. The groups of the KL are the whole latent
    temperature     of `sample`: the prior's logits are divided by it (a uniform prior stays uniform)

    `best` is chosen by the k-sample bound where that is trained, else by the ELBO.
    """
    objective = objective or objectives.OBJECTIVES["vimco"]()
    check_objective(objective, "a discrete_vae", discrete=True)
    data = observation_model(event, levels, likelihood, likelihood_std)
    family, shape = (Bits, (variables,)) if categories == 2 else (OneHots, (variables, categories))
    encode, decode = encoder.module(shape, len(event), False), decoder.module(data.out, 1, False)

    def posterior_of(params, x, context=None) -> Any:
        logits: Any = encode.apply({"params": params["encoder"]}, data.scaled(x), context)
        return family(logits)

    def prior_of(params, context=None, temperature=1.0) -> Any:
        del context
        return family((params["prior"]["logits"] if prior == "learned" else jnp.zeros(shape)) / temperature)

    def likelihood_of(params, z, context=None) -> Distribution:
        out: Any = decode.apply({"params": params["decoder"]}, z, context)
        return data.given(out)

    latent = Latent(prior_of, posterior_of, likelihood_of, discrete=True, show=data.show)
    log_prob = log_weight(latent)

    def draws_of(params, key, x, context, k, step=0, draw=None) -> Draws:
        q, p = posterior_of(params, x, context), prior_of(params)
        z, log_q = q.sample_and_log_prob(seed=key, sample_shape=(k,)) if draw is None else (draw(q, key, step), None)  # [k, B, D]

        def dream(key):
            key_z, key_x = jax.random.split(key)
            z = p.sample(seed=key_z, sample_shape=(len(x),))
            drawn = jax.lax.stop_gradient(likelihood_of(params, z, context).sample(seed=key_x))
            return posterior_of(params, drawn, context).log_prob(z)

        return Draws(
            z=z,
            log_q=log_q,
            log_x=lambda z: likelihood_of(params, z, context).log_prob(x),
            log_z=p.log_prob,
            log_q_path=lambda z: posterior_of(jax.lax.stop_gradient(params), x, context).log_prob(z),
            kl=kl(q, p)[None],
            group_size=variables,
            q=q,
            prior=lambda key: p.sample(seed=key, sample_shape=(len(x),)),
            x=data.scaled(x),
            context=context,
            dream=dream,
        )

    def init(key, batch, given=NO_PARAMS):
        x, context = jnp.asarray(batch["x"]), batch.get("context")
        data.fits(x)
        keys = jax.random.split(key, 5)
        params = overlay({"encoder": encode.init(keys[0], data.scaled(x), context)["params"]}, given)
        z = posterior_of(params, x, context).sample(seed=keys[1])
        params["decoder"] = decode.init(keys[2], z, context)["params"]
        if prior == "learned":
            params["prior"] = {"logits": jnp.zeros(shape)}
        params = overlay(params, given)
        if objective.init is None:
            return params
        draws = draws_of(params, jax.random.split(keys[4], 3)[0], x, context, 1)  # those of log_prob at keys[4]
        return overlay(params | {"objective": objective.init(keys[3], draws)}, given)

    def loss(params, key, batch, step):
        key_z, key_own = jax.random.split(key)
        draws = draws_of(params, key_z, batch["x"], batch.get("context"), objective.k, step, objective.draw)
        return objective.loss(params.get("objective", {}), key_own, draws, step)

    def sample(params, key, n, context=None):
        key_z, key_x = jax.random.split(key)
        z = prior_of(params, temperature=temperature).sample(seed=key_z, sample_shape=(n,))
        return {"x": data.show(key_x, likelihood_of(params, z, context)), "z": z}

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


_EXAMPLE = dict(event=(6,), levels=2, variables=4, categories=2, encoder="net", decoder="net")
EXAMPLES = (
    _EXAMPLE | dict(objective="reinforce"),
    _EXAMPLE | dict(objective="baseline", categories=3),
    _EXAMPLE | dict(objective="leave_one_out", levels=0, likelihood="gaussian", likelihood_std=0.3),
    _EXAMPLE | dict(objective="vimco", prior="learned", categories=3, levels=17, likelihood="discretized_logistic"),
    _EXAMPLE | dict(objective="wake_sleep", prior="learned", temperature=0.5),
    _EXAMPLE | dict(objective="gumbel_softmax", categories=3),
    _EXAMPLE | dict(objective="straight_through", event=(8, 8, 1), encoder="conv", decoder="deconv", prior="learned"),
)
