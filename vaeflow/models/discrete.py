"""Variational autoencoder with a discrete latent: V variables of C categories, trained by any estimator of the gradient.

    q(z|x) = prod_v q(z_v|x) from the encoder's logits;  p(z) = prod_v p(z_v), uniform or with trained logits;  p(x|z) from the decoder

z is a vector: V bits for C = 2, else V one-hot vectors side by side. With log w = log p(x|z) + beta (log p(z) - log q(z|x)) and k draws:

    reinforce           ELBO, score function with the signal log w
    reinforce_baseline  less a network's b(x), which learns E_q[log w]
    leave_one_out       less the mean of the other k - 1 draws
    vimco               the k-sample bound, with a signal for each draw
    wake_sleep          the k-sample bound for p; q by `wake_q` (normalised weights of the draws), `sleep_q` (samples of the model) or both
    gumbel_softmax      log p(x|z) at relaxed draws, less beta times the discrete KL, as in Jang et al. 2017: no bound of log p(x)
    straight_through    the same at exact one-hot draws, with the relaxed ones' derivative: a bound, with a biased gradient

The estimators stand in vaeflow/objectives/score_function.py and relaxations.py. Evaluation is always that of the discrete model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.build import Count, Natural, NonNegative, Positive, Range
from vaeflow.distributions import Distribution, Likelihood
from vaeflow.model import NO_PARAMS, Latent, Model, overlay
from vaeflow.models.parts.discrete_estimators import MULTI_SAMPLE, RELAXED, Estimation, Estimator, check, surrogate
from vaeflow.models.parts.discrete_latent import Bits, OneHots, kl
from vaeflow.models.parts.observation import observation_model
from vaeflow.models.parts.vae_loss import bound_terms, log_weight
from vaeflow.nets import Net


def discrete_vae(
    *,
    event: tuple[Count, ...],
    levels: Natural,
    variables: Count,
    categories: Annotated[int, Range(2)],
    encoder: Net,
    decoder: Net,
    prior: Literal["uniform", "learned"],
    likelihood: Likelihood,
    likelihood_std: Positive,
    estimator: Estimator,
    samples: Count,
    baseline: Net | None,
    wake_q: bool,
    sleep_q: bool,
    relaxation: NonNegative,
    relaxation_start: NonNegative,
    relaxation_steps: Natural,
    beta: NonNegative,
    beta_schedule: objectives.BetaSchedule,
    beta_start: NonNegative,
    beta_steps: Natural,
    beta_ramp: Annotated[float, Range(0, 1, open_low=True)],
    temperature: Positive,
) -> Model:
    """See the module's docstring.

    event, levels   as in vae.py
    samples         k
    baseline        the network of b(x), which is added to a trained constant that starts at the first batch's mean log w
    wake_q, sleep_q of wake_sleep: the phases of q, the sum of both where both are on
    relaxation*     the relaxed draws' temperature: from relaxation_start to relaxation, geometrically, in relaxation_steps; steps 0:
                    constant
    beta_*          see objectives.beta_schedule; 1 for the multi-sample estimators, whose weights must be those of log p(x)
    temperature     of `sample`: the prior's logits are divided by it (a uniform prior stays uniform)

    `best` is chosen by the k-sample bound where that is trained, else by the ELBO.
    """
    how = Estimation(estimator, samples, baseline is not None, wake_q, sleep_q, relaxation, relaxation_start, relaxation_steps)
    check(how, beta, beta_schedule, beta_steps)
    data = observation_model(event, levels, likelihood, likelihood_std)
    family, shape = (Bits, (variables,)) if categories == 2 else (OneHots, (variables, categories))
    encode, decode = encoder.module(shape, len(event), False), decoder.module(data.out, 1, False)
    baseline_net = None if baseline is None else baseline.module((), len(event), False)
    beta_of = objectives.beta_schedule(beta_schedule, start=beta_start, end=beta, steps=beta_steps, ramp=beta_ramp)
    temperature_at = objectives.annealing(start=relaxation_start, end=relaxation, steps=relaxation_steps)

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

    def baseline_of(params, x, context):
        assert baseline_net is not None
        out: Any = baseline_net.apply({"params": params["baseline"]["net"]}, data.scaled(x), context)
        return params["baseline"]["constant"] + out

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
        if baseline_net is not None:
            net = baseline_net.init(keys[3], data.scaled(x), context).get("params", {})
            params["baseline"] = {"net": net, "constant": jnp.mean(log_prob(params, keys[4], batch))}
        return overlay(params, given)

    def dream(params, key, context, rows):
        """sleep_q [rows] at samples of the model, given the batch's context."""
        key_z, key_x = jax.random.split(key)
        z = prior_of(params).sample(seed=key_z, sample_shape=(rows,))
        x = jax.lax.stop_gradient(likelihood_of(params, z, context).sample(seed=key_x))
        return objectives.sleep_q(posterior_of(params, x, context).log_prob(z))

    def loss(params, key, batch, step):
        x, context = batch["x"], batch.get("context")
        key_z, key_dream = jax.random.split(key)
        q, p, weight = posterior_of(params, x, context), prior_of(params), beta_of(step)
        rate, metrics = jnp.mean(kl(q, p)), {"beta": weight}
        if estimator in RELAXED:
            metrics["temperature"] = temperature_at(step)
            soft = q.relaxed(key_z, samples, metrics["temperature"])  # [k, B, D]
            z = q.hardened(soft) if estimator == "straight_through" else soft
            log_x = likelihood_of(params, z, context).log_prob(x)
            total = weight * rate - jnp.mean(log_x)
        else:
            z, log_q = q.sample_and_log_prob(seed=key_z, sample_shape=(samples,))
            log_x = likelihood_of(params, z, context).log_prob(x)  # [k, B]
            b = None if baseline_net is None else baseline_of(params, x, context)
            total = -jnp.mean(surrogate(how, log_x, p.log_prob(z), log_q, weight, b))
            if sleep_q:
                total -= jnp.mean(dream(params, key_dream, context, len(x)))
        return total, {"loss": total, "recon": -jnp.mean(log_x), "kl": rate, **metrics}

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
        terms=bound_terms(log_prob, samples) if estimator in MULTI_SAMPLE else None,
        note=data.note,
        event=event,
        levels=levels,
    )


