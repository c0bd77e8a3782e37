"""What a VAE's loss has beside the reconstruction: the KL in its forms, and the regularisers of the aggregate posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vaeflow import objectives
from vaeflow.distributions import Distribution
from vaeflow.errors import UserError
from vaeflow.model import Array, Batch, Latent, Params

OF_MANY = ("iwae", "iwae_one", "iwae_path", "dreg", "renyi")  # objectives whose value, and not their gradient alone, is of k draws
LogProb = Callable[[Params, Array, Batch], Array]


class Penalties(NamedTuple):
    """The weights of vae.py's arguments of the same names; 0 is off."""

    free_bits: float
    capacity: float
    capacity_steps: int
    tc: float
    mmd: float
    adversarial: float


class Draws(NamedTuple):
    """z [B, D] ~ q(z|x), the distributions of the posterior and of the prior, and the critic (see `critic_of`)."""

    z: Array
    q: Distribution
    p: Distribution
    critic: Callable[[Array, bool], Array] | None


def log_weight(latent: Latent) -> LogProb:
    """A model's log_prob: log p(x|z) + log p(z) - log q(z|x) at one z ~ q(z|x)."""

    def log_prob(params, key, batch):
        x, context = batch["x"], batch.get("context")
        z, log_q = latent.posterior(params, x, context).sample_and_log_prob(seed=jax.random.split(key, 3)[0])
        return latent.likelihood(params, z, context).log_prob(x) + latent.prior(params, context).log_prob(z) - log_q

    return log_prob


def bound_terms(log_prob: LogProb, samples: int, objective: str = "iwae", alpha: float = 0.0) -> Callable[..., dict[str, Array]]:
    """A model's terms: as its loss, by which `best` is chosen, minus the bound of k draws that it trains."""

    def terms(params, key, batch):
        log_w = jax.vmap(lambda key: log_prob(params, key, batch))(jax.random.split(key, samples))
        return {"loss": -(objectives.renyi(log_w, alpha) if objective == "renyi" else objectives.iwae(log_w))}

    return terms


def critic_of(critic_net: Any, params: Params) -> Callable[[Array, bool], Array] | None:
    """(z [B, D], whether the critic's parameters are held fixed) -> logits [B], of a linen module."""
    if critic_net is None:
        return None

    def logits(z, fixed):
        own = jax.lax.stop_gradient(params["critic"]) if fixed else params["critic"]
        return jnp.squeeze(critic_net.apply({"params": own}, z), -1)

    return logits


def kl_term(weights: Penalties, groups: Array, latent: int, step: Array | int) -> Array:
    """The KL of groups [G], whose sum it is, with free bits or held at a capacity."""
    if weights.capacity:
        target = weights.capacity * jnp.minimum(1.0, jnp.asarray(step) / weights.capacity_steps)
        return objectives.capacity(jnp.sum(groups), target)
    return objectives.free_bits(groups, weights.free_bits * latent / len(groups))


def regularisers(weights: Penalties, draws: Draws, key: Array) -> tuple[Array, dict[str, Array]]:
    """(their weighted sum, {name: value} of those that are on)."""
    total, found = jnp.zeros(()), {}
    z, q, p = draws.z, draws.q, draws.p
    if (weights.tc or weights.mmd) and len(z) < 2:
        raise UserError("data.batch gives a device 1 example, and model.tc and model.mmd compare at least 2 with each other")
    if weights.tc:
        inner = q.distribution
        mean, std = inner.mean(), inner.stddev()
        parts = objectives.decomposition(z, mean, std, jax.scipy.stats.norm.logpdf(z))
        total += weights.tc * parts.total_correlation
        found |= {"mutual_information": parts.mutual_information, "tc": parts.total_correlation, "dimension_kl": parts.dimension_kl}
    if weights.mmd or weights.adversarial:
        other = p.sample(seed=key, sample_shape=() if p.batch_shape else (len(z),))
        if weights.mmd:
            found["mmd"] = objectives.mmd(z, other)
            total += weights.mmd * found["mmd"]
        if weights.adversarial:
            assert draws.critic is not None
            fooling = objectives.fooling_loss(draws.critic(z, True))
            own = objectives.critic_loss(*(draws.critic(jax.lax.stop_gradient(a), False) for a in (other, z)))
            found |= {"fooling": fooling, "critic": jax.lax.stop_gradient(own)}
            # Two players, one loss: each one's term has no gradient for the other, and Adam scales every parameter by itself.
            total += weights.adversarial * fooling + own - jax.lax.stop_gradient(own)
    return total, found


