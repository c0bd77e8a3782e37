"""What the families of VAEs share: the log-weight, the bound by which `best` is chosen, and which objectives suit a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from vaeflow.errors import UserError
from vaeflow.model import Array, Batch, Latent, Params
from vaeflow.objectives import Objective, kinds_for

LogProb = Callable[[Params, Array, Batch], Array]


def log_weight(latent: Latent) -> LogProb:
    """A model's log_prob: log p(x|z) + log p(z) - log q(z|x) at one z ~ q(z|x)."""

    def log_prob(params, key, batch):
        x, context = batch["x"], batch.get("context")
        z, log_q = latent.posterior(params, x, context).sample_and_log_prob(seed=jax.random.split(key, 3)[0])
        return latent.likelihood(params, z, context).log_prob(x) + latent.prior(params, context).log_prob(z) - log_q

    return log_prob


def bound_terms(log_prob: LogProb, objective: Objective) -> Callable[..., dict[str, Array]] | None:
    """A model's terms: as its loss, by which `best` is chosen, minus the objective's own bound where it has one, else None."""
    bound = objective.bound
    if bound is None:
        return None

    def terms(params, key, batch):
        log_w = jax.vmap(lambda key: log_prob(params, key, batch))(jax.random.split(key, objective.k))
        return {"loss": -bound(log_w)}

    return terms


def check_objective(objective: Objective, family: str, *, discrete: bool = False, gaussian: bool = False) -> None:
    """UserError: an objective that does not suit the family's latents.

    discrete: whether they are; gaussian: whether q is a diagonal Gaussian and the prior N(0, I).
    """
    if objective.discrete != discrete:
        fit = kinds_for(discrete)
        needs, has = ("discrete", "Gaussian") if objective.discrete else ("reparameterised", "discrete")
        raise UserError(
            f"model.objective: {objective.kind!r} is for {needs} latents, and those of {family} are {has}; for them: {', '.join(fit)}"
        )
    if objective.gaussian and not gaussian:
        raise UserError(
            f"model.objective: {objective.kind!r} needs a diagonal Gaussian posterior and the prior N(0, I), and {family} here has others; "
            "a vae has them without posterior, prior, prior_base and pseudo_inputs"
        )


def check_posterior(posterior: Any, posterior_context: int, pseudo_inputs: int) -> None:
    """UserError: what goes with a layer over the posterior alone, or without one alone."""
    if posterior_context and posterior is None:
        raise UserError(f"model.posterior_context={posterior_context} has no use without a layer in model.posterior; set it to 0")
    if pseudo_inputs and posterior is not None:
        raise UserError(
            f"model.pseudo_inputs={pseudo_inputs} needs a Gaussian posterior, whose mixture the prior is; model.posterior must be ''"
        )


def check_path(objective: Objective, posterior: Any) -> None:
    """UserError: a gradient that scores the draws anew, by a posterior whose two directions differ in training."""
    if objective.path and posterior is not None and posterior.update is not None:
        raise UserError(
            f"model.objective: {objective.kind!r} needs a posterior that inverts its own draws in training, which batch statistics do not:"
            " use 'elbo' or 'iwae', or no batch_norm in model.posterior"
        )