_EXAMPLE = dict(
    event=(6,),
    levels=2,
    variables=4,
    categories=2,
    encoder="net",
    decoder="net",
    prior="uniform",
    likelihood="bernoulli",
    likelihood_std=0.3,
    estimator="reinforce",
    samples=1,
    baseline="",
    wake_q=False,
    sleep_q=False,
    relaxation=0.0,
    relaxation_start=0.0,
    relaxation_steps=0,
    beta=1.0,
    beta_schedule="constant",
    beta_start=0.0,
    beta_steps=0,
    beta_ramp=0.5,
    temperature=1.0,
)
EXAMPLES = (
    _EXAMPLE,
    _EXAMPLE | dict(estimator="reinforce_baseline", baseline="net", categories=3, beta=0.5),
    _EXAMPLE | dict(estimator="leave_one_out", samples=3, levels=0, likelihood="gaussian", beta_schedule="linear", beta_steps=10),
    _EXAMPLE | dict(estimator="vimco", samples=3, prior="learned", categories=3, levels=17, likelihood="discretized_logistic"),
    _EXAMPLE | dict(estimator="wake_sleep", samples=3, wake_q=True, sleep_q=True, prior="learned", temperature=0.5),
    _EXAMPLE | dict(estimator="gumbel_softmax", relaxation=0.5, relaxation_start=2.0, relaxation_steps=10, categories=3, samples=2),
    _EXAMPLE
    | dict(estimator="straight_through", relaxation=0.5, event=(8, 8, 1), encoder="conv", decoder="deconv", prior="learned", beta=0.5),
)