def check_posterior(posterior: Any, posterior_context: int, pseudo_inputs: int) -> None:
    """UserError: what goes with a layer over the posterior alone, or without one alone."""
    if posterior_context and posterior is None:
        raise UserError(f"model.posterior_context={posterior_context} has no use without a layer in model.posterior; set it to 0")
    if pseudo_inputs and posterior is not None:
        raise UserError(
            f"model.pseudo_inputs={pseudo_inputs} needs a Gaussian posterior, whose mixture the prior is; model.posterior must be ''"
        )


def check_path(objective: str, posterior: Any) -> None:
    """UserError: a gradient that scores the draws anew, by a posterior whose two directions differ in training."""
    if objective in objectives.PATH and posterior is not None and posterior.update is not None:
        raise UserError(
            f"model.objective={objective!r} needs a posterior that inverts its own draws in training, which batch statistics do not:"
            " use 'elbo' or 'iwae', or no batch_norm in model.posterior"
        )


def check_schedule(schedule: str, steps: int) -> None:
    """UserError: a schedule without its length."""
    if schedule != "constant" and steps < 1:
        raise UserError(f"model.beta_schedule={schedule!r} needs model.beta_steps >= 1, not {steps}")


def check(weights: Penalties, gaussian: bool, prior_is_normal: bool, critic: Any) -> None:
    """UserError: penalties that do not fit the posterior, the prior or each other."""
    if weights.capacity and weights.free_bits:
        raise UserError(f"model.capacity={weights.capacity:g}, free_bits={weights.free_bits:g} are two forms of the KL; one must be 0")
    if bool(weights.capacity) != bool(weights.capacity_steps):
        raise UserError(f"model.capacity={weights.capacity:g} and capacity_steps={weights.capacity_steps} go together: both 0, or none")
    if weights.tc and not (gaussian and prior_is_normal):
        raise UserError(f"model.tc={weights.tc:g} needs a diagonal Gaussian posterior and the prior N(0, I): no layer, base, pseudo-inputs")
    if bool(weights.adversarial) != (critic is not None):
        raise UserError(f"model.adversarial={weights.adversarial:g} and model.critic go together: 0 and '', or a weight and a network")


def check_objective(objective: str, alpha: float, samples: int, kl: str, beta: float, schedule: str, weights: Penalties) -> None:
    """UserError: values that the objective does not read, or cannot do with."""
    if alpha != 0 and objective != "renyi":
        raise UserError(f"model.alpha={alpha:g} is not read by model.objective={objective!r}; set it to 0, or model.objective to 'renyi'")
    if objective == "renyi" and alpha == 1:
        raise UserError("model.alpha=1.0 is invalid with model.objective='renyi': its limit there is model.objective='elbo'")
    if objective == "elbo":
        return
    read = {"beta": beta != 1, "beta_schedule": schedule != "constant", "kl": kl != "auto"}
    read |= {name: value != 0 for name, value in weights._asdict().items()}
    if wrong := [f"model.{name}" for name, changed in read.items() if changed]:
        raise UserError(f"{', '.join(wrong)} is for model.objective='elbo' alone, not {objective!r}; leave it as in configs/base.py")
    if samples == 1 and objective in ("iwae_one", "dreg", "iwae_path"):
        raise UserError(f"model.objective={objective!r} needs model.samples >= 2, not 1: of one draw every bound is the elbo")
